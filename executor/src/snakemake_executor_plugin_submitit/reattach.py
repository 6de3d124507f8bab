"""Deals with the submissions of previous runs: reattach to them, cancel them, or make sure they never start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.job_cancellation import (
    JobCancellation,
    block_start,
    claimed_by,
    revoke_claim,
)
from snakemake_executor_plugin_submitit.job_state import is_live
from snakemake_executor_plugin_submitit.job_status_query import JobStatusQuery, Snapshot
from snakemake_executor_plugin_submitit.records import Record, Records, key_of, signature_of

Answer = TypeVar("Answer")

CANCEL_TIMEOUT = 180.0  # seconds a cancelled job may take to end (SLURM's KillWait is 30 s by default)


@dataclass(eq=False)
class PreviousRun:
    """The submissions left by previous runs of Snakemake.

    Args:
        records: their records.
        status_query: SLURM's view of them.
        cancellation: cancels those that are no longer wanted.
        patience: seconds to wait for a controller that does not answer; guessing could run a job twice.
        archive: enters a submission that has ended in the ledger and deletes its record.
        logger: Snakemake's logger.
        stopped: set when Snakemake is stopping and there must be no more waiting.
    """

    records: Records
    status_query: JobStatusQuery
    cancellation: JobCancellation
    patience: float
    archive: Callable[[Record, str], None]
    logger: Any
    stopped: threading.Event
    _outlived: bool = field(default=False, init=False)

    def reattach(self, wanted: Record) -> Record | None:
        """Return the previous submission that does the wanted work, or None if a new one may be made.

        Raises WorkflowError when SLURM does not answer, or does not end a submission that has to be cancelled.
        """
        for record in self._overlapping(wanted):
            self._discard(record)
        previous = self.records.load(wanted.key)
        if previous is None:
            return None
        if previous.signature == wanted.signature:
            if _finished(previous) and all(Path(path).exists() for path in previous.outputs):
                previous.reattached = True
                return previous
            if previous.result() is None and not previous.cancelled and self._find_or_block(previous):
                previous.reattached = True
                return previous
        self._discard(previous)
        return None

    def find_id(self, record: Record) -> str | None:
        """Return the job id of a submission for which sbatch's answer was lost, None if it never reached SLURM.

        Raises WorkflowError when SLURM does not answer.
        """
        if started := claimed_by(record):
            return started
        ids = self._answer(lambda: self.status_query.ids_named(record.name))
        task = "" if record.task is None else f"_{record.task}"
        return next((job_id for job_id in ids if not task or job_id.endswith(task)), None)

    def mark_finished(self, workflow: Any) -> None:
        """Enter outputs that were finished while no Snakemake was running in Snakemake's own metadata.

        The job itself can only clear the mark "incomplete". Without the rest (code, parameters) Snakemake would never
        notice that a later change makes these files outdated.
        """
        finished = [record for record in self._leftover if _finished(record)]
        if not finished:
            return
        needed = set(workflow.dag.needrun_jobs())
        job_of = {str(path): job for job in workflow.dag.jobs for path in job.output}
        for record in finished:
            jobs = {job_of.get(path) for path in record.outputs}
            if not jobs or None in jobs or jobs & needed:
                continue
            if record.signature == signature_of(jobs):
                for job in jobs:
                    workflow.async_run(workflow.persistence.finished(job))
                self.archive(record, "finished")
                self.logger.info(f"Job {record.job_id} ({record.rule}) finished while Snakemake was not running.")
            else:
                self.logger.warning(
                    f"{record.outputs[0]} was finished by a previous run with different code, parameters or inputs; "
                    f"run Snakemake with --forcerun {record.outputs[0]} to update it."
                )

    @cached_property
    def _leftover(self) -> list[Record]:
        """The records previous runs have left for this directory (other directories may share the folder)."""
        return [record for record in self.records.all() if key_of(record.outputs, "") == record.key]

    @cached_property
    def _by_output(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self._leftover:
            for path in record.outputs:
                found.setdefault(path, []).append(record)
        return found

    def _overlapping(self, wanted: Record) -> list[Record]:
        """Return the previous submissions under other keys that write some of the wanted files.

        A group whose first jobs are finished is a smaller group now, and a rule may have gained an output.
        """
        candidates = {record.uid: record for path in wanted.outputs for record in self._by_output.get(path, ())}
        found = [record for record in candidates.values() if record.key != wanted.key]
        current = [(record, self.records.load(record.key)) for record in found]
        return [now for record, now in current if now is not None and now.uid == record.uid]

    def _discard(self, record: Record) -> None:
        """Archive a previous submission if it has ended, otherwise cancel it."""
        result = record.result()
        if result is not None:
            self.archive(record, "finished" if result["outcome"] == "finished" else "failed")
        elif self._find_or_block(record):
            self._cancel_and_wait(record)
        else:
            self.archive(record, "failed")

    def _find_or_block(self, record: Record) -> bool:
        """Find the job id of an interrupted submission; if there is none, make sure it cannot start: False."""
        if record.job_id is None:
            record.job_id = self.find_id(record)
            if record.job_id is None:
                self._outlive_sbatch()
                record.job_id = self.find_id(record) or block_start(record)
            if record.job_id is None:
                return False
            self.records.save(record)
        return True

    def _outlive_sbatch(self) -> None:
        """Wait, once in a run, for an sbatch that may still be running: it survives a killed Snakemake."""
        if not self._outlived:
            time.sleep(2)
            self._outlived = True

    def _cancel_and_wait(self, record: Record) -> None:
        """Cancel a submission and wait until it has ended: its successor writes the same files."""
        self.logger.info(f"Job {record.job_id} of a previous run is cancelled ({record.rule}).")
        started = revoke_claim(record)
        if started is not None and started != record.job_id:  # sbatch was called twice: the other copy is running
            self.cancellation.scancel(pairs=[(str(record.job_id), record.name)])
            record.job_id = started
            self.records.save(record)
        deadline = time.monotonic() + CANCEL_TIMEOUT
        job_id = str(record.job_id)
        while (status := self._fresh_snapshot([job_id]).find(job_id, record.name)) and is_live(status.state):
            if status.state != "COMPLETING":
                self.cancellation.scancel([job_id])
            if time.monotonic() > deadline:
                raise WorkflowError(f"SLURM job {job_id} does not end although it was cancelled; is its node down?")
            time.sleep(1)
        self.archive(record, "cancelled")

    def _fresh_snapshot(self, job_ids: list[str]) -> Snapshot:
        """Return a fresh answer from SLURM, waiting for its controller if necessary."""

        def ask() -> Snapshot | None:
            asked = time.monotonic()
            snapshot = self.status_query.snapshot(job_ids, fresh=True)
            return snapshot if snapshot.taken >= asked and snapshot.asked.issuperset(job_ids) else None

        return self._answer(ask)

    def _answer(self, ask: Callable[[], Answer | None]) -> Answer:
        """Ask until the controller answers; raises WorkflowError after `patience` seconds or when stopping."""
        deadline = time.monotonic() + self.patience
        while (answer := ask()) is None:
            if time.monotonic() > deadline:
                raise WorkflowError(f"SLURM did not answer for {self.patience} s: {self.status_query.last_error}")
            if self.stopped.wait(5):
                raise WorkflowError("Snakemake is stopping")
        return answer


def _finished(record: Record) -> bool:
    return (record.result() or {}).get("outcome") == "finished"
