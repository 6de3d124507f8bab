"""Which labelled images give feedback to methods that ask for it: not the drawn ones, where others are enough."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store, Task

DENSE: tuple[Task, ...] = ("segmentation", "depth")


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
