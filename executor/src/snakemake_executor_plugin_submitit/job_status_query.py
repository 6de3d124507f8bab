"""Queries SLURM for the state of all jobs: one `squeue` for all, `sacct` only for jobs that squeue has forgotten."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from snakemake_executor_plugin_submitit.job_state import LIVE_STATES, normalise

COMMAND_TIMEOUT = 30  # seconds; while the controller is down SLURM's commands can hang for minutes


@dataclass(frozen=True)
class JobStatus:
    """One job as SLURM reports it."""

    state: str
    name: str
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The state of the queue at one moment.

    Attributes:
        taken: when it was taken, on the monotonic clock; -inf: never.
        jobs: job id -> status.
        complete: False if the query failed for some jobs: that a job is missing then means nothing.
    """

    taken: float = float("-inf")
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    complete: bool = False

    def find(self, job_id: str | None, name: str) -> JobStatus | None:
        """Return the status of a job. SLURM reuses job ids, so the name has to match as well."""
        status = self.jobs.get(job_id or "")
        return status if status is not None and status.name == name else None

    def id_of(self, name: str) -> str | None:
        """Return the id of the job with this name."""
        return next((job_id for job_id, status in self.jobs.items() if status.name == name), None)


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Parse the output of `squeue --format=%i|%T|%r|%j`."""
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4:
            jobs[fields[0]] = JobStatus(state=normalise(fields[1]), name=fields[3], reason=fields[2])
    return jobs


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Parse the output of `sacct --parsable2 --format=JobIDRaw,State,JobName`; job steps (`7.batch`) are skipped."""
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 2)
        if len(fields) == 3 and "." not in fields[0]:
            jobs[fields[0]] = JobStatus(state=normalise(fields[1]), name=fields[2])
    return jobs


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands; a missing program or a time-out is returned as a failure."""
    # In a session of its own: Ctrl-C in the terminal is meant for Snakemake, which then still needs the answer.
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False, start_new_session=True
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} gave no answer within {COMMAND_TIMEOUT} s")


class JobStatusQuery:
    """Queries SLURM at most once per `interval` seconds, however many jobs there are.

    Attributes:
        accounting: whether sacct is usable; True until sacct says otherwise.
        last_error: SLURM's error message when a query failed, "" when it has been reported.
    """

    def __init__(
        self, interval: float, runner: Runner = run_command, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self.accounting = True
        self.last_error = ""
        self._runner = runner
        self._clock = clock
        self._last_query = float("-inf")
        self._last = Snapshot()

    def snapshot(self, job_ids: Collection[str], fresh: bool = False) -> Snapshot:
        """Return the newest snapshot, querying again when the last query is `interval` seconds old.

        While the controller does not answer, the last snapshot is returned: nothing new is known.
        """
        now = self._clock()
        if not fresh and now - self._last_query < self.interval:
            return self._last
        self._last_query = now
        # All states: the controller remembers ended jobs for MinJobAge (300 s) even without accounting.
        queue = self._runner(["squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "--format=%i|%T|%r|%j"])
        if queue.returncode != 0:
            self.last_error = queue.stderr.strip()
            return self._last
        jobs = parse_squeue(queue.stdout)
        forgotten = [job_id for job_id in job_ids if job_id not in jobs]
        complete = True
        if forgotten and self.accounting:
            command = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State,JobName"]
            accounting = self._runner([*command, f"--jobs={','.join(forgotten)}"])
            if accounting.returncode == 0:
                # A job the controller does not list is not running, even if the database never saw its end
                # ("runaway" jobs).
                past = parse_sacct(accounting.stdout)
                jobs.update({job_id: status for job_id, status in past.items() if status.state not in LIVE_STATES})
            elif accounting.returncode == 127 or "disabled" in accounting.stderr:
                self.accounting = False
            else:
                self.last_error, complete = accounting.stderr.strip(), False
        snapshot = Snapshot(taken=now, jobs=jobs, complete=complete)
        self._last = snapshot
        return snapshot  # not `self._last`: another thread may have replaced it
