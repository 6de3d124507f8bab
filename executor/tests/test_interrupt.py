"""Ctrl-C with `on-interrupt: keep`: jobs go on, and the next run takes them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from fake_cluster import Cluster, FakeJob, Run, holder
from snakemake_executor_plugin_submitit import job_submission, ledger


def test_kept_jobs_go_on_and_are_reattached(cluster: Cluster) -> None:
    run, running, pending = Run(cluster, on_interrupt="keep"), FakeJob("a"), FakeJob("b")
    folder = Path(run.executor.tmpdir)
    for job in (running, pending):
        run.executor.run_job(job)
    assert cluster.start("100")
    run.executor.cancel_jobs([])
    run.executor.shutdown()
    assert cluster.cancelled == []
    assert "2 jobs continue without Snakemake" in run.text
    assert folder.exists()  # the pending job needs it
    assert cluster.start("101")
    again = Run(cluster)
    for job in (running, pending):
        again.executor.run_job(job)
    assert (running.registered[-1], pending.registered[-1]) == ("100", "101")
    cluster.finish(again.record(running))
    again.check()
    assert again.succeeded == [running]
    again.executor.handle_job_success(running)
    assert [line["state"] for line in ledger.read(again.executor.root / "ledger")] == ["finished"]


def test_a_job_being_submitted_is_kept_with_its_id(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run, job = Run(cluster, on_interrupt="keep"), FakeJob("a")

    def submit(*arguments: Any) -> list[str]:
        run.executor.cancel_jobs([])
        return cluster.submit(*arguments)

    monkeypatch.setattr(job_submission, "submit", submit)
    run.executor.run_job(job)
    record = run.record(job)
    assert (record.job_id, record.cancelled, cluster.cancelled) == ("100", False, [])
    assert holder(record) == {}
    monkeypatch.setattr(job_submission, "submit", cluster.submit)
    Run(cluster).executor.run_job(job)
    assert list(cluster.jobs) == ["100"]


def test_an_interrupted_job_is_left_to_the_next_run(cluster: Cluster) -> None:
    run, job = Run(cluster, on_interrupt="keep"), FakeJob("a")
    run.executor.run_job(job)
    run.executor.cancel_jobs([])
    cluster.jobs["100"][0] = "NODE_FAIL"
    run.check()
    assert list(cluster.jobs) == ["100"]
    assert not run.failed


@pytest.mark.parametrize("name", ["requeue_limit", "signal_delay", "controller_patience", "array_size"])
def test_a_negative_number_is_refused(cluster: Cluster, name: str) -> None:
    with pytest.raises(WorkflowError, match=f"submitit-{name.replace('_', '-')} must be . or more, not -5"):
        Run(cluster, **{name: -5})


def test_any_other_word_is_refused(cluster: Cluster) -> None:
    with pytest.raises(WorkflowError, match="must be cancel or keep, not 'maybe'"):
        Run(cluster, on_interrupt="maybe")
