"""Jobs for which SLURM's queue has no room: they wait here, in order, until jobs of ours have ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from snakemake_executor_plugin_submitit.job_submission import FullError
from snakemake_executor_plugin_submitit.records import Record

FIRST_PAUSE = 2.0  # seconds; a result comes a little before SLURM counts the job as ended


class WaitingRoom:
    """The submissions that SLURM refused because its queue is full; none of them has reached SLURM.

    Args:
        interval: seconds between attempts while no job of ours ends.
        patience: seconds after which a job that may be against the rules itself is given up, if no job of ours is live.
    """

    def __init__(self, interval: float, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval = interval
        self.patience = patience
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._pause = FIRST_PAUSE
        self._next = float("-inf")
        self._alone_since: float | None = None
        self._said: set[str] = set()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        """Let a submission wait behind the others."""
        self._records[record.key] = record

    def get(self, key: str) -> Record | None:
        """Return the submission that waits under this key."""
        return self._records.get(key)

    def remove(self, key: str) -> None:
        """Forget a submission: SLURM has taken it, or it has failed."""
        self._records.pop(key, None)

    def clear(self) -> int:
        """Forget all submissions; return their number."""
        number = len(self._records)
        self._records.clear()
        return number

    def is_news(self, full: FullError) -> bool:
        """Return whether SLURM has given this reason for the first time."""
        news = str(full) not in self._said
        self._said.add(str(full))
        return news

    def due(self) -> bool:
        """Return whether it is time to try again."""
        return self._clock() >= self._next

    def job_ended(self) -> None:
        """Note that there may be room now."""
        self._pause, self._next = FIRST_PAUSE, self._clock()

    def refused(self, full: FullError, others: bool) -> str:
        """Note that there is no room; return why waiting is in vain, or "".

        Args:
            full: SLURM's answer.
            others: whether other jobs of ours are live, which will make room.
        """
        now = self._clock()
        self._next = now + min(self._pause, self.interval)
        self._pause *= 2
        if full.certain or others:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since >= self.patience:
            return f"SLURM refuses the job though none of ours is in the queue: {full}"
        return ""
