"""Which images: balanced orders, seeded splits, nested subsets of the pool and their manifests."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, sha256_bytes
from lowdata_cpt.data.store import Store

COLUMNS = ["row", "id", "sha256"]


def balanced_order(
    ids: Sequence[str], strata: Sequence[str], seed: int, stream: Literal["split", "draw"] = "split"
) -> NDArray[np.int64]:
    """Return a random order whose every prefix holds each stratum in proportion, within one image.

    An image's place within its stratum depends on its id and the seed alone (sha256), so no library's random
    stream can change a draw. The strata take turns by earliest deadline first on proportional-fair windows
    (Baruah et al. 1996, Algorithmica 15: a schedule with lag < 1 exists at every step).

    Args:
        ids: unique names, M.
        strata: stratum of each, M.
        seed: of the order.
        stream: what the order is for; a draw is independent of the split that has the same seed.

    Returns:
        Positions into `ids`: int64 [M].
    """
    start = str(seed) if stream == "split" else f"{stream}:{seed}"
    members: dict[str, list[int]] = {}
    for position in sorted(range(len(ids)), key=lambda p: sha256_bytes(f"{start}:{ids[p]}".encode())):
        members.setdefault(strata[position], []).append(position)
    total, order = len(ids), np.empty(len(ids), np.int64)
    # (release, deadline, tie, stratum, j): the j-th of m members belongs into [floor(jM/m), ceil((j+1)M/m)).
    tie = {stratum: sha256_bytes(f"{start}/{stratum}".encode()) for stratum in members}
    waiting = [(0, -(-total // len(group)), tie[stratum], stratum, 0) for stratum, group in members.items()]
    heapq.heapify(waiting)
    ready: list[tuple[int, str, str, int]] = []
    for slot in range(total):
        while waiting and waiting[0][0] <= slot:
            _, deadline, key, stratum, j = heapq.heappop(waiting)
            heapq.heappush(ready, (deadline, key, stratum, j))
        _, key, stratum, j = heapq.heappop(ready)
        group = members[stratum]
        order[slot] = group[j]
        if j + 1 < len(group):
            release, deadline = (j + 1) * total // len(group), -(-(j + 2) * total // len(group))
            heapq.heappush(waiting, (release, deadline, key, stratum, j + 1))
    return order


def seeded_split(
    ids: Sequence[str], strata: Sequence[str], fractions: Sequence[float], seed: int
) -> list[NDArray[np.int64]]:
    """Cut images into parts, each with the strata in proportion; the last part is what is left.

    Args:
        ids: unique names, M.
        strata: stratum of each, M.
        fractions: share of M of each part but the last; at least one image each where there are enough.
        seed: of the order.

    Returns:
        Sorted positions of each part, one more than `fractions`.
    """
    order, parts, begin = balanced_order(ids, strata, seed), [], 0
    for fraction in fractions:
        end = begin + min(max(1, round(fraction * len(ids))), len(ids) - begin)
        parts.append(np.sort(order[begin:end]))
        begin = end
    return [*parts, np.sort(order[begin:])]


def draw(store: Store, n: int, seed: int) -> pd.DataFrame:
    """Draw n images of the pool: nested in n, paired by seed, stratified where the pool has strata.

    Images of a validation or test set are never drawn, also where the pool has them (a val cut from the train split).

    Returns:
        Columns row (position in the pool set), id, sha256; in drawn order, so a smaller n is a prefix.

    Raises:
        UserError: n is not between 1 and the number of images that may be drawn.
    """
    pool = store.rows(store.meta.pool).assign(row=lambda rows: range(len(rows)))
    held_out = held_out_hashes(store)
    free = pool[~pool["sha256"].isin(held_out)].reset_index(drop=True)
    if not 1 <= n <= len(free):
        raise UserError(
            f"n = {n} images were asked of domain {store.meta.domain!r}, whose pool has {len(free)} that are in no "
            f"validation or test set; set `sizes` to numbers from 1 to {len(free)}"
        )
    order = balanced_order(free["id"].tolist(), free["stratum"].tolist(), seed, "draw")[:n]
    drawn = free[COLUMNS].iloc[order].reset_index(drop=True)
    assert not held_out & set(drawn["sha256"]), "a validation or test image was drawn"
    return drawn


def held_out_hashes(store: Store) -> set[str]:
    """Return the sha256 of every image of a validation or test set, whatever the task."""
    sets = {info.sets[split] for info in store.meta.tasks.values() for split in ("val", "test") if split in info.sets}
    return {digest for name in sets for digest in store.rows(name)["sha256"]}


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
            a test image.
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
    for info in store.meta.tasks.values():
        if "test" in info.sets:
            test = set(store.rows(info.sets["test"])["sha256"])
            leaked = frame.loc[frame["sha256"].isin(test), "id"]
            if len(leaked):
                raise UserError(f"{path}: image {leaked.iloc[0]} is a test image of domain {store.meta.domain!r}")
    return frame
