"""The executor: submits Snakemake's jobs, follows them, and takes them up again after Snakemake was killed."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit import files, ledger, submission
from snakemake_executor_plugin_submitit.decide import Verdict
from snakemake_executor_plugin_submitit.records import (
    REQUEUES,
    Record,
    Records,
    key_of,
    new_uid,
    plain,
    signature_of,
    singles,
)
from snakemake_executor_plugin_submitit.slurm import Slurm, Snapshot
from snakemake_executor_plugin_submitit.takeup import Earlier, claimed_by
from snakemake_executor_plugin_submitit.watch import Finished, Watch
from snakemake_executor_plugin_submitit.wrapper import Job

# A job in the queue of a healthy cluster waits for one of these.
ORDINARY_REASONS = frozenset({"", "None", "Priority", "Resources", "BeginTime", "Dependency", "JobArrayTaskLimit"})


class Executor(RemoteExecutor):  # type: ignore[misc]
    """Runs each Snakemake job, or group of jobs, as one SLURM job through submitit."""

    def __post_init__(self) -> None:
        if shutil.which("sbatch") is None:
            raise WorkflowError("the submitit executor needs SLURM: there is no `sbatch` on the PATH")
        settings = self.workflow.executor_settings
        remote = self.workflow.remote_execution_settings
        self.root = Path(settings.folder or ".snakemake/submitit").absolute()
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        self.records = Records(self.root)
        self.slurm = Slurm(interval=float(remote.seconds_between_status_checks))
        self.watch = Watch(patience=float(self.workflow.execution_settings.latency_wait))
        self.stopped = threading.Event()
        self.earlier = Earlier(
            self.records, self.slurm, settings.controller_patience, self.settle, self.logger, self.stopped
        )
        # Snakemake's own list is empty while a status check runs, just when Ctrl-C may come: keep another.
        self.live: dict[str, Record] = {}
        # Their results are in, but Snakemake has not entered them in its own memory yet.
        self.done: dict[JobExecutorInterface, Record] = {}
        self.guard = threading.RLock()
        self.finished = Finished()
        self.told: set[tuple[str, str]] = set()
        # Result files are looked at every second (more seldom with very many jobs), SLURM at the interval above.
        self.next_seconds_between_status_checks = 1
        self.earlier.settle_finished(self.workflow)

    # --- submitting -------------------------------------------------------------------------------------

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job, or follow the submission an earlier run has made for the same work."""
        info = SubmittedJobInfo(job)
        try:
            record = self._describe(job)
            found = self.earlier.take_up(record)
            error = self._submit(job, record) if found is None else ""
        except Exception as trouble:  # an exception that left this method would make Snakemake cancel all jobs
            error = _words(trouble)
        if error:
            self.report_job_error(info, msg=f"{error}. ")
            return
        if found is None:
            self.logger.info(f"Job {record.job_id} submitted ({record.rule}): log {record.log}")
        else:
            record = found
            with self.guard:
                self.live[record.key] = record
            self.watch.begin(record)
            self.logger.info(f"Job {record.job_id} of an earlier run is taken up ({record.rule}): log {record.log}")
        self.report_job_submission(self._info(job, record))

    def _info(self, job: JobExecutorInterface, record: Record) -> SubmittedJobInfo:
        return SubmittedJobInfo(job, external_jobid=record.job_id, aux={"key": record.key})

    def _describe(self, job: JobExecutorInterface) -> Record:
        """Return the record a new submission of this job would have."""
        uid = new_uid()
        rule = str(job.groupid) if job.is_group() else str(job.rule.name)
        rule = "group" if job.is_group() and len(rule) == 36 else rule  # an unnamed group has a UUID for a name
        parts = singles(job)
        wildcards = {
            str(name): str(value)
            for single in reversed(parts)
            for name, value in single.wildcards_dict.items()
            if all(other.wildcards_dict.get(name, value) == value for other in parts)
        }
        outputs = [str(path) for single in parts for path in single.output]
        resources = dict(job.resources.items())
        return Record(
            key=key_of(outputs, f"{rule} {wildcards}"),
            uid=uid,
            name=f"{plain(rule)[:40]}-{uid}",
            folder=str(self.records.new_folder(rule, wildcards, uid)),
            signature=signature_of(parts),
            rule=rule,
            wildcards=wildcards,
            outputs=outputs,
            gpus=submission.gpus_of(resources),
            cpus=submission.cpus_of(resources, job.threads),
            checkpointable=bool(resources.get("slurm_progress")),
        )

    def _submit(self, job: JobExecutorInterface, record: Record) -> str:
        """Submit a job under a record, waiting for SLURM if need be; return why it cannot be, or ""."""
        settings = self.workflow.executor_settings
        resources = dict(job.resources.items())
        parameters = submission.sbatch_parameters(resources, job.threads, settings.signal_delay, settings.setup)
        task = Job(
            uid=record.uid,
            key=record.key,
            folder=record.folder,
            # In a group the jobs share what was allocated, not the whole node.
            command=f"{self.format_job_exec(job)} --cores {parameters['cpus_per_task']}",
            directory=str(Path.cwd()),
            progress=_absolute(str(resources.get("slurm_progress") or "")),
            limit=settings.requeue_limit,
            logs=[str(Path(str(log)).absolute()) for single in singles(job) for log in single.log],
        )
        record.path.mkdir(parents=True, exist_ok=True)
        with self.guard:
            if self.stopped.is_set():
                return "Snakemake is stopping"
            self.live[record.key] = record
        try:
            self.records.save(record)  # first: if Snakemake is killed from here on, the next run knows what to look for
            error = self._send(task, record, parameters)
        except Exception as trouble:
            error = _words(trouble)
        if record.job_id is None and not self.stopped.is_set():
            record.job_id = self.earlier.abandon(record)  # it may have arrived, and started, all the same
        with self.guard:
            if not self.stopped.is_set():
                if record.job_id is None:
                    self.settle(record, "failed")
                    return error
                self.records.save(record)
                self.watch.begin(record)
                return ""
        # `cancel_jobs` may have been there before sbatch's answer.
        record.cancelled = True
        self.records.save(record)
        self.earlier.give_up(record)
        return "Snakemake is stopping"

    def _send(self, task: Job, record: Record, parameters: dict[str, Any]) -> str:
        """Call sbatch until SLURM answers, and note the job's id; return why there is none, or "".

        Raises WorkflowError when SLURM does not answer.
        """
        patience = self.workflow.executor_settings.controller_patience
        deadline = time.monotonic() + patience
        while not self.stopped.is_set():
            try:
                record.job_id = submission.submit(task, record.name, parameters)
            except submission.RefusedError as refusal:
                return f"SLURM refuses the job: {refusal}"
            except submission.UnreachableError as trouble:
                # It may have arrived all the same. A second copy would find the claim taken and end at once.
                self.logger.warning(f"SLURM does not answer, trying again: {str(trouble).splitlines()[-1:]}")
                if time.monotonic() > deadline:
                    return f"SLURM did not answer for {patience} s"
                self.stopped.wait(5)
                record.job_id = self.earlier.find_id(record)
            if record.job_id is not None:
                return ""
        return "Snakemake is stopping"

    def get_job_exec_prefix(self, job: JobExecutorInterface) -> str:
        """Run the inner Snakemake where this one was started; relative paths mean the same there."""
        return f"cd {shlex.quote(str(self.workflow.workdir_init))}"

    # --- following --------------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that have ended, submit interrupted ones again, yield those still under way."""
        if not active_jobs:
            return
        self.next_seconds_between_status_checks = max(1, len(active_jobs) // 100)
        async with self.status_rate_limiter:
            with self.guard:
                ids = [record.job_id for record in self.live.values() if record.job_id]
            snapshot = self.slurm.snapshot(ids)
        if self.slurm.complaint:
            self.logger.warning(f"SLURM: {self.slurm.complaint}")
            self.slurm.complaint = ""
        self._lay_ghosts(snapshot)
        for info in active_jobs:
            with self.guard:
                record = self.live.get(info.aux["key"])
            if record is None:  # cancelled meanwhile
                continue
            decision = self.watch.judge(record, snapshot)
            verdict = decision.verdict
            if verdict in (Verdict.FAILED, Verdict.LOST) and record.result() is None:
                holder = claimed_by(record)
                if holder is not None and holder != record.job_id:
                    self._follow(record, holder)
                    yield self._info(info.job, record)
                    continue
                if record.adopted:
                    verdict = Verdict.LOST  # it failed in an earlier run: what was asked for now is to run it
            if verdict is Verdict.DONE:
                self.finished.add(record)
                with self.guard:
                    self.live.pop(record.key, None)
                    self.done[info.job] = record
                self.report_job_success(info)
            elif verdict is Verdict.FAILED:
                self._fail(info, record, decision.reason)
            elif verdict is Verdict.LOST:
                again = self._again(info, record, decision.reason)
                if again is not None:
                    yield again
            else:
                self._tell_waiting(record, snapshot)
                yield info

    def _lay_ghosts(self, snapshot: Snapshot, seconds: float = 30.0) -> None:
        """Cancel jobs that SLURM still lists as live long after their end, or has put in the queue again."""
        if ghosts := self.finished.ghosts(snapshot, seconds):
            self.logger.warning(f"SLURM lists ended jobs as live; they are cancelled: {ghosts}")
            self.slurm.cancel([], pairs=ghosts)

    def _tell_waiting(self, record: Record, snapshot: Snapshot) -> None:
        """Say once that a job waits for something that may never come."""
        row = snapshot.find(record.job_id, record.name)
        if row is None or row.state != "PENDING" or (record.uid, row.reason) in self.told:
            return
        if row.reason not in ORDINARY_REASONS:
            self.told.add((record.uid, row.reason))
            self.logger.warning(f"Job {record.job_id} ({record.rule}) is waiting; SLURM gives as reason: {row.reason}")

    def _follow(self, record: Record, job_id: str) -> None:
        """Follow the SLURM job that has started a submission instead of the one that is known.

        sbatch was called twice because its first answer was lost; the copy that came second has ended at once.
        """
        self.logger.info(f"Job {record.job_id} ({record.rule}) was a second copy; {job_id} is at work")
        record.job_id = job_id
        self.records.save(record)
        self.watch.begin(record)

    def _fail(self, info: SubmittedJobInfo, record: Record, reason: str) -> None:
        log = record.log
        if record.result() is None:
            self.earlier.give_up(record)
        self.settle(record, "failed")
        # A group's error report leaves the message out.
        self.logger.error(f"Job {record.job_id} ({record.rule}) failed: {reason}. Log: {log}")
        self.report_job_error(info, msg=f"SLURM job {record.job_id}: {reason}. ", aux_logs=[log])

    def _again(self, info: SubmittedJobInfo, old: Record, reason: str) -> SubmittedJobInfo | None:
        """Submit an interrupted job anew; its count of requeues without progress goes on."""
        lost = 0 if old.attempts() else old.lost + 1
        if lost > self.workflow.executor_settings.requeue_limit:
            self._fail(info, old, f"{reason}; it was lost {lost} times in a row before it started")
            return None
        self.logger.warning(f"Job {old.job_id} ({old.rule}) is submitted again: {reason}")
        self.earlier.give_up(old)
        self.settle(old, "requeued")
        try:
            record = self._describe(info.job)
            record.lost = lost
            notes = files.read_json(old.path / REQUEUES)
            if notes is not None:
                files.write_json(record.path / REQUEUES, notes)
            error = self._submit(info.job, record)
        except Exception as trouble:
            error = _words(trouble)
        if not error:
            return self._info(info.job, record)
        if not self.stopped.is_set():
            self.report_job_error(info, msg=f"{error}. ")
        return None

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        """Forget a job's submission, now that Snakemake has it in its own memory."""
        super().handle_job_success(job)
        self._settle_done(job, "finished")

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        """Forget a job's submission whose outputs Snakemake has missed."""
        super().handle_job_error(job)
        self._settle_done(job, "failed")

    def _settle_done(self, job: JobExecutorInterface, outcome: str) -> None:
        with self.guard:
            record = self.done.pop(job, None)
        if record is None:
            return
        try:
            self.settle(record, outcome)
        except OSError as error:  # here too an exception would make Snakemake cancel all jobs; the next run settles it
            self.logger.warning(f"Job {record.job_id} ({record.rule}) cannot be entered in the ledger: {error}")

    def settle(self, record: Record, outcome: str) -> None:
        """Enter a submission that has come to its end in the ledger, and forget it."""
        self._enter(record, outcome)
        self.records.drop(record)
        self.watch.end(record)
        with self.guard:
            if self.live.get(record.key) is record:
                del self.live[record.key]
        if outcome == "finished" and not self.workflow.executor_settings.keep_successful_logs:
            shutil.rmtree(record.path, ignore_errors=True)

    def _enter(self, record: Record, outcome: str) -> None:
        path = self.root / "ledger" / f"{self.run_id}.jsonl"
        ledger.append(path, ledger.lines_of(record, outcome, self.run_id))

    def shutdown(self) -> None:
        """End as the base class does, but leave no ghost in the queue, and nothing missing that a job needs."""
        with self.lock:
            self.wait = False
        self.wait_thread.join()
        if len(self.finished) and not self.stopped.is_set():
            self._lay_ghosts(self.slurm.snapshot([], fresh=True))
        if self.live:
            # After an error in Snakemake. The base class would delete a folder that pending jobs wait for.
            self.logger.warning(f"{len(self.live)} jobs go on without Snakemake; the next run takes them up.")
        else:
            super().shutdown()

    # --- stopping ---------------------------------------------------------------------------------------

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel everything under way, whatever Snakemake's own list says."""
        with self.guard:
            self.stopped.set()
            records = list(self.live.values())
            self.live.clear()
        if len(self.finished):
            self._lay_ghosts(self.slurm.snapshot([], fresh=True), seconds=5.0)
        complaint = self.slurm.cancel(
            [record.job_id for record in records if record.job_id],
            [record.name for record in records if not record.job_id],
        )
        others = [pair for record in records if (pair := self._forsake(record)) is not None]
        if others:
            complaint = complaint or self.slurm.cancel([], pairs=others)
        if complaint:
            self.logger.error(
                f"SLURM could not be told to cancel ({complaint}). These jobs may still be running; the next run "
                f"deals with them: {' '.join(str(record.job_id) for record in records)}"
            )

    def _forsake(self, record: Record) -> tuple[str, str] | None:
        """Note that a submission was cancelled; return id and name of another job that has started it, if any."""
        if record.result() is not None:
            return None  # it came to its own end just before: the next run finds its result
        record.cancelled = True
        try:
            self.records.save(record)  # the next run waits for its end before it submits the same work again
            holder = self.earlier.revoke(record)
            self._enter(record, "cancelled")
        except OSError as error:  # such as a full disk; the other jobs have to be cancelled too
            self.logger.error(f"Job {record.job_id} ({record.rule}): {error}")
            return None
        return None if holder in (None, record.job_id) else (str(holder), record.name)


def _absolute(pattern: str) -> str:
    """Return a glob relative to the working directory as an absolute one."""
    return str(Path.cwd() / pattern) if pattern else ""


def _words(error: Exception) -> str:
    """Return what an exception says, and its kind unless it is one of Snakemake's own."""
    return str(error) if isinstance(error, WorkflowError) else f"{type(error).__name__}: {error}"
