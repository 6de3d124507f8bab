"""Which images a cell trains on: nested, seeded draws from the pool, and their manifests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path
from lowdata_cpt.data.splits import balanced_order
from lowdata_cpt.data.store import Store

COLUMNS = ["row", "id", "sha256"]


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


def write_manifest(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a drawn subset atomically as CSV with the columns row,id,sha256."""
    with atomic_path(path) as temporary:
        frame[COLUMNS].to_csv(temporary, index=False, lineterminator="\n")


def read_manifest(path: str | Path, store: Store, n: int | None = None) -> pd.DataFrame:
    """Read a manifest and hold it to the store, and to the number of images `n` that was drawn.

    Returns:
        Columns row (position in the pool set), id, sha256.

    Raises:
        UserError: the file is missing or malformed, an image is listed twice, is not that of the store, or is
            a validation or test image.
    """
    path, again = Path(path), f"`snakemake --cores 1 --force {path}` (with the study's --configfile) draws it again"
    try:
        frame = pd.read_csv(path, dtype={"id": str, "sha256": str}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such subset manifest; {again}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a subset manifest ({' '.join(str(error).split())}); {again}") from None
    if list(frame.columns) != COLUMNS or not pd.api.types.is_integer_dtype(frame["row"]) or frame.empty:
        raise UserError(
            f"{path}: not a subset manifest, expected the columns {','.join(COLUMNS)} and at least one row; {again}"
        )
    if n is not None and len(frame) != n:
        raise UserError(f"{path}: {len(frame)} images, expected {n}; {again}")
    pool = store.rows(store.meta.pool)
    if frame["row"].duplicated().any():
        raise UserError(f"{path}: image {frame.loc[frame['row'].duplicated(), 'id'].iloc[0]} is listed twice; {again}")
    if not frame["row"].between(0, len(pool) - 1).all():
        raise UserError(f"{path}: rows beyond the pool of {len(pool)} images of domain {store.meta.domain!r}; {again}")
    held = pool.iloc[frame["row"].to_numpy()]
    for column in ("id", "sha256"):
        differs = held[column].to_numpy() != frame[column].to_numpy()
        if differs.any():
            name = frame["id"].to_numpy()[differs][0]
            raise UserError(f"{path}: the {column} of image {name} is not that of the store {store.root}; {again}")
    held_out = store.held_out()
    leaked = frame[frame["sha256"].isin(held_out)]
    if len(leaked):
        kind = held_out[leaked["sha256"].iloc[0]]
        raise UserError(
            f"{path}: image {leaked['id'].iloc[0]} is a {kind} image of domain {store.meta.domain!r}; {again}"
        )
    return frame
