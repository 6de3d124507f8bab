"""Queries SLURM for the state of our jobs: one `squeue` for all, `sacct` only for jobs that squeue has forgotten."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakemake_executor_plugin_submitit.job_state import is_live, normalise

COMMAND_TIMEOUT = 30  # seconds; while the controller is down SLURM's commands can hang for minutes
IDS_PER_COMMAND = 5000  # one argument may have 128 KiB
_TASKS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")  # `5`, `0-3` or `0-20:2`


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
        asked: ids of the jobs that were asked for; nothing is known of any other.
        jobs: job id -> status.
        complete: False if the query failed for some jobs: that a job is missing then means nothing.
    """

    taken: float = float("-inf")
    asked: frozenset[str] = frozenset()
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    complete: bool = False

    def find(self, job_id: str | None, name: str) -> JobStatus | None:
        """Return the status of a job. SLURM reuses job ids, so the name has to match as well."""
        status = self.jobs.get(job_id or "")
        return status if status is not None and status.name == name else None


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Parse the output of `squeue --array --format=%i|%T|%r|%j`; a task of a job array is `7_0`."""
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4:
            jobs[fields[0]] = JobStatus(state=normalise(fields[1]), name=fields[3], reason=fields[2])
    return jobs


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Parse the output of `sacct --parsable2 --format=JobID,State,JobName`; job steps (`7.batch`) are skipped.

    Tasks of a job array that never started share a line: `7_[0-3,5%4]`. A list that sacct has cut ends in `...`.
    """
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 2)
        array, several, tasks = fields[0].partition("_[")
        if len(fields) == 3 and "." not in array:
            status = JobStatus(state=normalise(fields[1]), name=fields[2])
            for part in tasks.rstrip("]").partition("%")[0].split(",") if several else ():
                if found := _TASKS.fullmatch(part):
                    first, last, step = found.groups()
                    span = range(int(first), int(last or first) + 1, int(step or 1))
                    jobs.update({f"{array}_{task}": status for task in span})
            if not several:
                jobs[array] = status
    return jobs


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands; one that is missing, cannot be started or does not answer has failed."""
    # In a session of its own: Ctrl-C in the terminal is meant for Snakemake, which then still needs the answer.
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT,
            check=False,
            start_new_session=True,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    except OSError as error:  # a login node without a free process or memory, for example
        return subprocess.CompletedProcess(command, 126, "", f"{command[0]} cannot be started: {error}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} gave no answer within {COMMAND_TIMEOUT} s")


def _batches(job_ids: Collection[str]) -> Iterator[str]:
    ids = sorted({job_id.partition("_")[0] for job_id in job_ids})  # an array's id stands for all of its tasks
    for start in range(0, len(ids), IDS_PER_COMMAND):
        yield ",".join(ids[start : start + IDS_PER_COMMAND])


class Complaints:
    """Says once that one of SLURM's services does not answer, and once more when it answers again."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._silent: set[str] = set()

    def report(self, service: str, error: str) -> None:
        """Report the outcome of a query; `error` is "" when the service has answered."""
        if error and service not in self._silent:
            self._silent.add(service)
            self._logger.warning(f"{service} does not answer, trying again: {error.splitlines()[-1]}")
        elif not error and service in self._silent:
            self._silent.discard(service)
            self._logger.info(f"{service} answers again.")


class JobStatusQuery:
    """Queries SLURM at most once per `interval` seconds, however many jobs there are.

    Attributes:
        accounting: whether sacct is usable; True until sacct says otherwise.
        last_error: SLURM's error message when the last query failed, "" when it was answered.
    """

    def __init__(
        self,
        interval: float,
        complaints: Complaints,
        runner: Runner = run_command,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self.accounting = True
        self.last_error = ""
        self._complaints = complaints
        self._runner = runner
        self._clock = clock
        self._last_query = float("-inf")
        self._last = Snapshot()

    def snapshot(self, job_ids: Collection[str], fresh: bool = False) -> Snapshot:
        """Return the newest snapshot, querying again when the last query is `interval` seconds old.

        While the controller does not answer, the last snapshot is returned: nothing new is known. A `fresh` one is the
        caller's own and asks only for its jobs: it is not kept for others.
        """
        now = self._clock()
        if not fresh:
            if now - self._last_query < self.interval:
                return self._last
            self._last_query = now
        jobs: dict[str, JobStatus] = {}
        for batch in _batches(job_ids):
            if (listed := self._squeue(f"--jobs={batch}")) is None:
                return self._last
            jobs |= listed
        forgotten = [job_id for job_id in job_ids if job_id not in jobs]
        complete = True
        for batch in _batches(forgotten) if self.accounting else ():
            command = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,JobName"]
            accounting = self._runner([*command, f"--jobs={batch}"])
            if accounting.returncode != 0:
                if accounting.returncode == 127 or "disabled" in accounting.stderr:
                    self.accounting = False
                    break
                self._complaints.report("SLURM's accounting", _error_of(accounting))
                complete = False
                break
            self._complaints.report("SLURM's accounting", "")
            # A job the controller does not list is not running, even if the database never saw its end
            # ("runaway" jobs).
            past = parse_sacct(accounting.stdout)
            jobs.update({job_id: status for job_id, status in past.items() if not is_live(status.state)})
        snapshot = Snapshot(taken=now, asked=frozenset(job_ids), jobs=jobs, complete=complete)
        if not fresh:
            self._last = snapshot
        return snapshot  # not `self._last`: another thread may have replaced it

    def ids_named(self, name: str) -> list[str] | None:
        """Return the ids of the jobs with this name; None: the controller does not answer."""
        jobs = self._squeue(f"--name={name}")
        return None if jobs is None else sorted(jobs)

    def _squeue(self, which: str) -> dict[str, JobStatus] | None:
        # All states: the controller remembers ended jobs for MinJobAge (300 s) even without accounting. With the user
        # it sends that user's jobs only; the ids alone are sorted out by squeue, from the whole cluster's.
        command = ["squeue", f"--user={os.getuid()}", "--states=all", "--array", "--noheader", "--format=%i|%T|%r|%j"]
        answer = self._runner([*command, which])
        # A single id is asked for by another way, which knows this error.
        unknown = answer.returncode != 0 and "Invalid job id" in answer.stderr
        self.last_error = "" if answer.returncode == 0 or unknown else _error_of(answer)
        self._complaints.report("SLURM", self.last_error)
        return None if self.last_error else parse_squeue(answer.stdout)


def _error_of(answer: subprocess.CompletedProcess[str]) -> str:
    return answer.stderr.strip() or f"{answer.args[0]} ended with status {answer.returncode}"
