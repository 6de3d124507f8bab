"""Which images a cell trains on: nested, seeded draws from the pool, their manifests, and the feedback images."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path
from lowdata_cpt.data.splits import balanced_order
from lowdata_cpt.data.store import Store, Task

COLUMNS = ["row", "id", "sha256"]
DENSE: tuple[Task, ...] = ("segmentation", "depth")


def draw(store: Store, n: int, seed: int) -> pd.DataFrame:
    """Draw n images of the pool: nested in n, paired by seed, stratified where the pool has strata.

    A pool holds no validation or test image (`writer.write_splits`); should one be an exact copy, it is skipped.

    Returns:
        Columns row (position in the pool set), id, sha256; in drawn order, so a smaller n is a prefix.

    Raises:
        UserError: n is not between 1 and the number of images that may be drawn.
    """
    pool = store.rows(store.meta.pool).assign(row=lambda rows: range(len(rows)))
    held_out = store.held_out()
    free = pool[~pool["sha256"].isin(held_out)].reset_index(drop=True)
    if not 1 <= n <= len(free):
        raise UserError(
            f"n = {n} images were asked of domain {store.meta.domain!r}, whose pool has {len(free)} without its "
            f"validation and test images; set `sizes` to numbers from 1 to {len(free)}, or cut a smaller validation "
            "set (`val_images`)"
        )
    order = balanced_order(free["id"].tolist(), free["stratum"].tolist(), seed, "draw")[:n]
    drawn = free[COLUMNS].iloc[order].reset_index(drop=True)
    assert not held_out.keys() & set(drawn["sha256"]), "a validation or test image was drawn"
    return drawn


def feedback_rows(store: Store, drawn: Collection[str], minimum: int = 64) -> NDArray[np.int64]:
    """Return which labelled train images give feedback: those that are not among the drawn, unlabelled ones.

    V-pretraining's paper keeps the two apart. Where fewer than `minimum` labelled images would be left, all train
    images are used, as the labels are the scarcer good then, and the console says so.

    Args:
        store: of a domain with segmentation or depth labels.
        drawn: sha256 of the images that the cell trains on.
        minimum: images that must be left.

    Returns:
        Positions in the train set of the domain's first dense task, ascending: int64 [M].

    Raises:
        UserError: the domain has neither segmentation nor depth labels.
    """
    tasks = [task for task in DENSE if task in store.meta.tasks]
    if not tasks:
        raise UserError(f"domain {store.meta.domain!r} has neither segmentation nor depth labels to give feedback")
    digests = store.rows(store.task(tasks[0]).sets["train"])["sha256"]
    apart = np.flatnonzero(~digests.isin(set(drawn)).to_numpy())
    if len(apart) == len(digests) or len(apart) >= minimum:
        return apart.astype(np.int64)
    print(
        f"domain {store.meta.domain!r}: only {len(apart)} of {len(digests)} labelled train images are not among the "
        f"{len(drawn)} drawn ones, fewer than {minimum}: feedback comes from all of them, drawn ones included"
    )
    return np.arange(len(digests), dtype=np.int64)


def write_manifest(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a drawn subset atomically as CSV with the columns row,id,sha256."""
    with atomic_path(path) as temporary:
        frame[COLUMNS].to_csv(temporary, index=False, lineterminator="\n")


def read_manifest(path: str | Path, store: Store) -> pd.DataFrame:
    """Read a manifest and hold it to the store.

    Returns:
        Columns row (position in the pool set), id, sha256.

    Raises:
        UserError: the file is missing or malformed, an image is listed twice, is not that of the store, or is
            a validation or test image.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path, dtype={"id": str, "sha256": str}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such subset manifest") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a subset manifest ({' '.join(str(error).split())})") from None
    if list(frame.columns) != COLUMNS or not pd.api.types.is_integer_dtype(frame["row"]) or frame.empty:
        raise UserError(f"{path}: not a subset manifest, expected the columns {','.join(COLUMNS)} and at least one row")
    pool = store.rows(store.meta.pool)
    if frame["row"].duplicated().any():
        raise UserError(f"{path}: image {frame.loc[frame['row'].duplicated(), 'id'].iloc[0]} is listed twice")
    if not frame["row"].between(0, len(pool) - 1).all():
        raise UserError(f"{path}: rows beyond the pool of {len(pool)} images of domain {store.meta.domain!r}")
    held = pool.iloc[frame["row"].to_numpy()]
    for column in ("id", "sha256"):
        differs = held[column].to_numpy() != frame[column].to_numpy()
        if differs.any():
            name = frame["id"].to_numpy()[differs][0]
            raise UserError(
                f"{path}: the {column} of image {name} is not that of the store {store.root}; draw it again"
            )
    held_out = store.held_out()
    leaked = frame[frame["sha256"].isin(held_out)]
    if len(leaked):
        kind = held_out[leaked["sha256"].iloc[0]]
        raise UserError(f"{path}: image {leaked['id'].iloc[0]} is a {kind} image of domain {store.meta.domain!r}")
    return frame
