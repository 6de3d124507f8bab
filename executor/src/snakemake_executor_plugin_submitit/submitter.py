"""Gets jobs into SLURM's queue: as job arrays, again while SLURM is silent, later while its queue is full."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import job_cancellation, job_submission
from snakemake_executor_plugin_submitit.job_monitor import JobMonitor
from snakemake_executor_plugin_submitit.job_status_query import Complaints
from snakemake_executor_plugin_submitit.job_wrapper import Job
from snakemake_executor_plugin_submitit.reattach import PreviousRun
from snakemake_executor_plugin_submitit.records import Record, comment_of, name_jobs
from snakemake_executor_plugin_submitit.waiting import WaitingRoom

STOPPING = "Snakemake is stopping"


@dataclass
class Submission:
    """What is to be submitted: a Snakemake job, its record, what runs on the node, and submitit's parameters."""

    job: Any
    record: Record
    task: Job
    parameters: dict[str, Any]


def equal(submissions: Iterable[Submission]) -> list[list[Submission]]:
    """Return the submissions in groups of one rule and the same parameters, each of which can be a job array."""
    groups: dict[str, list[Submission]] = {}
    for submission in submissions:
        key = json.dumps([submission.record.rule, submission.parameters], sort_keys=True, default=str)
        groups.setdefault(key, []).append(submission)
    return list(groups.values())


def message_of(error: Exception) -> str:
    """Return an exception's message, with its class unless it is one of Snakemake's own."""
    return str(error) if isinstance(error, WorkflowError) else f"{type(error).__name__}: {error}"


@dataclass(eq=False)
class Submitter:
    """Calls sbatch.

    Args:
        previous: finds a job by its name; it has the records and Snakemake's logger.
        waiting: jobs for which the queue has no room.
        monitor: is to monitor what SLURM has accepted.
        complaints: says once that SLURM does not answer.
        live: the submissions that may be in SLURM's queue, by key.
        lock: guards `live`.
        keep: whether jobs continue when Snakemake stops.
        array_size: the largest job array; 1: none.
    """

    previous: PreviousRun
    waiting: WaitingRoom
    monitor: JobMonitor
    complaints: Complaints
    live: dict[str, Record]
    lock: threading.RLock
    keep: bool
    array_size: int

    def __post_init__(self) -> None:
        self.array_size = max(1, self.array_size)
        self.stopped = self.previous.stopped

    def submit(self, batch: list[Submission]) -> list[str]:
        """Submit jobs of equal parameters, or let them wait for room in the queue; return each one's error, or ""."""
        if len(batch) > self.array_size:
            return self._in_parts(batch, self.array_size)
        try:
            if not len(self.waiting) or self.waiting.due():
                return self._submit_now(batch)
        except job_submission.RefusedError as refusal:  # of an array only
            if "array" in str(refusal).lower():  # MaxArraySize, or none at all
                self.array_size = len(batch) // 2
                self.previous.logger.info(
                    f"SLURM refuses an array of {len(batch)} jobs ({refusal}): smaller ones from now on."
                )
            return self._in_parts(batch, self.array_size if self.array_size < len(batch) else 1)
        except job_submission.FullError as full:
            if len(batch) > 1:  # there may be room for some of them
                return self._in_parts(batch, len(batch) // 2)
            if self.waiting.is_news(full):
                self.previous.logger.warning(
                    f"SLURM's queue is full for us ({full}): jobs wait here until others have ended."
                )
            if error := self.waiting.refused(full, others=bool(self.live)):
                return [error]
        except Exception as exception:  # one that left the executor would make Snakemake cancel all jobs
            return [message_of(exception)] * len(batch)
        with self.lock:
            if self.stopped.is_set():
                return [STOPPING] * len(batch)
            for submission in batch:
                self.waiting.add(submission.record)
        return [""] * len(batch)

    def _in_parts(self, batch: list[Submission], size: int) -> list[str]:
        return [error for i in range(0, len(batch), size) for error in self.submit(batch[i : i + size])]

    def _submit_now(self, batch: list[Submission]) -> list[str]:
        """Submit jobs as one, waiting for SLURM if necessary; return each one's error, or "".

        Raises FullError when SLURM's queue has no room, and RefusedError when SLURM takes no such array; then there is
        neither a job nor a record on disk.
        """
        records = [submission.record for submission in batch]
        name_jobs(records)
        for record in records:
            record.path.mkdir(parents=True, exist_ok=True)
        with self.lock:
            if self.stopped.is_set():
                return [STOPPING] * len(batch)
            self.live.update({record.key: record for record in records})
        try:
            # Saved before sbatch is called: if Snakemake is killed from here on, the next run knows what to look for.
            for record in records:
                self.previous.records.save(record)
            error = self._call_sbatch(batch)
        except (job_submission.FullError, job_submission.RefusedError):
            with self.lock:
                for record in records:
                    self.live.pop(record.key, None)
            for record in records:
                self.previous.records.delete(record)
            raise
        except Exception as exception:
            error = message_of(exception)
        for record in records:
            if (
                record.job_id is None and not self.stopped.is_set()
            ):  # it may have reached SLURM, and started, all the same
                record.job_id = job_cancellation.block_start(record)
        with self.lock:
            if not self.stopped.is_set():
                return [self._settle(record, error) for record in records]
        # `cancel_jobs` may have run before sbatch answered.
        for record in records:
            record.cancelled = not self.keep
            self.previous.records.save(record)
        if not self.keep:
            self.previous.cancellation.discard(*records)
        return [STOPPING] * len(batch)

    def _settle(self, record: Record, error: str) -> str:
        if record.job_id is None:
            self.previous.archive(record, "failed")
            return error
        self.previous.records.save(record)
        self.monitor.start(record)
        return ""

    def _call_sbatch(self, batch: list[Submission]) -> str:
        """Call sbatch until SLURM answers, and note the jobs' ids; return the error, or "".

        Raises WorkflowError when SLURM does not answer, FullError when the jobs are certainly not in SLURM's queue,
        RefusedError for an array only.
        """
        records = [submission.record for submission in batch]
        parameters = dict(batch[0].parameters)
        parameters["additional_parameters"] = {"comment": comment_of(records)} | parameters["additional_parameters"]
        deadline = time.monotonic() + self.previous.patience
        lost = False  # an answer: the job may be in the queue, and its record is needed until that is known
        while not self.stopped.is_set():
            ids: list[str] = []
            try:
                ids = job_submission.submit([submission.task for submission in batch], records[0].name, parameters)
            except job_submission.RefusedError as refusal:
                if len(batch) > 1 and not lost:
                    raise
                return f"SLURM refuses the job: {refusal}"
            except job_submission.FullError:
                if not lost:
                    raise
                deadline = time.monotonic() + self.previous.patience
            except job_submission.UnreachableError as error:
                # The job may have reached SLURM. A second copy would find the claim taken and end at once.
                lost = True
                self.complaints.report("SLURM", str(error))
            if not ids:
                if time.monotonic() > deadline:
                    return f"SLURM did not answer for {self.previous.patience} s"
                self.stopped.wait(5)
                if found := self.previous.find_id(records[0]):
                    array = found.partition("_")[0]
                    ids = [found] if len(batch) == 1 else [f"{array}_{record.task}" for record in records]
            if ids:
                for record, job_id in zip(records, ids, strict=True):
                    record.job_id = job_id
                self.complaints.report("SLURM", "")
                return ""
        return STOPPING
