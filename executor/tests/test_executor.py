"""The executor against a simulated cluster: no job runs twice, one job's error affects no other, no job is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fake_cluster import Cluster, FakeJob, Run, holder
from snakemake_executor_plugin_submitit import job_submission, ledger
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.job_wrapper import progress_token


def states(run: Run) -> list[str]:
    return [line["state"] for line in ledger.read(run.executor.root / "ledger")]


LOST_ANSWER = job_submission.UnreachableError("sbatch: error: Socket timed out")


def test_a_job_from_submission_to_the_ledger(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a", cpus_per_task=3, nodes=2)
    run.executor.run_job(job)
    run.check()
    record = run.record(job)
    assert (record.job_id, job.registered, record.cpus) == ("100", ["100"], 6)
    assert cluster.start("100")
    cluster.finish(record)
    run.check()
    assert run.succeeded == [job]
    run.executor.handle_job_success(job)
    assert states(run) == ["finished"]
    assert not record.path.exists()
    assert not list(run.executor.records.all())
    run.executor.shutdown()


def test_progress_is_found_below_a_directory_with_brackets(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path("run [1]").absolute()
    directory.mkdir()
    monkeypatch.chdir(directory)
    run, job = Run(cluster), FakeJob("a", slurm_progress="work/*.json")
    task = job_submission.task_of(job, job_submission.new_record(job, run.executor.records), "true", 3)
    before = progress_token(task.progress)
    write_json(directory / "work" / "progress.json", {"step": 1})
    assert progress_token(task.progress) != before


# --- errors of one job --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resources", [{"gpu": "two"}, {"nodes": "x"}, {"gpu": 3, "nodes": 2}, {"slurm_extra": "x"}])
def test_an_invalid_resource_fails_that_job_only(cluster: Cluster, resources: dict[str, Any]) -> None:
    run, good, bad = Run(cluster), FakeJob("a"), FakeJob("b", **resources)
    run.executor.run_job(good)
    run.executor.run_job(bad)
    assert run.failed == [bad]
    assert [record.outputs for record in run.executor.live.values()] == [["a"]]
    assert not list(Path(".snakemake/submitit/jobs/train/all").glob("*/claim.json"))


def test_any_other_exception_fails_that_job_only(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    cluster.answers = [OSError("no space left on device")]
    run.executor.run_job(job)
    assert run.failed == [job]
    assert not run.executor.live
    assert not list(run.executor.records.all())


def test_a_controller_that_stays_down_fails_that_job_and_it_never_starts(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    cluster.answers, cluster.down = [LOST_ANSWER], True
    run.executor.run_job(job)
    assert run.failed == [job]
    assert not cluster.start("100")  # it had arrived all the same


def test_a_full_disk_at_the_end_of_a_job_does_not_stop_the_others(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    cluster.finish(run.record(job))
    run.check()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(ledger, "append", full)
    run.executor.handle_job_success(job)
    assert "no space left" in run.text


@pytest.mark.parametrize("state", ["FAILED", "NODE_FAIL"])
def test_a_full_disk_delays_the_end_of_a_failed_job_and_stops_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    run, failing, other = Run(cluster), FakeJob("a"), FakeJob("b")
    for job in (failing, other):
        run.executor.run_job(job)
    cluster.finish(run.record(other))
    cluster.jobs["100"][0] = state

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "append", full)
        for _ in range(3):
            run.check()
    assert (run.succeeded, run.failed, list(cluster.jobs)) == ([other], [], ["100", "101"])
    assert run.text.count("no space left") == 1
    run.check()
    assert run.failed == ([failing] if state == "FAILED" else [])
    assert list(cluster.jobs) == ["100", "101"] + (["102"] if state == "NODE_FAIL" else [])


def test_shutdown_keeps_the_folder_that_live_jobs_need(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    folder = Path(run.executor.tmpdir)
    run.executor.run_job(job)
    run.executor.shutdown()
    assert folder.exists()
    run.executor.cancel_jobs([])
    run.executor.shutdown()
    assert not folder.exists()


# --- lost answers -------------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_by_name(cluster: Cluster) -> None:
    run, job = Run(cluster, controller_patience=900), FakeJob("a")
    cluster.answers = [LOST_ANSWER]
    run.executor.run_job(job)
    assert list(cluster.jobs) == [run.record(job).job_id] == ["100"]


def test_a_job_that_started_before_it_could_be_blocked_is_monitored(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = Run(cluster, controller_patience=0), FakeJob("a")

    def submit(*arguments: Any) -> list[str]:
        try:
            return cluster.submit(*arguments)
        finally:
            cluster.start("100")

    monkeypatch.setattr(job_submission, "submit", submit)
    cluster.answers = [LOST_ANSWER]
    run.executor.run_job(job)
    assert not run.failed
    assert run.record(job).job_id == "100"


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_the_copy_that_started_is_monitored(cluster: Cluster, end: str) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    record = run.record(job)
    first = cluster.add(record.name, record.path)  # the one whose answer was lost
    assert cluster.start(first)
    assert not cluster.start(str(record.job_id))
    run.check()
    assert run.record(job).job_id == first
    assert not run.failed
    if end == "finished":
        cluster.finish(record)
        run.check()
        assert run.succeeded == [job]
    else:
        cluster.jobs[first][0] = "FAILED"
        run.check()
        assert run.failed == [job]


# --- discarded jobs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["NODE_FAIL", "FAILED"])
def test_a_discarded_job_cannot_start_again(cluster: Cluster, state: str) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    old = run.record(job)
    assert cluster.start("100")
    write_json(old.path / "attempt-001.json", {"start": 0.0, "beat": 0.0, "outcome": "running", "job_id": "100"})
    cluster.jobs["100"][0] = state
    run.check()
    assert "100" in cluster.cancelled
    assert not cluster.start("100")  # scontrol requeue
    if state == "NODE_FAIL":
        assert run.record(job).job_id == "101"
        assert cluster.start("101")
        assert states(run) == ["requeued"]
    else:
        assert run.failed == [job]


def test_a_cancelled_job_cannot_start_again(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    assert cluster.start("100")
    run.executor.cancel_jobs([])
    assert cluster.jobs["100"][0] == "CANCELLED"
    assert not cluster.start("100")
    assert states(run) == ["cancelled"]


def test_ctrl_c_cancels_both_copies(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    record = run.record(job)
    assert cluster.start(cluster.add(record.name, record.path))
    run.executor.cancel_jobs([])
    assert {state for state, _ in cluster.jobs.values()} == {"CANCELLED"}


def test_a_full_disk_does_not_stop_ctrl_c_from_cancelling(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(cluster)
    for name in "ab":
        run.executor.run_job(FakeJob(name))

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(run.executor.records, "save", full)
    run.executor.cancel_jobs([])
    assert cluster.cancelled == ["100", "101"]


def test_jobs_lost_before_they_start_are_not_submitted_forever(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    for _ in range(10):
        for entry in cluster.jobs.values():
            entry[0] = "BOOT_FAIL"
        run.check()
    assert len(cluster.jobs) == 1 + run.executor.workflow.executor_settings.requeue_limit
    assert run.failed == [job]
    (said,) = job.errors
    assert "lost 4 times in a row before it started" in said


def test_a_failing_resubmission_fails_that_job_only(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    cluster.jobs["100"][0] = "NODE_FAIL"
    job.resources["nodes"] = "x"
    run.check()
    assert run.failed == [job]


# --- stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_during_a_resubmission_leaves_nothing_in_the_queue(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    run, job = Run(cluster, controller_patience=900), FakeJob("a")
    run.executor.run_job(job)
    cluster.jobs["100"][0] = "NODE_FAIL"

    def submit(*arguments: Any) -> list[str]:
        run.executor.cancel_jobs([])
        cluster.answers = [LOST_ANSWER] if lost else []
        return cluster.submit(*arguments)

    monkeypatch.setattr(job_submission, "submit", submit)
    run.check()
    assert cluster.jobs["101"][0] == "CANCELLED"
    assert not cluster.start("101")
    assert not run.failed
    record = run.record(job)
    assert record.cancelled
    assert not run.executor.live


def test_ctrl_c_ends_the_wait_for_a_controller(cluster: Cluster) -> None:
    run, job = Run(cluster, controller_patience=900), FakeJob("a")
    cluster.answers, cluster.down = [LOST_ANSWER], True
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            run.executor.cancel_jobs([])
        assert len(waits) < 5
        return run.executor.stopped.is_set()

    run.executor.stopped.wait = wait  # type: ignore[method-assign]
    run.executor.run_job(job)
    assert len(waits) == 3


def test_a_result_that_comes_with_ctrl_c_counts(cluster: Cluster) -> None:
    job = FakeJob("a")
    run = Run(cluster)
    run.executor.run_job(job)
    assert cluster.start("100")
    cluster.finish(run.record(job))
    run.executor.cancel_jobs([])
    assert states(run) == []
    again = Run(cluster, [job])
    assert again.remembered == [job]
    assert states(again) == ["finished"]


def test_runs_are_named_in_their_order_whatever_the_time_zone(cluster: Cluster) -> None:
    with pytest.MonkeyPatch.context() as patch:
        names = []
        for zone in ("UTC-14", "UTC", "UTC+12"):  # a day apart by their clocks
            patch.setenv("TZ", zone)
            time.tzset()
            names.append(Run(cluster).executor.run_id)
    time.tzset()
    assert names == sorted(names)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_result_that_comes_just_after_ctrl_c_counts_too(cluster: Cluster, wanted: bool) -> None:
    job = FakeJob("a")
    run = Run(cluster)
    run.executor.run_job(job)
    assert cluster.start("100")
    run.executor.cancel_jobs([])
    cluster.finish(run.record(job))
    again = Run(cluster, [] if wanted else [job])
    if wanted:
        again.executor.run_job(job)
        again.check()
        assert again.succeeded == [job]
        again.executor.handle_job_success(job)
    else:
        assert again.remembered == [job]
    assert list(cluster.jobs) == ["100"]
    lines = ledger.read(again.executor.root / "ledger")
    assert ledger.summarise(lines)[("train",)]["finished"] == 1
    assert ledger.summarise(lines)[("train",)]["cancelled"] == 0


def test_a_finished_job_is_kept_on_record_until_snakemake_confirms_it(cluster: Cluster) -> None:
    job = FakeJob("a")
    run = Run(cluster)
    run.executor.run_job(job)
    cluster.finish(run.record(job))
    run.check()
    assert run.succeeded == [job]  # and here Snakemake is killed
    assert holder(run.record(job)) == {}
    again = Run(cluster, [job])
    assert again.remembered == [job]
    assert not list(again.executor.records.all())


def test_a_job_whose_outputs_are_missing_keeps_its_logs(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    record = run.record(job)
    cluster.finish(record)
    run.check()
    run.executor.handle_job_error(job)
    assert states(run) == ["failed"]
    assert record.path.exists()
