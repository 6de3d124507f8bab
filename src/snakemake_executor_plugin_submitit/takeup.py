"""Deals with the submissions of earlier runs: follow them, withdraw them, or make sure they never start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.decide import LIVE_STATES
from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.records import CLAIM, Record, Records, key_of, signature_of
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
        stopped: set when Snakemake is stopping and nothing is to be waited for.
    """

    def __init__(
        self,
        records: Records,
        slurm: Slurm,
        patience: float,
        settle: Callable[[Record, str], None],
        logger: Any,
        stopped: threading.Event,
    ) -> None:
        self.records = records
        self.slurm = slurm
        self.patience = patience
        self.settle = settle
        self.logger = logger
        self.stopped = stopped

    def take_up(self, wanted: Record) -> Record | None:
        """Return the earlier submission that does the wanted work, or None when a new one may be made.

        Raises WorkflowError when SLURM does not answer, or does not end a submission that has to be withdrawn.
        """
        for record in self._rivals(wanted):
            self._put_away(record)
        own = self.records.load(wanted.key)
        if own is None:
            return None
        if own.signature == wanted.signature:
            if _finished(own) and all(Path(path).exists() for path in own.outputs):
                own.adopted = True
                return own
            if own.result() is None and not own.cancelled and self._resolve(own):
                own.adopted = True
                return own
        self._put_away(own)
        return None

    def find_id(self, record: Record) -> str | None:
        """Return the id of a submission whose answer from sbatch was lost, None when it never arrived.

        Raises WorkflowError when SLURM does not answer.
        """
        return claimed_by(record) or self._answer([]).id_of(record.name)

    def abandon(self, record: Record) -> str | None:
        """Make sure a submission that has not started never will; return its id if it has started."""
        holder = claim(record.path / CLAIM, {"by": "snakemake"})
        job_id = holder.get("job_id")
        return str(job_id) if job_id else None

    def revoke(self, record: Record) -> str | None:
        """Make sure a submission never starts, or starts again; return its id if it has started.

        SLURM may start a job again long after its end: an administrator requeues it, or the controller comes back
        with an older state.
        """
        holder = self.abandon(record)
        write_json(record.path / CLAIM, {"by": "snakemake"})
        return holder

    def give_up(self, record: Record) -> None:
        """Revoke a submission and cancel what SLURM still has of it."""
        holder = self.revoke(record)
        ids = {job_id for job_id in (record.job_id, holder) if job_id}
        self.slurm.cancel([], names=[] if ids else [record.name], pairs=[(job_id, record.name) for job_id in ids])

    def settle_finished(self, workflow: Any) -> None:
        """Give the outputs that were finished while no Snakemake was running their place in its memory.

        The job itself can only clear the mark "incomplete". Without the rest (code, parameters) Snakemake would never
        notice that a later change makes these files stale.
        """
        waiting = [record for record in self._left if _finished(record)]
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

    @cached_property
    def _left(self) -> list[Record]:
        """The records earlier runs have left for this directory (the folder may be shared with others)."""
        return [record for record in self.records.all() if key_of(record.outputs, "") == record.key]

    def _rivals(self, wanted: Record) -> list[Record]:
        """Return the earlier submissions under other keys that make some of the wanted files.

        A group whose first jobs are finished is a smaller group now, and a rule may have gained an output.
        """
        outputs = set(wanted.outputs)
        found = [left for left in self._left if left.key != wanted.key and outputs & set(left.outputs)]
        now = [(left, self.records.load(left.key)) for left in found]
        return [record for left, record in now if record is not None and record.uid == left.uid]

    def _put_away(self, record: Record) -> None:
        """Settle an earlier submission that has ended, withdraw any other."""
        result = record.result()
        if result is not None:
            self.settle(record, "finished" if result["outcome"] == "finished" else "failed")
        elif self._resolve(record):
            self._withdraw(record)
        else:
            self.settle(record, "failed")

    def _resolve(self, record: Record) -> bool:
        """Find the id of a submission that was cut short; return False after making sure it cannot start."""
        if record.job_id is None:
            record.job_id = self.find_id(record)
            if record.job_id is None:
                time.sleep(2)  # its sbatch may be under way: it outlives a killed Snakemake
                record.job_id = self.find_id(record) or self.abandon(record)
            if record.job_id is None:
                return False
            self.records.save(record)
        return True

    def _withdraw(self, record: Record) -> None:
        """Cancel a submission and wait for its end: its successor writes the same files."""
        self.logger.info(f"Job {record.job_id} of an earlier run is withdrawn ({record.rule}).")
        holder = self.revoke(record)
        if holder is not None and holder != record.job_id:  # sbatch was called twice: the other one is at work
            self.slurm.cancel([], pairs=[(str(record.job_id), record.name)])
            record.job_id = holder
            self.records.save(record)
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
            if self.stopped.wait(5):
                raise WorkflowError("Snakemake is stopping")


def _finished(record: Record) -> bool:
    return (record.result() or {}).get("outcome") == "finished"


def claimed_by(record: Record) -> str | None:
    """Return the id of the SLURM job that has started this submission, if one has."""
    job_id = (read_json(record.path / CLAIM) or {}).get("job_id")
    return str(job_id) if job_id else None
