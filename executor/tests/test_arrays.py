"""Ready jobs of one rule with equal resources are one job array; each of its tasks is a job like any other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fake_cluster import Cluster, FakeJob, Run, holder
from snakemake_executor_plugin_submitit import job_submission, ledger
from snakemake_executor_plugin_submitit.job_cancellation import JobCancellation
from snakemake_executor_plugin_submitit.job_status_query import parse_sacct
from snakemake_executor_plugin_submitit.job_wrapper import Job, own_id


def arrays(cluster: Cluster, names: str = "abcd", size: int = 100) -> tuple[Run, list[FakeJob]]:
    """Hand jobs to an executor at once; return both."""
    run, jobs = Run(cluster, array_size=size), [FakeJob(name) for name in names]
    run.executor.run_jobs(jobs)
    return run, jobs


def test_equal_jobs_go_up_with_one_sbatch_and_each_ends_by_itself(cluster: Cluster) -> None:
    run, jobs = arrays(cluster)
    assert cluster.calls.count("sbatch") == 1
    assert list(cluster.jobs) == ["100_0", "100_1", "100_2", "100_3"]
    assert len({name for _, name in cluster.jobs.values()}) == 1
    assert cluster.parameters[0]["additional_parameters"]["comment"] == "first of 4: train -> a"
    records = [run.record(job) for job in jobs]
    assert [record.job_id for record in records] == list(cluster.jobs)
    assert len({record.folder for record in records}) == 4
    for record in records:
        assert cluster.start(str(record.job_id))
    cluster.finish(records[2])
    cluster.finish(records[0], "failed")
    run.check()
    assert (run.succeeded, run.failed) == ([jobs[2]], [jobs[0]])
    run.executor.handle_job_success(jobs[2])
    assert len(run.executor.active_jobs) == 2
    lines = ledger.read(run.executor.root / "ledger")
    assert {(line["job_id"], line["state"]) for line in lines} == {("100_0", "failed"), ("100_2", "finished")}
    assert cluster.calls.count("squeue") <= 1  # for all tasks, by the array's id


@pytest.mark.parametrize("size", [0, 1])
def test_no_arrays_unless_asked_for(cluster: Cluster, size: int) -> None:
    arrays(cluster, size=size)
    assert list(cluster.jobs) == ["100", "101", "102", "103"]


def test_unequal_jobs_are_apart_and_an_array_has_its_size_at_most(cluster: Cluster) -> None:
    run = Run(cluster, array_size=2)
    jobs = [FakeJob("a"), FakeJob("b", mem_mb=5), FakeJob("c"), FakeJob("d", rule="other"), FakeJob("e")]
    run.executor.run_jobs(jobs)
    assert [job.registered for job in jobs] == [["100_0"], ["102"], ["100_1"], ["103"], ["101"]]


def test_one_invalid_job_fails_alone(cluster: Cluster) -> None:
    run = Run(cluster, array_size=9)
    jobs = [FakeJob("a"), FakeJob("b", mem_mb="much"), FakeJob("c")]
    run.executor.run_jobs(jobs)
    assert run.failed == [jobs[1]]
    assert list(cluster.jobs) == ["100_0", "100_1"]


def test_a_cluster_with_a_lower_maximum_gets_smaller_arrays(cluster: Cluster) -> None:
    cluster.largest_array = 2
    run, _ = arrays(cluster, "abcdefgh")
    assert list(cluster.jobs) == [f"{array}_{task}" for array in range(100, 104) for task in (0, 1)]
    assert run.text.count("SLURM refuses an array") == 2  # of 8, of 4: never again of those sizes
    assert not run.failed


def test_a_cluster_without_arrays_gets_single_jobs(cluster: Cluster) -> None:
    cluster.largest_array = 1
    run, _ = arrays(cluster)
    assert list(cluster.jobs) == ["100", "101", "102", "103"]
    assert len({name for _, name in cluster.jobs.values()}) == 4
    before = cluster.calls.count("sbatch")
    run.executor.run_jobs([FakeJob("x"), FakeJob("y")])
    assert cluster.calls.count("sbatch") == before + 2  # it is not tried again
    assert not run.failed


def test_a_refused_array_says_why_for_each_job(cluster: Cluster) -> None:
    cluster.answers = [job_submission.RefusedError("Invalid account")] * 3
    run, jobs = arrays(cluster, "ab")
    assert run.failed == jobs
    assert all("Invalid account" in job.errors[0] for job in jobs)
    assert not list(run.executor.records.all())


def test_what_has_room_is_submitted_and_the_rest_waits(cluster: Cluster) -> None:
    cluster.limit = 3
    run, jobs = arrays(cluster, "abcdef")
    assert list(cluster.jobs) == ["100_0", "100_1", "100_2"]
    assert len(run.executor.waiting) == 3
    assert len(list(run.executor.records.all())) == 3
    for job in jobs:
        record = run.record(job)
        assert cluster.start(str(record.job_id))
        cluster.finish(record)
        run.check()
        run.executor.handle_job_success(job)
    assert run.succeeded == jobs
    assert run.text.count("queue is full") == 1


def test_an_interrupted_task_is_submitted_again_as_a_single_job(cluster: Cluster) -> None:
    run, jobs = arrays(cluster)
    cluster.jobs["100_1"][0] = "NODE_FAIL"
    run.check()
    record = run.record(jobs[1])
    assert (record.job_id, record.task) == ("101", None)
    assert cluster.cancelled == ["100_1"]  # and no other task of that name
    assert len(run.executor.active_jobs) == 4


def test_ctrl_c_cancels_every_task(cluster: Cluster) -> None:
    run, _ = arrays(cluster)
    cluster.start("100_0")
    run.executor.cancel_jobs([])
    assert set(cluster.cancelled) == set(cluster.jobs)
    assert [state for state, _ in cluster.jobs.values()] == ["CANCELLED"] * 4
    assert all(holder(record) == {"by": "snakemake"} for record in run.executor.records.all())


def test_ctrl_c_while_sbatch_answers_cancels_every_task(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run, jobs = Run(cluster, array_size=9), [FakeJob("a"), FakeJob("b")]

    def submit(*arguments: object) -> list[str]:
        run.executor.cancel_jobs([])
        return cluster.submit(*arguments)

    monkeypatch.setattr(job_submission, "submit", submit)
    run.executor.run_jobs(jobs)
    assert sorted(cluster.cancelled) == ["100_0", "100_1"]
    assert cluster.calls[-1] == "scancel"
    assert not any(cluster.start(job_id) for job_id in cluster.jobs)


def test_a_lost_answer_is_found_by_name_for_every_task(cluster: Cluster) -> None:
    cluster.answers = [job_submission.UnreachableError("Socket timed out")]
    run = Run(cluster, array_size=100, controller_patience=900)
    jobs = [FakeJob(name) for name in "abc"]
    run.executor.run_jobs(jobs)
    assert cluster.calls.count("sbatch") == 1
    assert [run.record(job).job_id for job in jobs] == list(cluster.jobs) == ["100_0", "100_1", "100_2"]


def test_the_next_run_reattaches_to_each_task(cluster: Cluster) -> None:
    run, jobs = arrays(cluster)
    forgotten = run.record(jobs[3])
    forgotten.job_id = None  # killed before sbatch answered
    run.executor.records.save(forgotten)
    again, _ = Run(cluster, array_size=100), cluster.start("100_2")
    again.executor.run_jobs(jobs)
    assert cluster.calls.count("sbatch") == 1
    assert [job.registered[-1] for job in jobs] == ["100_0", "100_1", "100_2", "100_3"]
    cluster.finish(again.record(jobs[3]))
    again.check()
    assert again.succeeded == [jobs[3]]


def test_changed_work_of_one_task_cancels_that_task_only(cluster: Cluster) -> None:
    _, jobs = arrays(cluster)
    cluster.start("100_1")
    again = Run(cluster, array_size=100)
    jobs[1].shellcmd = "something else"
    again.executor.run_jobs(jobs)
    assert cluster.cancelled == ["100_1"]
    assert jobs[1].registered[-1] == "101"


def test_tasks_of_one_array_are_cancelled_by_one_command() -> None:
    commands: list[list[str]] = []

    def run(command: object) -> subprocess.CompletedProcess[str]:
        commands.append(list(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    JobCancellation(run).scancel(pairs=[("7_1", "train"), ("7_0", "train"), ("9", "score")])
    assert sorted(commands) == [["scancel", "--name=score", "9"], ["scancel", "--name=train", "7_0", "7_1"]]


def test_sacct_lists_tasks_that_never_started_together() -> None:
    listed = parse_sacct("7_0|COMPLETED|a\n7_0.batch|COMPLETED|batch\n7_[1-2,4%5]|CANCELLED by 0|a\n8|FAILED|b\n")
    assert {job_id: status.state for job_id, status in listed.items()} == {
        "7_0": "COMPLETED", "7_1": "CANCELLED", "7_2": "CANCELLED", "7_4": "CANCELLED", "8": "FAILED",
    }  # fmt: skip


def test_sacct_may_list_tasks_by_a_step_or_cut_the_list() -> None:
    listed = parse_sacct("7_[0-12:4%2]|CANCELLED by 0|a\n8_[0,2,5-6,10...]|CANCELLED by 0|a\n9_[]|FAILED|a\n")
    assert sorted(listed) == ["7_0", "7_12", "7_4", "7_8", "8_0", "8_2", "8_5", "8_6"]


def test_sacct_is_told_to_list_every_task(cluster: Cluster) -> None:
    cluster.patch.setenv("SLURM_BITSTR_LEN", "64")
    Run(cluster)
    assert os.environ["SLURM_BITSTR_LEN"] == "0"


def test_the_job_knows_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert own_id() == "9"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert own_id() == "7_2"


def test_the_batch_script_finds_the_folder_of_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    # srun stands for a job that says where it looks for its pickle, and fails.
    for name, text in (("sbatch", "echo Submitted batch job 7"), ("srun", 'echo "$@"; exit 3')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    folders = [tmp_path / "a folder's name" / uid for uid in ("u", "v")]
    for folder in folders:
        folder.mkdir(parents=True)
    jobs = [
        Job(uid=folder.name, key="k", folder=str(folder), command="true", directory=str(folder)) for folder in folders
    ]
    parameters = job_submission.sbatch_parameters({"runtime": 5}, 1, 120)
    assert job_submission.submit(jobs, "name", parameters) == ["7_0", "7_1"]
    (script,) = folders[0].glob(".submission_file_*.sh")
    text = script.read_text()
    assert "#SBATCH --array=0-1%2\n" in text
    assert "#SBATCH --output=/dev/null\n" in text
    task = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    assert subprocess.run(["bash", "-c", text], env=os.environ | task).returncode == 3
    said = (folders[1] / "name_7_1_log.out").read_text()
    assert f"--output {folders[1]}/name_7_1_log.out" in said
    assert said.rstrip().endswith(str(folders[1]))
    assert (folders[1] / "7_1_submitted.pkl").samefile(folders[1] / "job.pkl")
    assert (folders[1] / "exit-status-7_1").read_text() == "3\n"
    assert not list(folders[0].glob("*_submitted.pkl"))
