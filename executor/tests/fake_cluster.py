"""A simulated cluster, Snakemake run and jobs, for testing the executor without any of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings, job_submission
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.job_cancellation import JobCancellation
from snakemake_executor_plugin_submitit.job_state import is_live
from snakemake_executor_plugin_submitit.job_status_query import JobStatusQuery
from snakemake_executor_plugin_submitit.job_wrapper import Job
from snakemake_executor_plugin_submitit.records import CLAIM, RESULT, Record


def base(job_id: str) -> str:
    """Return the id of the job array to which a task belongs."""
    return job_id.partition("_")[0]


class Cluster:
    """SLURM as a dictionary: job id -> [state, name]. scancel ends a job at once, unless its node is dead."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch  # by which a run of Snakemake is put on this cluster
        self.jobs: dict[str, list[str]] = {}
        self.down = False
        self.dead_node = False
        self.cancelled: list[str] = []
        self.answers: list[Exception | None] = []  # what the next calls of sbatch raise; None: nothing
        self.folders: dict[str, Path] = {}
        self.calls: list[str] = []
        self.limit: int | None = None  # MaxSubmitJobs of the user's QOS
        self.full = job_submission.FullError("QOSMaxSubmitJobPerUserLimit")
        self.parameters: list[Mapping[str, Any]] = []
        self.largest_array = 1000

    def run(self, command: Sequence[str]) -> CompletedProcess[str]:
        if self.down:
            return CompletedProcess(command, 1, "", "Unable to contact slurm controller")
        text = ""
        self.calls.append(command[0])
        if command[0] == "squeue":
            (which,) = [word.partition("=") for word in command if word.startswith(("--jobs=", "--name="))]
            wanted = set(which[2].split(","))
            if which[0] == "--jobs" and len(wanted) == 1 and not wanted & {base(job_id) for job_id in self.jobs}:
                return CompletedProcess(command, 1, "", "slurm_load_jobs error: Invalid job id specified")
            text = "".join(
                f"{job_id}|{state}|None|{name}\n"
                for job_id, (state, name) in self.jobs.items()
                if (base(job_id) if which[0] == "--jobs" else name) in wanted
            )
        elif command[0] == "sacct":
            return CompletedProcess(command, 1, "", "Slurm accounting storage is disabled")
        elif command[0] == "scancel":
            words = [word for word in command[1:] if not word.startswith("--user")]
            names = {word.removeprefix("--name=") for word in words if word.startswith("--name=")}
            ids = {word for word in words if not word.startswith("--")}
            for job_id, job in self.jobs.items():
                if (not ids or job_id in ids) and (not names or job[1] in names):
                    self.cancelled.append(job_id)
                    job[0] = "CANCELLED" if is_live(job[0]) and not self.dead_node else job[0]
        return CompletedProcess(command, 0, text, "")

    def add(self, name: str, folder: Path) -> str:
        return self.add_all(name, [folder])[0]

    def add_all(self, name: str, folders: Sequence[Path]) -> list[str]:
        number = str(100 + len({base(job_id) for job_id in self.jobs}))
        ids = [number] if len(folders) == 1 else [f"{number}_{task}" for task in range(len(folders))]
        for job_id, folder in zip(ids, folders, strict=True):
            self.jobs[job_id] = ["PENDING", name]
            self.folders[job_id] = folder
        return ids

    def submit(self, jobs: Sequence[Job], name: str, parameters: Mapping[str, Any]) -> list[str]:
        """Replace `job_submission.submit`."""
        error = self.answers.pop(0) if self.answers else None
        self.calls.append("sbatch")
        if len(jobs) > self.largest_array:
            raise job_submission.RefusedError("sbatch: error: Invalid job array specification")
        live = sum(is_live(state) for state, _ in self.jobs.values())
        if self.limit is not None and live + len(jobs) > self.limit:
            raise self.full
        self.parameters.append(parameters)
        if isinstance(error, job_submission.UnreachableError | None):  # accepted, even when the answer is lost
            ids = self.add_all(name, [Path(job.folder) for job in jobs])
        if error is not None:
            raise error
        return ids

    def start(self, job_id: str) -> bool:
        """Start a job, as SLURM does; return whether its wrapper runs the command or ends as a second copy."""
        holder = claim(self.folders[job_id] / CLAIM, {"by": "job", "job_id": job_id})
        runs = holder.get("job_id") == job_id
        self.jobs[job_id][0] = "RUNNING" if runs else "COMPLETED"
        return runs

    def finish(self, record: Record, outcome: str = "finished") -> None:
        """Leave a result and the outputs, as a job does at its end."""
        if record.job_id in self.jobs:
            self.jobs[record.job_id][0] = "COMPLETED" if outcome == "finished" else "FAILED"
        for path in record.outputs:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        write_json(record.path / RESULT, {"uid": record.uid, "outcome": outcome})


class Params:
    def _allitems(self) -> list[tuple[None, str]]:
        return []


class FakeJob:
    """A Snakemake job with some outputs, or a group of such jobs."""

    def __init__(self, *outputs: str, rule: str = "train", group: Sequence[FakeJob] = (), **resources: Any) -> None:
        self.output = list(outputs)
        self.rule = SimpleNamespace(
            name=rule, shellcmd="", script=None, notebook=None, wrapper=None, basedir="", run_func=None, is_run=False
        )
        self.jobs = list(group)
        self.groupid = "probes"
        self.shellcmd = "true"
        self.params = Params()
        self.wildcards_dict: dict[str, str] = {}
        self.input: list[str] = []
        self.log: list[str] = []
        self.threads = 2
        self.resources = resources
        self.registered: list[str | None] = []
        self.errors: list[str] = []

    def is_group(self) -> bool:
        return bool(self.jobs)

    def register(self, external_jobid: str | None = None) -> None:
        self.registered.append(external_jobid)

    def log_info(self) -> None:
        pass

    def log_error(self, msg: str | None = None, **_: Any) -> None:
        self.errors.append(str(msg))


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)

    warning = error = debug = info


class Run:
    """One run of Snakemake: an executor on a cluster, and what it has reported."""

    def __init__(self, cluster: Cluster, jobs: Sequence[FakeJob] = (), **settings: Any) -> None:
        monkeypatch = cluster.patch
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr(job_submission, "submit", cluster.submit)
        monkeypatch.setattr(Executor, "format_job_exec", lambda self, job: "true")
        module = "snakemake_executor_plugin_submitit"
        monkeypatch.setattr(
            f"{module}.executor.JobStatusQuery", lambda interval, complaints: JobStatusQuery(0, complaints, cluster.run)
        )
        monkeypatch.setattr(f"{module}.job_cancellation.JobCancellation", lambda: JobCancellation(cluster.run))
        self.succeeded: list[FakeJob] = []
        self.failed: list[FakeJob] = []
        self.remembered: list[FakeJob] = []

        async def finished(job: FakeJob) -> None:
            self.remembered.append(job)

        scheduler = SimpleNamespace(
            finish_callback=self.succeeded.append, error_callback=self.failed.append, submit_callback=lambda job: None
        )
        Path(".snakemake").mkdir(exist_ok=True)
        self.executor = executor = Executor.__new__(Executor)
        executor.workflow = SimpleNamespace(
            executor_settings=ExecutorSettings(**{"controller_patience": 0} | settings),
            remote_execution_settings=SimpleNamespace(seconds_between_status_checks=0, immediate_submit=False),
            execution_settings=SimpleNamespace(latency_wait=0),
            scheduler=scheduler,
            dag=SimpleNamespace(needrun_jobs=list, jobs=list(jobs)),
            persistence=SimpleNamespace(finished=finished),
            async_run=asyncio.run,
        )
        executor.logger = self.logger = Logger()
        executor.lock = threading.Lock()
        executor.active_jobs = []
        executor.wait_thread = threading.Thread(target=lambda: None)
        executor.wait_thread.start()
        executor.status_rate_limiter = contextlib.nullcontext()
        executor._tmpdir = None
        executor.__post_init__()
        executor.stopped.wait = lambda seconds: executor.stopped.is_set()

    def check(self) -> None:
        """Let the executor check its jobs once, as its wait thread does."""

        async def check() -> list[Any]:
            return [info async for info in self.executor.check_active_jobs(list(self.executor.active_jobs))]

        self.executor.active_jobs = asyncio.run(check())

    def record(self, job: FakeJob) -> Record:
        """Return a job's current record."""
        found = self.executor.records.load(job_submission.new_record(job, self.executor.records).key)
        assert found is not None
        return found

    @property
    def text(self) -> str:
        return "\n".join(self.logger.lines)


def holder(record: Record) -> dict[str, Any]:
    """Return the claim on a submission."""
    return read_json(record.path / CLAIM) or {}
