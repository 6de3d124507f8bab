"""Orders of images: balanced over strata, decided by names and seeds alone; splits are cut from them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.io import sha256_bytes


def balanced_order(
    ids: Sequence[str], strata: Sequence[str], seed: int, stream: Literal["split", "draw"]
) -> NDArray[np.int64]:
    """Return a random order whose every prefix holds each stratum in proportion, within one image.

    An image's place within its stratum depends on its id, the seed and the stream alone (sha256), so no library's
    random numbers can change a draw. The strata take turns by earliest deadline first on proportional-fair windows
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
    ids: Sequence[str], strata: Sequence[str], counts: Sequence[int], seed: int
) -> list[NDArray[np.int64]]:
    """Cut images into parts, each with the strata in proportion; the last part is what is left.

    Args:
        ids: unique names, M.
        strata: stratum of each, M.
        counts: images of each part but the last; fewer where no more are left.
        seed: of the order.

    Returns:
        Sorted positions of each part, one more than `counts`.
    """
    order = balanced_order(ids, strata, seed, "split")
    return [np.sort(part) for part in np.split(order, np.cumsum(np.asarray(counts, np.int64)))]
