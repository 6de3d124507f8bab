"""Submissions of a previous run are reattached, cancelled or archived, and never run beside their successor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit import job_submission, ledger, reattach
from snakemake_executor_plugin_submitit.files import claim
from snakemake_executor_plugin_submitit.job_status_query import Snapshot
from snakemake_executor_plugin_submitit.records import CLAIM


def killed(cluster: Cluster, job: FakeJob, start: bool = True) -> Run:
    """A run that has submitted a job and was killed."""
    run = Run(cluster)
    run.executor.run_job(job)
    if start:
        assert cluster.start("100")
    return run


def test_a_live_job_is_reattached(cluster: Cluster) -> None:
    job = FakeJob("a")
    killed(cluster, job)
    run = Run(cluster)
    run.executor.run_job(job)
    assert list(cluster.jobs) == ["100"]
    assert job.registered == ["100", "100"]


def test_changed_work_is_cancelled_for_good(cluster: Cluster) -> None:
    job = FakeJob("a")
    killed(cluster, job)
    run = Run(cluster)
    job.shellcmd = "false"
    run.executor.run_job(job)
    assert cluster.jobs["100"][0] == "CANCELLED"
    assert not cluster.start("100")
    assert cluster.start("101")


def group(*names: str) -> FakeJob:
    return FakeJob(group=[FakeJob(name, rule="probe") for name in names])


@pytest.mark.parametrize(
    ("old", "new"), [(group("a", "b", "c"), group("b", "c")), (FakeJob("a"), FakeJob("a", "a.log"))]
)
def test_other_outputs_do_not_hide_a_live_submission(cluster: Cluster, old: FakeJob, new: FakeJob) -> None:
    killed(cluster, old)
    run = Run(cluster)
    run.executor.run_job(new)
    assert [state for state, _ in cluster.jobs.values()] == ["CANCELLED", "PENDING"]
    assert not cluster.start("100")
    assert [record.job_id for record in run.executor.records.all()] == ["101"]


def test_a_smaller_group_archives_the_larger_one_that_has_ended(cluster: Cluster) -> None:
    old = group("a", "b", "c")
    record = killed(cluster, old).record(old)
    cluster.finish(record, "failed")
    run = Run(cluster)
    run.executor.run_job(group("b", "c"))
    assert [line["state"] for line in ledger.read(run.executor.root / "ledger")] == ["failed"]
    assert cluster.cancelled == []


def test_jobs_of_this_run_and_of_other_directories_are_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Two directories may share the plugin's folder, and their jobs make files of the same relative names.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".snakemake").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "one")
    killed(cluster, group("a", "b"))
    monkeypatch.chdir(tmp_path / "two")
    run = Run(cluster)
    run.executor.run_job(FakeJob("b"))
    run.executor.run_job(FakeJob("c"))
    assert cluster.cancelled == []
    assert len(cluster.jobs) == 3


def test_a_dead_node_affects_one_job_only(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reattach, "CANCEL_TIMEOUT", -1.0)
    job, other = FakeJob("a"), FakeJob("b")
    killed(cluster, job)
    cluster.dead_node = True
    job.shellcmd = "false"
    run = Run(cluster)
    run.executor.run_job(job)
    run.executor.run_job(other)
    assert run.failed == [job]
    assert other.registered == ["101"]
    assert not cluster.start("100")  # the node comes back, and SLURM requeues the job


def test_both_copies_of_a_submission_are_cancelled(cluster: Cluster) -> None:
    job = FakeJob("a")
    record = killed(cluster, job, start=False).record(job)
    other = cluster.add(record.name, record.path)
    assert cluster.start(other)
    job.shellcmd = "false"
    Run(cluster).executor.run_job(job)
    assert [cluster.jobs[job_id][0] for job_id in ("100", other)] == ["CANCELLED", "CANCELLED"]


def test_an_interrupted_submission_is_found_by_name_or_never_starts(cluster: Cluster) -> None:
    found, lost = FakeJob("a"), FakeJob("b")
    run = Run(cluster)
    for job in (found, lost):  # Snakemake was killed before sbatch's answer
        record = job_submission.new_record(job, run.executor.records)
        run.executor.records.save(record)
        if job is found:
            cluster.add(record.name, record.path)
    again = Run(cluster)
    again.executor.run_job(found)
    assert again.record(found).job_id == "100"
    again.executor.run_job(lost)
    assert claim(record.path / CLAIM, {"by": "job", "job_id": "9"}) == {"by": "snakemake"}
    assert again.record(lost).job_id == "101"


def test_finished_work_whose_outputs_are_missing_is_run_again(cluster: Cluster) -> None:
    job = FakeJob("a")
    cluster.finish(killed(cluster, job).record(job))
    Path("a").unlink()
    Run(cluster).executor.run_job(job)
    assert list(cluster.jobs) == ["100", "101"]


def test_an_answer_about_other_jobs_says_nothing_of_this_one(cluster: Cluster) -> None:
    job = FakeJob("a")
    killed(cluster, job)
    run = Run(cluster, controller_patience=900)
    query = run.executor.status_query
    ask, answers = query.snapshot, [Snapshot(taken=float("inf"), asked=frozenset({"5"}), complete=True)]

    def snapshot(job_ids: Sequence[str], fresh: bool = False) -> Snapshot:
        return answers.pop() if answers else ask(job_ids, fresh)  # first what another thread has just been told

    query.snapshot = snapshot  # type: ignore[method-assign]
    job.shellcmd = "false"
    run.executor.run_job(job)
    assert cluster.jobs["100"][0] == "CANCELLED"


_SIGNATURE = """
from types import SimpleNamespace
from fake_cluster import FakeJob
from snakemake_executor_plugin_submitit.records import signature_of
job = FakeJob("a")
job.params = SimpleNamespace(_allitems=lambda: [("names", set("abcdefgh")), ("n", 3)])
print(signature_of([job]))
"""


def test_another_process_finds_the_work_unchanged() -> None:
    signatures = {
        subprocess.run(
            [sys.executable, "-c", _SIGNATURE],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(signatures) == 1
