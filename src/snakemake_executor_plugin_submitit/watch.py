"""Collects the evidence on jobs in flight: result files often, SLURM seldom, and how long it has said the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from snakemake_executor_plugin_submitit.decide import LIVE_STATES, Decision, Evidence, decide
from snakemake_executor_plugin_submitit.records import Record
from snakemake_executor_plugin_submitit.slurm import Snapshot

HEARTBEAT_PATIENCE = 120.0  # seconds; a heartbeat is due every 15
SACCT_PATIENCE = 900.0  # seconds for which a failing sacct may come back; then squeue's word alone has to do


@dataclass
class _Seen:
    """What was seen of one submission so far; times on the monotonic clock."""

    since: float
    missing: float | None = None  # since when squeue does not list it while sacct fails
    settled: tuple[str | None, float] | None = None
    beat: tuple[float, float] = (0.0, float("-inf"))


class Watch:
    """Remembers, for each submission, since when SLURM has given the same final answer."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def begin(self, record: Record) -> None:
        """Start to watch a submission; answers SLURM gave before now say nothing about it."""
        self._seen[record.uid] = _Seen(since=self._clock())

    def end(self, record: Record) -> None:
        """Forget a submission."""
        self._seen.pop(record.uid, None)

    def judge(self, record: Record, snapshot: Snapshot) -> Decision:
        """Decide what has become of a submission."""
        result = record.result()
        if result is not None:
            return decide(Evidence(result=result, answered=True, state=None, settled=0.0, patience=self.patience))
        seen = self._seen.setdefault(record.uid, _Seen(since=self._clock()))
        row = snapshot.find(record.job_id, record.name)
        answered = snapshot.taken >= seen.since
        if row is not None or snapshot.complete:
            seen.missing = None
        elif answered:
            seen.missing = snapshot.taken if seen.missing is None else seen.missing
            answered = snapshot.taken - seen.missing >= SACCT_PATIENCE
        state = row.state if row is not None else None
        if not answered or state in LIVE_STATES:
            seen.settled = None
            return decide(Evidence(result=None, answered=answered, state=state, settled=0.0, patience=self.patience))
        now = self._clock()
        if seen.settled is None or seen.settled[0] != state:
            seen.settled = (state, now)
        attempts = record.attempts()
        last = attempts[-1] if attempts else {}
        beat = float(last.get("beat", 0.0))
        if beat != seen.beat[0]:
            seen.beat = (beat, now)
        return decide(
            Evidence(
                result=None,
                answered=True,
                state=state,
                settled=now - seen.settled[1],
                patience=self.patience,
                beating=last.get("outcome") == "running" and now - seen.beat[1] < HEARTBEAT_PATIENCE,
                checkpointable=record.checkpointable,
                yielded=last.get("outcome") in ("yielded", "stopped") and record.checkpointable,
            )
        )


class Finished:
    """Jobs whose result is in, until SLURM agrees that they are over.

    A controller that crashed comes back with an older state: it may list an ended job as running, or start it again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    def add(self, record: Record) -> None:
        """Remember a job whose result is in."""
        if record.job_id is not None:
            self._since[(record.job_id, record.name)] = self._clock()

    def ghosts(self, snapshot: Snapshot, seconds: float) -> list[tuple[str, str]]:
        """Return (and forget) the ids and names of jobs that SLURM lists as live `seconds` after their end."""
        found = []
        for (job_id, name), since in list(self._since.items()):
            if snapshot.taken < since:
                continue
            row = snapshot.find(job_id, name)
            if row is None or row.state not in LIVE_STATES:
                if snapshot.complete:
                    del self._since[(job_id, name)]
            elif row.state == "PENDING" or snapshot.taken - since >= seconds:
                found.append((job_id, name))
                del self._since[(job_id, name)]
        return found

    def __len__(self) -> int:
        return len(self._since)
