"""What is decided from every combination of result file and SLURM's word."""

from __future__ import annotations

from typing import Any

import pytest

from snakemake_executor_plugin_submitit.decide import LIVE_STATES, Evidence, Verdict, decide, normalise


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {"result": None, "answered": True, "state": None, "settled": 99.0, "patience": 5.0}
    return decide(Evidence(**(values | changes))).verdict


@pytest.mark.parametrize("state", [None, "RUNNING", "CANCELLED", "NODE_FAIL", "TIMEOUT"])
def test_a_result_beats_whatever_slurm_says(state: str | None) -> None:
    assert verdict(result={"outcome": "finished"}, state=state) is Verdict.DONE
    assert verdict(result={"outcome": "failed", "reason": "r"}, state=state) is Verdict.FAILED


@pytest.mark.parametrize("state", sorted(LIVE_STATES))
def test_live_states(state: str) -> None:
    assert verdict(state=state) is Verdict.LIVE


def test_silence_of_the_controller_means_nothing() -> None:
    assert verdict(answered=False) is Verdict.LIVE


@pytest.mark.parametrize("state", [None, "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL"])
def test_a_result_may_be_late(state: str | None) -> None:
    assert verdict(state=state, settled=4.9) is Verdict.LIVE
    assert verdict(state=state, settled=5.0) is not Verdict.LIVE


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL"])
def test_interrupted_jobs_go_on(state: str) -> None:
    assert verdict(state=state) is Verdict.LOST


def test_time_limit() -> None:
    assert verdict(state="TIMEOUT") is Verdict.FAILED
    assert verdict(state="TIMEOUT", checkpointable=True) is Verdict.LOST


def test_a_checkpointed_job_that_was_not_requeued_goes_on_unless_cancelled() -> None:
    assert verdict(state="FAILED", yielded=True) is Verdict.LOST
    assert verdict(state=None, yielded=True) is Verdict.LOST
    assert verdict(state="CANCELLED", yielded=True) is Verdict.FAILED


def test_a_forgotten_job_whose_heart_beats_is_alive() -> None:
    assert verdict(beating=True) is Verdict.LIVE
    assert verdict(beating=False) is Verdict.FAILED


@pytest.mark.parametrize(
    ("state", "words"), [("OUT_OF_MEMORY", "mem_mb"), ("TIMEOUT", "runtime"), ("COMPLETED", "never arrived")]
)
def test_failures_say_what_to_do(state: str, words: str) -> None:
    evidence = Evidence(result=None, answered=True, state=state, settled=9.0, patience=5.0)
    assert words in decide(evidence).reason


@pytest.mark.parametrize(
    ("text", "word"),
    [("CANCELLED by 1000", "CANCELLED"), ("CANCELLED+", "CANCELLED"), ("RUNNING", "RUNNING"), ("", "")],
)
def test_normalise(text: str, word: str) -> None:
    assert normalise(text) == word
