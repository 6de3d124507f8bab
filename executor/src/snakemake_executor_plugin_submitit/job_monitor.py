"""Gathers the evidence on submitted jobs: result files every second, SLURM's state at its interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from snakemake_executor_plugin_submitit.job_state import Decision, Evidence, decide, is_live
from snakemake_executor_plugin_submitit.job_status_query import Snapshot
from snakemake_executor_plugin_submitit.records import Record

HEARTBEAT_TIMEOUT = 120.0  # seconds; the job writes one every 15
SACCT_TIMEOUT = 900.0  # seconds to wait for a failing sacct to recover; then squeue alone decides
# Why a job is pending on a healthy cluster.
ORDINARY_REASONS = frozenset({"", "None", "Priority", "Resources", "BeginTime", "Dependency", "JobArrayTaskLimit"})


@dataclass
class _History:
    """What has been observed of one submission; times on the monotonic clock.

    Attributes:
        since: when monitoring began.
        unlisted_since: when squeue stopped listing the job while sacct was failing.
        final: the final state (None: unknown to SLURM) and when it was first observed.
        heartbeat: the job's last heartbeat (its own clock) and when its change was observed.
        reasons: SLURM's reasons for the job's wait that have been returned by `unusual_wait`.
    """

    since: float
    unlisted_since: float | None = None
    final: tuple[str | None, float] | None = None
    heartbeat: tuple[float, float] = (0.0, float("-inf"))
    reasons: set[str] = field(default_factory=lambda: set(ORDINARY_REASONS))


class JobMonitor:
    """Remembers, for each submission, since when SLURM has reported the same final state."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience
        self._clock = clock
        self._histories: dict[str, _History] = {}

    def start(self, record: Record) -> None:
        """Start to monitor a submission; snapshots taken before now say nothing about it."""
        self._histories[record.uid] = _History(since=self._clock())

    def stop(self, record: Record) -> None:
        """Stop monitoring a submission."""
        self._histories.pop(record.uid, None)

    def check(self, record: Record, snapshot: Snapshot) -> Decision:
        """Decide what has become of a submission."""
        result, status = record.result(), snapshot.find(record.job_id, record.name)
        state = status.state if status is not None else None
        if result is not None:
            return decide(Evidence(result, answered=True, state=state, unchanged_for=0.0, patience=self.patience))
        history = self._histories.setdefault(record.uid, _History(since=self._clock()))
        answered = snapshot.taken >= history.since and record.job_id in snapshot.asked
        if status is not None or snapshot.complete:
            history.unlisted_since = None
        elif answered:
            if history.unlisted_since is None:
                history.unlisted_since = snapshot.taken
            answered = snapshot.taken - history.unlisted_since >= SACCT_TIMEOUT
        if not answered or is_live(state):
            history.final = None
            return decide(
                Evidence(result=None, answered=answered, state=state, unchanged_for=0.0, patience=self.patience)
            )
        now = self._clock()
        if history.final is None or history.final[0] != state:
            history.final = (state, now)
        attempts = record.attempts()
        last = attempts[-1] if attempts else {}
        heartbeat = float(last.get("beat", 0.0))
        if heartbeat != history.heartbeat[0]:
            history.heartbeat = (heartbeat, now)
        return decide(
            Evidence(
                result=None,
                answered=True,
                state=state,
                unchanged_for=now - history.final[1],
                patience=self.patience,
                heartbeat=last.get("outcome") == "running" and now - history.heartbeat[1] < HEARTBEAT_TIMEOUT,
                checkpointable=record.checkpointable,
                status=record.exit_status(),
                stopped_early=last.get("outcome") in ("stopped", "requeue_requested") and record.checkpointable,
            )
        )

    def unusual_wait(self, record: Record, snapshot: Snapshot) -> str:
        """Return, once, a reason for which a job is pending that may never go away; otherwise ""."""
        history = self._histories.get(record.uid)
        status = snapshot.find(record.job_id, record.name)
        if history is None or status is None or status.state != "PENDING" or status.reason in history.reasons:
            return ""
        history.reasons.add(status.reason)
        return status.reason
