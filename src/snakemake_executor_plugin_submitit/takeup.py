"""Deals with the submissions of earlier runs: follow them, withdraw them, or make sure they never start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.decide import LIVE_STATES
from snakemake_executor_plugin_submitit.files import claim, read_json
from snakemake_executor_plugin_submitit.records import CLAIM, Record, Records, signature_of
from snakemake_executor_plugin_submitit.slurm import Slurm, Snapshot

WITHDRAWAL = 180.0  # seconds a cancelled job may take to end (KillWait is 30 s by default)


class Earlier:
    """The submissions of earlier runs.

    Args:
        records: where they are written down.
        slurm: whom to ask about them.
        patience: seconds to wait for a controller that does not answer; guessing could start a job twice.
        settle: enters a submission that has ended in the ledger and forgets it.
        logger: Snakemake's.
    """

    def __init__(
        self, records: Records, slurm: Slurm, patience: float, settle: Callable[[Record, str], None], logger: Any
    ) -> None:
        self.records = records
        self.slurm = slurm
        self.patience = patience
        self.settle = settle
        self.logger = logger

    def take_up(self, wanted: Record) -> Record | None:
        """Return the earlier submission that does the wanted work, or None when a new one may be made."""
        record = self.records.load(wanted.key)
        if record is None:
            return None
        result = record.result()
        same = record.signature == wanted.signature and not record.cancelled
        if result is not None:
            if same and result["outcome"] == "finished" and all(Path(path).exists() for path in record.outputs):
                record.adopted = True
                return record
            self.settle(record, "finished" if result["outcome"] == "finished" else "failed")
            return None
        if record.job_id is None:
            record.job_id = self._resolve(record)
            if record.job_id is None:
                self.settle(record, "failed")
                return None
            self.records.save(record)
        if not same:
            self._withdraw(record)
            return None
        record.adopted = True
        return record

    def find_id(self, record: Record) -> str | None:
        """Return the id of a submission whose answer from sbatch was lost, None when it never arrived."""
        holder = _claimed_by(record)
        if holder is not None:
            return holder
        return self._answer([]).id_of(record.name)

    def abandon(self, record: Record) -> str | None:
        """Make sure a submission that has not started never will; return its id if it has started."""
        holder = claim(record.path / CLAIM, {"by": "snakemake"})
        job_id = holder.get("job_id")
        return str(job_id) if job_id else None

    def settle_finished(self, workflow: Any) -> None:
        """Give the outputs that were finished while no Snakemake was running their place in its memory.

        The job itself can only clear the mark "incomplete". Without the rest (code, parameters) Snakemake would never
        notice that a later change makes these files stale.
        """
        waiting = [record for record in self.records.all() if _finished(record) and not record.cancelled]
        if not waiting:
            return
        needed = set(workflow.dag.needrun_jobs())
        maker = {str(path): job for job in workflow.dag.jobs for path in job.output}
        for record in waiting:
            jobs = {maker.get(path) for path in record.outputs}
            if not jobs or None in jobs or jobs & needed:
                continue
            if record.signature == signature_of(jobs):
                for job in jobs:
                    workflow.async_run(workflow.persistence.finished(job))
                self.settle(record, "finished")
                self.logger.info(f"Job {record.job_id} ({record.rule}) finished while Snakemake was away.")
            else:
                self.logger.warning(
                    f"{record.outputs[0]} was finished by an earlier run whose code, parameters or inputs differ "
                    f"from today's; run Snakemake with --forcerun {record.outputs[0]} to renew it."
                )

    def _resolve(self, record: Record) -> str | None:
        """Return the id of a submission that was cut short, or None after making sure it cannot start."""
        job_id = self.find_id(record)
        if job_id is None:
            time.sleep(2)  # its sbatch may be under way: it outlives a killed Snakemake
            job_id = self.find_id(record)
        return job_id or self.abandon(record)

    def _withdraw(self, record: Record) -> None:
        """Cancel a submission and wait for its end: its successor writes the same files."""
        self.logger.info(f"Job {record.job_id} of an earlier run is withdrawn ({record.rule}).")
        deadline = time.monotonic() + WITHDRAWAL
        job_id = str(record.job_id)
        while (row := self._answer([job_id]).find(job_id, record.name)) and row.state in LIVE_STATES:
            if row.state != "COMPLETING":
                self.slurm.cancel([job_id])
            if time.monotonic() > deadline:
                raise WorkflowError(f"SLURM job {job_id} does not end although it was cancelled; is its node down?")
            time.sleep(1)
        self.settle(record, "cancelled")

    def _answer(self, job_ids: list[str]) -> Snapshot:
        """Return a fresh answer from SLURM, waiting for its controller if need be."""
        deadline = time.monotonic() + self.patience
        while True:
            asked = time.monotonic()
            snapshot = self.slurm.snapshot(job_ids, fresh=True)
            if snapshot.taken >= asked:
                return snapshot
            if time.monotonic() > deadline:
                raise WorkflowError(f"SLURM did not answer for {self.patience} s: {self.slurm.complaint}")
            self.logger.warning(f"Waiting for SLURM: {self.slurm.complaint}")
            time.sleep(5)


def _finished(record: Record) -> bool:
    return (record.result() or {}).get("outcome") == "finished"


def _claimed_by(record: Record) -> str | None:
    """Return the id of the SLURM job that has started this submission, if one has."""
    job_id = (read_json(record.path / CLAIM) or {}).get("job_id")
    return str(job_id) if job_id else None
