"""Cancels jobs, and makes sure that a cancelled submission never starts (again).

A job must claim its submission (create CLAIM in the submission's folder) before it runs. Whoever holds the claim first
wins, so Snakemake can claim a submission itself and thereby block it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.job_state import is_live
from snakemake_executor_plugin_submitit.job_status_query import Runner, Snapshot, run_command
from snakemake_executor_plugin_submitit.records import CLAIM, Record

IDS_PER_COMMAND = 500
ENDING = ("COMPLETING", "STAGE_OUT")


def claimed_by(record: Record) -> str | None:
    """Return the id of the SLURM job that has started this submission, None if none has."""
    job_id = (read_json(record.path / CLAIM) or {}).get("job_id")
    return str(job_id) if job_id else None


def block_start(record: Record) -> str | None:
    """Prevent a submission that has not started from ever starting; return its job id if it has started."""
    job_id = claim(record.path / CLAIM, {"by": "snakemake"}).get("job_id")
    return str(job_id) if job_id else None


def revoke_claim(record: Record) -> str | None:
    """Prevent a submission from starting, or starting again; return its job id if it has started.

    SLURM may start a job again long after its end: an administrator requeues it, or the controller restarts from an
    older state.
    """
    job_id = block_start(record)
    write_json(record.path / CLAIM, {"by": "snakemake"})
    return job_id


class JobCancellation:
    """Calls `scancel`."""

    def __init__(self, runner: Runner = run_command) -> None:
        self._runner = runner

    def scancel(
        self, job_ids: Collection[str] = (), names: Collection[str] = (), pairs: Collection[tuple[str, str]] = ()
    ) -> str:
        """Cancel jobs by id, by name where no id is known, or by (id, name); return SLURM's error message, or ""."""
        errors = []
        ids = sorted(job_ids)
        commands = [["scancel", *ids[i : i + IDS_PER_COMMAND]] for i in range(0, len(ids), IDS_PER_COMMAND)]
        commands += [["scancel", f"--user={os.getuid()}", f"--name={name}"] for name in names]
        by_name: dict[str, list[str]] = {}  # the tasks of a job array have one name
        for job_id, name in pairs:
            by_name.setdefault(name, []).append(job_id)
        commands += [["scancel", f"--name={name}", *sorted(of_name)] for name, of_name in by_name.items()]
        for command in commands:
            for _ in range(3):
                answer = self._runner(command)
                failed = [line for line in answer.stderr.splitlines() if "error:" in line]
                # An invalid id has ended already; beside it, other jobs may not have been cancelled.
                if answer.returncode == 0 or (failed and all("Invalid job id" in line for line in failed)):
                    break
                time.sleep(1)
            else:
                errors.append(answer.stderr.strip())
        return "; ".join(errors)

    def discard(self, *records: Record) -> None:
        """Prevent submissions from starting again and cancel every job SLURM has for them."""
        names, pairs = set(), set()
        for record in records:
            if ids := {job_id for job_id in (record.job_id, revoke_claim(record)) if job_id}:
                pairs |= {(job_id, record.name) for job_id in ids}
            else:
                names.add(record.name)
        self.scancel(names=names, pairs=pairs)


class EndedJobs:
    """Jobs whose result has arrived, remembered until SLURM agrees that they have ended.

    A controller that restarts from an older state may list an ended job as running, or start it again: an orphan.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended_at: dict[tuple[str, str], float] = {}

    def add(self, record: Record) -> None:
        """Remember a job whose result has arrived."""
        if record.job_id is not None:
            self._ended_at[(record.job_id, record.name)] = self._clock()

    def pop_orphans(self, snapshot: Snapshot, seconds: float) -> list[tuple[str, str]]:
        """Return and forget the (id, name) of jobs that SLURM lists as live `seconds` after their end."""
        orphans = []
        for (job_id, name), ended_at in list(self._ended_at.items()):
            if snapshot.taken < ended_at or job_id not in snapshot.asked:
                continue
            status = snapshot.find(job_id, name)
            if status is None or not is_live(status.state):
                del self._ended_at[(job_id, name)]
            elif status.state in ENDING:  # a long epilog
                continue
            elif status.state == "PENDING" or snapshot.taken - ended_at >= seconds:
                orphans.append((job_id, name))
                del self._ended_at[(job_id, name)]
        return orphans

    def ids(self) -> list[str]:
        """Return the ids of the jobs that are remembered."""
        return [job_id for job_id, _ in list(self._ended_at)]
