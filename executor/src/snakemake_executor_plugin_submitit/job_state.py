"""Decides what has become of a job, from its result file and SLURM's state alone; pure, without any input or output."""

from __future__ import annotations

import enum
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The cluster withdrew the node; the job itself did not fail.
INTERRUPTED_STATES = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})
# The others are those of a job that is waiting, running or about to run again; new versions of SLURM add to those.
FINAL_STATES = INTERRUPTED_STATES | {
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "REVOKED"),
}


class Verdict(enum.Enum):
    """What to do about a job."""

    LIVE = "live"  # keep waiting
    FINISHED = "finished"
    FAILED = "failed"
    RESUBMIT = "resubmit"  # it was interrupted through no fault of its own, or left a checkpoint


@dataclass(frozen=True)
class Evidence:
    """Everything that is known about one job.

    Attributes:
        result: the job's own result file, already checked to belong to this submission.
        answered: whether SLURM has answered since the submission.
        state: SLURM's state of the job, None if SLURM does not know the job.
        unchanged_for: seconds for which SLURM has reported this final state, or has not known the job.
        patience: seconds by which a result may be late on a slow file system.
        heartbeat: whether the job has updated its heartbeat during the last minutes.
        checkpointable: whether the job can resume from a checkpoint.
        stopped_early: whether its last start stopped with a checkpoint because it was warned.
        status: exit status of the batch script's command, 0 if it is not known.
    """

    result: Mapping[str, Any] | None
    answered: bool
    state: str | None
    unchanged_for: float
    patience: float
    heartbeat: bool = False
    checkpointable: bool = False
    stopped_early: bool = False
    status: int = 0


@dataclass(frozen=True)
class Decision:
    """A verdict and, unless the job is live or finished, the reason in one sentence."""

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


def is_live(state: str | None) -> bool:
    """Return whether a job that SLURM lists in this state has not ended; None: SLURM does not list it."""
    return state is not None and state not in FINAL_STATES


def signal_of(status: int) -> int:
    """Return the signal in an exit status, negative as of Python or above 128 as of a shell; 0: none."""
    return -status if status < 0 else status - 128 if 128 < status <= 128 + 64 else 0


def signal_words(status: int) -> str:
    """Return the signal in an exit status in words, such as `signal 9 (SIGKILL)`; "": none."""
    number = signal_of(status)
    try:
        return f"signal {number} ({signal.Signals(number).name})" if number else ""
    except ValueError:
        return f"signal {number}"


def decide(evidence: Evidence) -> Decision:
    """Decide what has become of a job.

    A result file always wins: the job itself writes it, as its last act. Without one SLURM's state decides, but a final
    state counts only after `patience`: the file may be delayed, or SLURM may be about to requeue the job.
    """
    if evidence.result is not None:
        if evidence.result.get("outcome") == "finished":
            return Decision(Verdict.FINISHED)
        reason = str(evidence.result.get("reason", "its command failed"))
        oom = evidence.state == "OUT_OF_MEMORY" and "out of memory" not in reason
        return Decision(Verdict.FAILED, f"{reason}; SLURM: out of memory" if oom else reason)
    state = evidence.state
    if not evidence.answered or is_live(state) or evidence.unchanged_for < evidence.patience:
        return Decision(Verdict.LIVE)
    if state is None:
        if evidence.heartbeat:
            return Decision(Verdict.LIVE)
        if evidence.stopped_early:
            return Decision(Verdict.RESUBMIT, "it stopped with a checkpoint and SLURM no longer knows it")
        return Decision(Verdict.FAILED, "SLURM no longer knows it and it left no result")
    if state in INTERRUPTED_STATES:
        return Decision(Verdict.RESUBMIT, f"SLURM ended it: {state}")
    if state == "TIMEOUT" and evidence.checkpointable:
        return Decision(Verdict.RESUBMIT, "it reached its time limit and resumes from its checkpoint")
    if state != "CANCELLED" and evidence.stopped_early:
        return Decision(Verdict.RESUBMIT, f"it stopped with a checkpoint but was not requeued ({state})")
    words = signal_words(evidence.status)
    how = f"its process on the node was killed by {words}" if words else "killed, or never started"
    return Decision(Verdict.FAILED, _FAILURES.get(state, f"it ended as {state} without a result ({how})"))
