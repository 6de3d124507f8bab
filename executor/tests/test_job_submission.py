"""Resources become sbatch's flags."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedJobError

from snakemake_executor_plugin_submitit import job_submission, processes
from snakemake_executor_plugin_submitit.job_wrapper import Job


def parameters(**resources: Any) -> dict[str, Any]:
    return job_submission.sbatch_parameters(resources, threads=2, signal_delay=120)


def test_every_resource_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parameters(
        mem_mb=4000, runtime=90, gpu=2, gpu_model="a100", nodes=1, constraint="ib", qos="long", slurm_partition="gpu",
        slurm_account="study", slurm_exclude="node7", slurm_mail_type="FAIL", slurm_extra="--nice=10 --exclusive",
        slurm_progress="work/progress.json", tmpdir="/tmp",
    )  # fmt: skip
    monkeypatch.setattr(job_submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    executor = job_submission._SlurmExecutor(folder=tmp_path)
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
    monkeypatch.setattr(job_submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    executor = job_submission._SlurmExecutor(folder=tmp_path)
    executor.no_limit = True
    assert "--time" not in executor._make_submission_file_text("x", "u")
    executor.no_limit = False
    assert "--time" in executor._make_submission_file_text("x", "u")


@pytest.mark.parametrize(("runtime", "delay"), [(1, 30), (3, 90), (60, 120), (6000, 120)])
def test_the_warning_comes_after_the_start(runtime: int, delay: int) -> None:
    assert parameters(runtime=runtime)["signal_delay_s"] == delay


def test_the_warning_stays_below_ten_minutes() -> None:
    assert job_submission.sbatch_parameters({"runtime": 600}, 1, signal_delay=3600)["signal_delay_s"] == 599


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [({}, 0), ({"gpu": 2}, 2), ({"gpu": 0}, 0), ({"gres": "gpu:a100:2", "nodes": 2}, 4), ({"gres": "gpu"}, 1),
     ({"slurm_gres": "lustre:1,gpu:3"}, 3)],
)  # fmt: skip
def test_gpus_for_the_ledger(resources: dict[str, Any], gpus: int) -> None:
    assert job_submission.gpus_of(resources) == gpus


@pytest.mark.parametrize(
    ("resources", "cpus"),
    [({}, 2), ({"cpus_per_task": 8}, 8), ({"cpus_per_task": 8, "tasks": 3, "nodes": 2}, 24), ({"nodes": 2}, 4)],
)
def test_cpus_for_the_ledger(resources: dict[str, Any], cpus: int) -> None:
    assert job_submission.cpus_of(resources, threads=2) == cpus


@pytest.mark.parametrize(
    "resources", [{"slurm_requeue": False}, {"slurm_extra": "--no-requeue"}, {"slurm_no_requeue": True}]
)
def test_a_user_can_forbid_requeues(resources: dict[str, Any]) -> None:
    extra = parameters(**resources)["additional_parameters"]
    assert extra.get("no-requeue") is True
    assert "requeue" not in extra


@pytest.mark.parametrize(
    ("resources", "words"),
    [({"mem_mb": "much"}, "mem_mb must be a whole number"), ({"mem_mb": -5}, "mem_mb must be a whole number, not -5"),
     ({"nodes": -2}, "nodes must be"), ({"gpu": -1}, "gpu must be"), ({"gpu": 1.5}, "gpu must be"),
     ({"runtime": float("inf")}, "runtime must be"), ({"slurm_extra": "--a='b"}, "slurm_extra: .* is no shell words"),
     ({"gpu": 3, "nodes": 2}, "does not divide"), ({"slurm_extra": "--job-name=x"}, "--job-name cannot be given"),
     ({"slurm_array": "0-3"}, "--array cannot"), ({"slurm_clusters": "b"}, "--clusters cannot.*use submitit-clusters"),
     ({"slurm_extra": "nice"}, "--flag=value")],
)  # fmt: skip
def test_an_invalid_resource_is_named(resources: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkflowError, match=words):
        parameters(**resources)


def test_the_surrounding_jobs_environment_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/here")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SNAKEMAKE_SUBMITIT_KEY", "outer")
    with job_submission._clean_environment():
        assert "SLURM_JOB_ID" not in os.environ
        assert "SNAKEMAKE_SUBMITIT_KEY" not in os.environ
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_ACCOUNT"]) == ("/here", "mine")
    assert os.environ["SLURM_JOB_ID"] == "1"
    assert os.environ["SLURM_CONF"] == "/here"


@pytest.mark.parametrize(
    ("message", "kind"),
    [("sbatch: error: Unable to contact slurm controller (connect failure)", job_submission.UnreachableError),
     ("sbatch: error: invalid partition specified: x", job_submission.RefusedError)],
)  # fmt: skip
def test_unreachable_and_refused_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kind: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> submitit.Job[str]:
        raise FailedJobError(message)

    monkeypatch.setattr(job_submission._SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(job_submission._SlurmExecutor, "_submit_command", fail)
    job = Job(uid="u", key="k", folder=str(tmp_path), command="true", directory=str(tmp_path))
    with pytest.raises(kind):
        job_submission.submit([job], "name", parameters(runtime=5))


# --- the batch script, with fake sbatch and srun programs ---------------------------------------------


def submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str = "echo Submitted batch job 9", **resources: Any
) -> tuple[Path, str, Job]:
    """Submit a job; return its folder, its batch script and itself."""
    programs, folder = tmp_path / "bin", tmp_path / "a folder's name" / "u"
    for path in (programs, folder):
        path.mkdir(parents=True)
    # srun fails after it has listed what the job would find in its folder.
    srun = f"ls '{tmp_path}/a folder'\\''s name/u' > {tmp_path}/seen; exit 3"
    for name, text in (("sbatch", sbatch), ("srun", srun)):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    job = Job(uid="u", key="k", folder=str(folder), command="true", directory=str(folder))
    with contextlib.suppress(job_submission.UnreachableError):
        assert job_submission.submit([job], "name", parameters(**resources)) == ["9"]
    (script,) = (path for path in folder.glob(".submission_file_*.sh"))
    return folder, script.read_text(), job


LOST = "echo Socket timed out >&2; exit 1"


@pytest.mark.parametrize("sbatch", ["echo Submitted batch job 9", LOST])
def test_the_job_finds_its_pickle_whether_or_not_sbatch_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str
) -> None:
    folder, script, job = submitted(tmp_path, monkeypatch, sbatch, runtime=5)
    for _ in range(2):  # and again after a requeue
        subprocess.run(["bash", "-c", script], env=os.environ | {"SLURM_JOB_ID": "9"})
        assert "9_submitted.pkl" in (tmp_path / "seen").read_text().split()
    delayed = submitit.helpers.DelayedSubmission.load(folder / "9_submitted.pkl")
    assert delayed.function == job
    assert delayed._timeout_min == 5


def test_the_log_is_named_like_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script, _ = submitted(tmp_path, monkeypatch)
    assert "_log.out" not in script.replace("/name_%j_log.out", "")
    assert script.count("/name_%j_log.out") == 2  # of the batch script, and of srun


def test_the_users_defaults_do_not_beat_a_rules_own_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT", "PARTITION", "TIMELIMIT", "MAIL_TYPE"):
        monkeypatch.setenv(f"SBATCH_{name}", "mine")
    with job_submission._clean_environment(["account", "partition", "time"]):
        assert {name for name in os.environ if name.startswith("SBATCH_")} == {"SBATCH_MAIL_TYPE"}
    assert os.environ["SBATCH_ACCOUNT"] == "mine"


def test_the_users_defaults_do_not_hide_a_job_from_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOB_NAME", "ARRAY_INX", "CLUSTERS", "WAIT"):
        monkeypatch.setenv(f"SBATCH_{name}", "mine")
    with job_submission._clean_environment():
        assert not any(name.startswith("SBATCH_") for name in os.environ)


def test_sbatchs_errors_are_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "echo sbatch: error: QOSMaxSubmitJobPerUserLimit >&2; exit 1"
    with pytest.raises(job_submission.FullError):
        submitted(tmp_path, monkeypatch, text)
    assert capfd.readouterr().err == ""


def test_a_second_attempt_keeps_the_first_ones_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, job = submitted(tmp_path, monkeypatch, LOST)
    (folder / "job.pkl").write_text("being read")
    with pytest.raises(job_submission.UnreachableError):
        job_submission.submit([job], "name", parameters())
    assert (folder / "job.pkl").read_text() == "being read"


def test_a_failed_job_kills_its_own_processes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, script, _ = submitted(tmp_path, monkeypatch)
    key = tmp_path.name
    marks = [processes.job_marker("u", "9"), processes.job_marker("u", "10"), processes.job_marker("v", "9")]
    running = [
        subprocess.Popen(["sleep", "60"], env=os.environ | {processes.KEY_VARIABLE: key, processes.JOB_VARIABLE: mark})
        for mark in marks
    ]
    done = subprocess.run(["bash", "-c", script], env=os.environ | {"SLURM_JOB_ID": "9"})
    assert done.returncode == 3
    assert (folder / "exit-status-9").read_text() == "3\n"
    assert running[0].wait(10) == -9
    assert [process.poll() for process in running[1:]] == [None, None]
    for process in running[1:]:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("resources", "lines"),
    [({}, []), ({"runtime": 7}, ["#SBATCH --time=7"]), ({"slurm_time": "1-00:00"}, ["#SBATCH --time=1-00:00"]),
     ({"slurm_extra": "--time=30"}, ["#SBATCH --time=30"])],
)  # fmt: skip
def test_the_time_limit_is_the_users_or_the_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], lines: list[str]
) -> None:
    _, script, _ = submitted(tmp_path, monkeypatch, **resources)
    assert [line for line in script.splitlines() if "--time=" in line] == lines


@pytest.mark.parametrize(
    ("resources", "line"),
    [({"runtime": 60}, "#SBATCH --signal=USR2@120"), ({"slurm_signal": "B:USR1@9"}, "#SBATCH --signal=B:USR1@9")],
)
def test_the_warning_is_the_signal_that_the_wrapper_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], line: str
) -> None:
    # What SUBMITIT_PREEMPT_SIGNAL=USR1 in the user's environment sets at import.
    monkeypatch.setattr(submitit.slurm.slurm.SlurmJobEnvironment, "USR_SIG", "USR1")
    _, script, _ = submitted(tmp_path, monkeypatch, **resources)
    assert [found for found in script.splitlines() if "--signal=" in found] == [line]
