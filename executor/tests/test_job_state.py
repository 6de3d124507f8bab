"""What is decided from every combination of result file and SLURM state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit.job_state import (
    INTERRUPTED_STATES,
    Evidence,
    Verdict,
    decide,
    normalise,
    signal_of,
)


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {"result": None, "answered": True, "state": None, "unchanged_for": 99.0, "patience": 5.0}
    return decide(Evidence(**(values | changes))).verdict


@pytest.mark.parametrize("state", [None, "RUNNING", "CANCELLED", "NODE_FAIL", "TIMEOUT"])
def test_a_result_beats_whatever_slurm_reports(state: str | None) -> None:
    assert verdict(result={"outcome": "finished"}, state=state) is Verdict.FINISHED
    assert verdict(result={"outcome": "failed", "reason": "r"}, state=state) is Verdict.FAILED


@pytest.mark.parametrize(
    "state",
    ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT",
     "POWER_UP_NODE", "EXPEDITING", "OF_A_LATER_VERSION"],
)  # fmt: skip
def test_live_states(state: str) -> None:
    assert verdict(state=state) is Verdict.LIVE


def test_nothing_is_concluded_while_the_controller_does_not_answer() -> None:
    assert verdict(answered=False) is Verdict.LIVE


@pytest.mark.parametrize("state", [None, "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL"])
def test_a_result_may_be_late(state: str | None) -> None:
    assert verdict(state=state, unchanged_for=4.9) is Verdict.LIVE
    assert verdict(state=state, unchanged_for=5.0) is not Verdict.LIVE


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL"])
def test_interrupted_jobs_are_resubmitted(state: str) -> None:
    assert verdict(state=state) is Verdict.RESUBMIT


def test_time_limit() -> None:
    assert verdict(state="TIMEOUT") is Verdict.FAILED
    assert verdict(state="TIMEOUT", checkpointable=True) is Verdict.RESUBMIT


def test_a_checkpointed_job_that_was_not_requeued_is_resubmitted_unless_cancelled() -> None:
    assert verdict(state="FAILED", stopped_early=True) is Verdict.RESUBMIT
    assert verdict(state=None, stopped_early=True) is Verdict.RESUBMIT
    assert verdict(state="CANCELLED", stopped_early=True) is Verdict.FAILED


def test_a_job_unknown_to_slurm_with_a_heartbeat_is_live() -> None:
    assert verdict(heartbeat=True) is Verdict.LIVE
    assert verdict(heartbeat=False) is Verdict.FAILED


@pytest.mark.parametrize(
    ("state", "words"), [("OUT_OF_MEMORY", "mem_mb"), ("TIMEOUT", "runtime"), ("COMPLETED", "never arrived")]
)
def test_failures_say_what_to_do(state: str, words: str) -> None:
    evidence = Evidence(result=None, answered=True, state=state, unchanged_for=9.0, patience=5.0)
    assert words in decide(evidence).reason


def test_a_signal_is_named_and_slurms_word_for_memory_is_added_once() -> None:
    killed = Evidence(result=None, answered=True, state="FAILED", unchanged_for=9.0, patience=5.0, status=137)
    assert "killed by signal 9 (SIGKILL)" in decide(killed).reason
    failed = {"outcome": "failed", "reason": "its command ended with status 1"}
    evidence = Evidence(result=failed, answered=True, state="OUT_OF_MEMORY", unchanged_for=0.0, patience=5.0)
    assert decide(evidence).reason == "its command ended with status 1; SLURM: out of memory"
    failed["reason"] = "x: out of memory"
    assert decide(evidence).reason == "x: out of memory"


@pytest.mark.parametrize(("status", "signum"), [(0, 0), (1, 0), (128, 0), (137, 9), (-15, 15), (255, 0)])
def test_the_signal_in_a_status(status: int, signum: int) -> None:
    assert signal_of(status) == signum


@pytest.mark.parametrize(
    ("text", "word"),
    [("CANCELLED by 1000", "CANCELLED"), ("CANCELLED+", "CANCELLED"), ("RUNNING", "RUNNING"), ("", "")],
)
def test_normalise(text: str, word: str) -> None:
    assert normalise(text) == word


def test_the_readme_shows_every_verdict() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    diagram = text.partition("```mermaid")[2].partition("```")[0]
    for member in Verdict:
        assert f"decide {member.name}" in diagram
        assert f"| {member.name}" in text
    for state in INTERRUPTED_STATES:
        assert state in text
