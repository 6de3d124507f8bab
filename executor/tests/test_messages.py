"""What is said, to the user and to SLURM, and what SLURM is asked: the right thing, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.job_status_query import Snapshot
from snakemake_executor_plugin_submitit.records import RESULT


def test_squeue_tells_what_runs(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("out/a b.txt")
    job.wildcards_dict = {"model": "vits14", "seed": "3", "data": "x,y" + "z" * 90}
    run.executor.run_job(job)
    record = run.record(job)
    assert cluster.jobs["100"][1] == record.name
    assert record.name.startswith("train-vits14.3.x.yzzz")
    assert record.name.endswith(f"-{record.uid}")
    assert "," not in record.name  # squeue --name and scancel --name take lists
    assert len(record.name) < 120
    assert Path(record.log).name == f"{record.name}_100_log.out"
    comment = cluster.parameters[0]["additional_parameters"]["comment"]
    assert comment.startswith("train model=vits14 seed=3 data=x,yzzz")
    assert comment.endswith("-> out/a b.txt")


def test_a_users_own_comment_is_kept(cluster: Cluster) -> None:
    run = Run(cluster)
    run.executor.run_job(FakeJob("a", slurm_comment="mine"))
    assert cluster.parameters[0]["additional_parameters"]["comment"] == "mine"


@pytest.mark.parametrize("group", [False, True])
def test_the_reason_reaches_the_user_once(cluster: Cluster, group: bool) -> None:
    run = Run(cluster)
    job = FakeJob(group=[FakeJob("a"), FakeJob("b")]) if group else FakeJob("a")
    run.executor.run_job(job)
    write_json(run.record(job).path / RESULT, {"uid": run.record(job).uid, "outcome": "failed", "reason": "the reason"})
    run.check()
    # Snakemake prints the message of a job's error, but not of a group's.
    assert run.text.count("the reason") == int(group)
    assert job.errors[0].count("the reason") == 1


def test_a_silent_controller_is_complained_of_once(cluster: Cluster) -> None:
    run = Run(cluster)
    for name in "ab":
        run.executor.run_job(FakeJob(name))
    for cluster.down in (True, True, True, False, False):
        run.check()
    assert run.text.count("SLURM does not answer") == 1
    assert run.text.count("SLURM answers again") == 1
    for cluster.down in (True, False):
        run.check()
    assert run.text.count("SLURM does not answer") == run.text.count("SLURM answers again") == 2


def test_only_our_own_jobs_are_asked_for(cluster: Cluster) -> None:
    run, asked = Run(cluster), []
    for name in "ab":
        run.executor.run_job(FakeJob(name))
    cluster.add("somebody-elses", Path())
    answer = cluster.run
    run.executor.status_query._runner = lambda command: asked.append(command) or answer(command)  # type: ignore[func-returns-value]
    run.check()
    (command,) = [command for command in asked if command[0] == "squeue"]
    assert "--jobs=100,101" in command


def test_a_job_submitted_just_before_slurm_was_asked_is_not_taken_for_lost(cluster: Cluster) -> None:
    run, first, second = Run(cluster), FakeJob("a"), FakeJob("b")
    run.executor.run_job(first)
    ask = run.executor.status_query.snapshot

    def snapshot(job_ids: Sequence[str], fresh: bool = False) -> Snapshot:
        if not second.registered:
            run.executor.run_job(second)  # its id is not among those that SLURM is asked for
        return ask(job_ids, fresh)

    run.executor.status_query.snapshot = snapshot  # type: ignore[method-assign]
    run.check()
    run.executor.active_jobs += [run.executor._info(second, run.record(second))]
    run.executor.status_query.interval = 1000.0
    run.check()
    assert not run.failed
