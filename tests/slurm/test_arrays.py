"""Job arrays on a real SLURM: each task is cancelled, requeued, reattached to and entered in the ledger by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.slurm.cluster import Workflow, queue, slurm, trainers, wait_until, wrappers
from tests.slurm.test_slurm import check, training

pytestmark = pytest.mark.slurm

Make = Callable[..., Workflow]


def ready(workflow: Make, config: str, more: str = "") -> Workflow:
    """A workflow whose training jobs are all ready at once."""
    flow = workflow(config, f"--submitit-array-size 100 {more}")
    assert flow.run("--until", "subset") == 0, flow.text
    return flow


def running(rule: str = "train") -> list[str]:
    return [job["id"] for job in queue() if job["name"].startswith(rule) and job["state"] == "RUNNING"]


def arrays(flow: Workflow, rule: str) -> set[str]:
    """The ids of the arrays that ran a rule's jobs."""
    return {line["job_id"].partition("_")[0] for line in flow.ledger() if line["rule"] == rule}


def test_tasks_are_requeued_and_reattached_to(workflow: Make) -> None:
    flow = ready(workflow, "runs=3 steps=80")
    assert len(arrays(flow, "subset")) == 1
    flow.start()
    training(flow, 7)
    first, second = sorted(wait_until(lambda: len(running()) == 2 and running(), 60, "two running tasks"))
    assert first.endswith("_0")
    wait_until(lambda: len(trainers(flow.directory)) == 2, 60, "two trainers")
    slurm(f"scontrol requeue {first}", check=True)
    slurm(f"scancel --signal=USR2 {second}", check=True)
    wait_until(lambda: second not in running(), 60, "the requeue")
    flow.kill()
    check(flow, 3, 80, flow.run())
    assert flow.text.count("of a previous run (train)") == 3
    assert [flow.steps(f"run{n}") for n in range(3)] == [list(range(80))] * 3
    lines = [line for line in flow.ledger() if line["rule"] == "train"]
    states = {job_id: [line["state"] for line in lines if line["job_id"] == job_id] for job_id in (first, second)}
    assert states == {first: ["requeued", "finished"], second: ["requeued", "finished"]}
    assert len(arrays(flow, "train")) == 1


def test_one_task_fails_and_ctrl_c_ends_the_others(workflow: Make) -> None:
    flow = ready(workflow, "runs=3 steps=150", "--keep-going --submitit-keep-successful-logs")
    flow.start()
    training(flow, 3)
    cancelled = running()[0]
    slurm(f"scancel {cancelled}", check=True)
    wait_until(lambda: f"SLURM job {cancelled}: somebody cancelled it" in flow.text, 90, "its failure")
    others = wait_until(lambda: len(running()) == 2 and running(), 60, "two running tasks")
    assert cancelled not in others
    assert flow.interrupt() != 0
    wait_until(lambda: not queue(), 40, "an empty queue")
    assert not trainers(flow.directory)
    states = {line["job_id"]: line["state"] for line in flow.ledger() if line["rule"] == "train"}
    assert states == {cancelled: "failed", **dict.fromkeys(others, "cancelled")}
    check(flow, 3, 150, flow.run())
    assert len(list(flow.directory.glob(f".snakemake/submitit/jobs/train/*/*/train-array3-*_{cancelled}_log.out"))) == 1


def test_a_killed_task_says_so_and_is_retried(workflow: Make) -> None:
    flow = ready(workflow, "runs=2 steps=40", "--retries 1")
    process = flow.start()
    training(flow, 7)
    os.kill(wait_until(lambda: wrappers(flow.directory), 30, "a wrapper")[0], signal.SIGKILL)
    check(flow, 2, 40, process.wait(240))
    assert flow.text.count("killed by signal 9 (SIGKILL)") == 1
    states = [line["state"] for line in flow.ledger() if line["rule"] == "train"]
    assert sorted(states) == ["failed", "finished", "finished"]
