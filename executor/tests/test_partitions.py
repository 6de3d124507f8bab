"""A partition is chosen by what a job needs; a job that fits nowhere is told so before it is submitted."""

from __future__ import annotations

from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit import job_submission, partitions

TABLE = """
short   runtime=60 mem_mb=64000     # the default of our cluster
gpu     runtime=2880 gpu=4 gpu_model=a100
gpus    runtime=2880 gpu=8 nodes=4
long    runtime=10080 cpus=64
"""


def chosen(threads: int = 2, **resources: Any) -> str | None:
    table = partitions.parse(TABLE)
    partition = job_submission.sbatch_parameters(resources, threads, 120, table=table)["partition"]
    return None if partition is None else str(partition)


@pytest.mark.parametrize(
    ("resources", "partition"),
    [
        ({"runtime": 60, "mem_mb": 64000}, "short"),
        ({"runtime": 61}, "gpu"),
        ({"runtime": 3000}, "long"),
        ({"mem_mb": 64001, "runtime": 5}, "gpu"),
        ({"mem_mb_per_cpu": 33000, "runtime": 5}, "gpu"),  # times two CPUs
        ({"gpu": 1}, "gpu"),
        ({"gpu": 4, "gpu_model": "a100"}, "gpu"),
        ({"gpu": 1, "gpu_model": "h100"}, "gpus"),
        ({"gpu": 0, "gres": "gpu:a100:1", "runtime": 5}, "gpu"),
        ({"gres": "gpu:8", "nodes": 2, "runtime": 5}, "gpus"),
        ({"slurm_gres": "gpu", "runtime": 5}, "gpu"),
        ({"slurm_extra": "--gres=gpu:5", "runtime": 5}, "gpus"),
        ({"gpu": 0, "gpu_model": "h100", "runtime": 61}, "gpu"),  # a default says nothing of a job without GPUs
        ({"gpu": 8}, "gpus"),
        ({"gpu": 32, "nodes": 4}, "gpus"),  # the limit is per node
        ({"gpu": 8, "slurm_partition": "mine"}, "mine"),
        ({"runtime": 99999, "slurm_extra": "--partition=mine"}, None),
        ({}, "short"),
    ],
)
def test_the_first_that_takes_the_job(resources: dict[str, Any], partition: str | None) -> None:
    assert chosen(**resources) == partition


def test_nothing_fits() -> None:
    with pytest.raises(
        WorkflowError, match=r"no partition takes a job with runtime=20000, cpus=2.*long \(runtime≤10080"
    ):
        chosen(runtime=20000)
    with pytest.raises(WorkflowError, match="gpu=9"):
        chosen(gpu=9)


@pytest.mark.parametrize("word", ["hours=3", "runtime=long", "runtime", "gpu_model="])
def test_a_wrong_word_in_the_table_is_named(word: str) -> None:
    with pytest.raises(WorkflowError, match=f"'{word}' in the line 'short {word}'"):
        partitions.parse(f"short {word}")


@pytest.mark.parametrize("words", ["runtime=60 runtime=90", "gpu_model=a gpu_model=b"])
def test_a_limit_that_is_given_twice_is_named(words: str) -> None:
    with pytest.raises(WorkflowError, match=f"{words.split('=')[0]} is given twice in the line 'short {words}'"):
        partitions.parse(f"short {words}")


@pytest.mark.parametrize("line", ["runtime=60 mem_mb=64000", "short: runtime=60", "-x runtime=5", ", cpus=1"])
def test_a_line_without_a_name_is_refused(line: str) -> None:
    with pytest.raises(WorkflowError, match="is no name of a partition"):
        partitions.parse(line)


def test_without_a_table_slurm_decides() -> None:
    assert job_submission.sbatch_parameters({"runtime": 5}, 2, 120)["partition"] is None


def test_a_job_that_fits_nowhere_fails_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(cluster, partitions="short runtime=60", clusters="big")
    good, bad = FakeJob("a", runtime=60), FakeJob("b", runtime=61)
    monkeypatch.delenv("SLURM_CLUSTERS")  # set by the setting, and not to be left to other tests
    for job in (good, bad):
        run.executor.run_job(job)
    assert run.failed == [bad]
    assert "no partition takes a job" in bad.errors[0]
    assert [parameters["partition"] for parameters in cluster.parameters] == ["short"]


@pytest.mark.parametrize(
    ("environment", "account"),
    [
        ({"SBATCH_ACCOUNT": "a", "SLURM_ACCOUNT": "b"}, "a"),
        ({"SLURM_ACCOUNT": "b", "SLURM_JOB_ACCOUNT": "c"}, "b"),
        ({"SLURM_JOB_ACCOUNT": "c"}, "c"),
        ({}, None),
    ],
)
def test_the_account_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], account: str | None
) -> None:
    for name in ("SBATCH_ACCOUNT", "SLURM_ACCOUNT", "SLURM_JOB_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert job_submission.sbatch_parameters({}, 1, 120)["account"] == account
    assert job_submission.sbatch_parameters({"slurm_account": "mine"}, 1, 120)["account"] == "mine"
