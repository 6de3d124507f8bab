"""What has become of a job? Decided from its result file and SLURM's word alone; no input or output here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIVE_STATES = frozenset(
    {
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"),
        *("SUSPENDED", "STOPPED", "RESV_DEL_HOLD"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"),
    }
)
# The cluster took the node away; the job itself did nothing wrong.
INTERRUPTED_STATES = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})


class Verdict(enum.Enum):
    """What to do about a job."""

    LIVE = "live"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # submit it again: it was interrupted and can go on


@dataclass(frozen=True)
class Evidence:
    """All that is known about one job.

    Attributes:
        result: the job's own result file, already checked to belong to this submission.
        answered: whether SLURM has answered since the submission.
        state: SLURM's state word, None when it does not know the job.
        settled: seconds for which that state (final or unknown) has been the answer.
        patience: seconds a result may be late on a slow file system.
        beating: whether the job's heartbeat has changed during the last minutes.
        checkpointable: whether the job resumes where it stopped.
        yielded: whether its last attempt ended by stopping early, as asked.
    """

    result: Mapping[str, Any] | None
    answered: bool
    state: str | None
    settled: float
    patience: float
    beating: bool = False
    checkpointable: bool = False
    yielded: bool = False


@dataclass(frozen=True)
class Decision:
    """A verdict and, unless the job is live or done, the reason in one sentence."""

    verdict: Verdict
    reason: str = ""


_FAILURES = {
    "TIMEOUT": "it reached its time limit; give the rule a longer `runtime` (minutes)",
    "OUT_OF_MEMORY": "it ran out of memory; give the rule more `mem_mb`",
    "CANCELLED": "somebody cancelled it (scancel)",
    "COMPLETED": "it ended but its result never arrived; is the folder shared, and `latency-wait` long enough?",
}


def normalise(state: str) -> str:
    """Return the bare state word: `CANCELLED by 1000` and `CANCELLED+` are CANCELLED."""
    words = state.split()
    return words[0].rstrip("+") if words else ""


def decide(evidence: Evidence) -> Decision:
    """Decide what has become of a job.

    A result file always wins: it is written last, by the job itself. Without one SLURM's word counts, and a final
    state only after `patience`, since the file may be on its way and SLURM may be about to requeue the job.
    """
    if evidence.result is not None:
        if evidence.result.get("outcome") == "finished":
            return Decision(Verdict.DONE)
        return Decision(Verdict.FAILED, str(evidence.result.get("reason", "its command failed")))
    state = evidence.state
    if not evidence.answered or state in LIVE_STATES or evidence.settled < evidence.patience:
        return Decision(Verdict.LIVE)
    if state is None:
        if evidence.beating:
            return Decision(Verdict.LIVE)
        if evidence.yielded:
            return Decision(Verdict.LOST, "it stopped with a checkpoint and SLURM no longer knows it")
        return Decision(Verdict.FAILED, "SLURM no longer knows it and it left no result")
    if state in INTERRUPTED_STATES:
        return Decision(Verdict.LOST, f"SLURM ended it: {state}")
    if state == "TIMEOUT" and evidence.checkpointable:
        return Decision(Verdict.LOST, "it reached its time limit and resumes from its checkpoint")
    if state != "CANCELLED" and evidence.yielded:
        return Decision(Verdict.LOST, f"it stopped with a checkpoint but was not requeued ({state})")
    return Decision(
        Verdict.FAILED, _FAILURES.get(state, f"it ended as {state} without a result (killed, or never started)")
    )
