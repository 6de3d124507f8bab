"""Resources become sbatch's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import submitit
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import submission


def parameters(**resources: Any) -> dict[str, Any]:
    return submission.sbatch_parameters(resources, threads=2, rule="train", signal_delay=120)


def test_every_resource_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parameters(
        mem_mb=4000, runtime=90, gpu=2, gpu_model="a100", nodes=1, constraint="ib", qos="long", slurm_partition="gpu",
        slurm_account="study", slurm_exclude="node7", slurm_mail_type="FAIL", slurm_extra="--nice=10 --exclusive",
        slurm_progress="work/progress.json", tmpdir="/tmp",
    )  # fmt: skip
    monkeypatch.setattr(submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    executor = submission._SlurmExecutor(folder=tmp_path)
    executor.update_parameters(**{name: value for name, value in given.items() if value is not None})
    flags = [line.split(maxsplit=1)[1] for line in executor._make_submission_file_text("x", "u").splitlines()
             if line.startswith("#SBATCH")]  # fmt: skip
    for flag in (
        "--cpus-per-task=2", "--mem=4000M", "--time=90", "--gpus-per-node=a100:2", "--nodes=1", "--constraint=ib",
        "--qos=long", "--partition=gpu", "--account=study", "--exclude=node7", "--mail-type=FAIL", "--nice=10",
        "--exclusive", "--requeue", "--signal=USR2@120", "--open-mode=append",
    ):  # fmt: skip
        assert flag in flags
    assert not any("progress" in flag or "tmpdir" in flag for flag in flags)


def test_without_runtime_the_partition_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    executor = submission._SlurmExecutor(folder=tmp_path)
    executor.no_limit = True
    assert "--time" not in executor._make_submission_file_text("x", "u")
    executor.no_limit = False
    assert "--time" in executor._make_submission_file_text("x", "u")


@pytest.mark.parametrize(("runtime", "delay"), [(1, 30), (3, 90), (60, 120), (6000, 120)])
def test_the_warning_comes_after_the_start(runtime: int, delay: int) -> None:
    assert parameters(runtime=runtime)["signal_delay_s"] == delay


def test_the_warning_stays_below_ten_minutes() -> None:
    assert submission.sbatch_parameters({"runtime": 600}, 1, "r", signal_delay=3600)["signal_delay_s"] == 599


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [({}, 0), ({"gpu": 2}, 2), ({"gpu": 0}, 0), ({"gres": "gpu:a100:2", "nodes": 2}, 4), ({"gres": "gpu"}, 1),
     ({"slurm_gres": "lustre:1,gpu:3"}, 3)],
)  # fmt: skip
def test_gpus_for_the_ledger(resources: dict[str, Any], gpus: int) -> None:
    assert submission.gpus_of(resources) == gpus


@pytest.mark.parametrize(
    ("resources", "words"),
    [({"mem_mb": "much"}, "mem_mb must be a whole number"), ({"gpu": 3, "nodes": 2}, "does not divide"),
     ({"slurm_extra": "nice"}, "--flag=value")],
)  # fmt: skip
def test_nonsense_is_named(resources: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkflowError, match=words):
        parameters(**resources)


def test_the_surrounding_jobs_environment_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/here")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SNAKEMAKE_SUBMITIT_KEY", "outer")
    with submission._own_environment():
        assert "SLURM_JOB_ID" not in os.environ
        assert "SNAKEMAKE_SUBMITIT_KEY" not in os.environ
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_ACCOUNT"]) == ("/here", "mine")
    assert os.environ["SLURM_JOB_ID"] == "1"
    assert os.environ["SLURM_CONF"] == "/here"


@pytest.mark.parametrize(
    ("message", "kind"),
    [("sbatch: error: Unable to contact slurm controller (connect failure)", submission.UnreachableError),
     ("sbatch: error: invalid partition specified: x", submission.RefusedError)],
)  # fmt: skip
def test_trouble_and_refusal_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kind: type[Exception]
) -> None:
    from submitit.core.utils import FailedJobError

    from snakemake_executor_plugin_submitit.wrapper import Job

    def fail(*_: Any, **__: Any) -> submitit.Job[str]:
        raise FailedJobError(message)

    monkeypatch.setattr(submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(submission._SlurmExecutor, "submit", fail)
    job = Job(uid="u", key="k", folder=str(tmp_path), command="true", directory=str(tmp_path))
    with pytest.raises(kind):
        submission.submit(job, "name", parameters(runtime=5))
