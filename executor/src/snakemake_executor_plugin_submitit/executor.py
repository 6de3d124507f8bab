"""The executor: submits Snakemake's jobs, monitors them, and reattaches to them after Snakemake was killed."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit import efficiency, files, job_cancellation, job_submission, ledger, partitions
from snakemake_executor_plugin_submitit.job_monitor import JobMonitor
from snakemake_executor_plugin_submitit.job_state import Verdict
from snakemake_executor_plugin_submitit.job_status_query import Complaints, JobStatusQuery, Snapshot
from snakemake_executor_plugin_submitit.reattach import PreviousRun
from snakemake_executor_plugin_submitit.records import REQUEUES, Record, Records
from snakemake_executor_plugin_submitit.submitter import Submission, Submitter, equal, message_of
from snakemake_executor_plugin_submitit.waiting import WaitingRoom

LEAST = {"requeue_limit": 0, "signal_delay": 1, "controller_patience": 0, "array_size": 0}
"""Smallest value of each setting that is a number."""


class Executor(RemoteExecutor):  # type: ignore[misc]
    """Runs each Snakemake job, or group of jobs, as one SLURM job through submitit."""

    def __post_init__(self) -> None:
        if shutil.which("sbatch") is None:
            raise WorkflowError("the submitit executor needs SLURM: there is no `sbatch` on the PATH")
        settings = self.workflow.executor_settings
        remote = self.workflow.remote_execution_settings
        self.root = Path(settings.folder or ".snakemake/submitit").absolute()
        # In UTC: the ledgers are read in the order of their names, and the last line about a start counts.
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        self.records = Records(self.root)
        interval = float(remote.seconds_between_status_checks)
        if settings.on_interrupt not in ("cancel", "keep"):
            raise WorkflowError(f"submitit-on-interrupt must be cancel or keep, not {settings.on_interrupt!r}")
        for name, least in LEAST.items():
            if (number := getattr(settings, name)) < least:
                raise WorkflowError(f"submitit-{name.replace('_', '-')} must be {least} or more, not {number}")
        if clusters := settings.clusters or os.environ.get("SBATCH_CLUSTERS"):
            os.environ["SLURM_CLUSTERS"] = clusters  # obeyed by squeue, sacct and scancel too
        os.environ["SLURM_BITSTR_LEN"] = "0"  # sacct cuts the list of an array's tasks at 64 bytes by default
        self.partitions = partitions.parse(settings.partitions or "")
        self.complaints = Complaints(self.logger)
        self.status_query = JobStatusQuery(interval, self.complaints)
        self.waiting = WaitingRoom(interval, settings.controller_patience)
        self.cancellation = job_cancellation.JobCancellation()
        self.monitor = JobMonitor(patience=float(self.workflow.execution_settings.latency_wait))
        self.stopped = threading.Event()
        self.keep = settings.on_interrupt == "keep"
        self.previous = PreviousRun(
            self.records,
            self.status_query,
            self.cancellation,
            settings.controller_patience,
            self.archive,
            self.logger,
            self.stopped,
        )
        # Snakemake's own list is empty while a status check runs, which is when Ctrl-C may come: keep another.
        self.live: dict[str, Record] = {}
        # Results that have arrived, but that Snakemake has not entered in its own metadata yet.
        self.unconfirmed: dict[JobExecutorInterface, Record] = {}
        self.records_lock = threading.RLock()
        self.submitter = Submitter(
            self.previous,
            self.waiting,
            self.monitor,
            self.complaints,
            self.live,
            self.records_lock,
            self.keep,
            settings.array_size,
        )
        self.ended = job_cancellation.EndedJobs()
        # Result files are checked every second (less often with very many jobs), SLURM at the interval above.
        self.next_seconds_between_status_checks = 1
        self.previous.mark_finished(self.workflow)

    # --- submission -------------------------------------------------------------------------------------

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit the jobs that are ready, equal ones as job arrays."""
        for job in jobs:
            self.run_job_pre(job)
        self._run(jobs)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job, or reattach to the submission a previous run has made for the same work."""
        self._run([job])

    def _run(self, jobs: list[JobExecutorInterface]) -> None:
        new = []
        for job in jobs:
            try:
                record = job_submission.new_record(job, self.records)
                previous = self.previous.reattach(record)
                if previous is None:
                    new.append(self._submission(job, record))
            except Exception as exception:  # one that left this method would make Snakemake cancel all jobs
                self._report_refused(SubmittedJobInfo(job), message_of(exception))
                continue
            if previous is not None:
                self._take_up(job, previous)
        for batch in equal(new):
            for submission, error in zip(batch, self.submitter.submit(batch), strict=True):
                if error:
                    self._report_refused(SubmittedJobInfo(submission.job), error)
                    continue
                if submission.record.job_id is not None:
                    self._say_submitted(submission.record)
                self.report_job_submission(self._info(submission.job, submission.record))

    def _take_up(self, job: JobExecutorInterface, record: Record) -> None:
        with self.records_lock:
            self.live[record.key] = record
        self.monitor.start(record)
        self.logger.info(f"Reattached to job {record.job_id} of a previous run ({record.rule}): log {record.log}")
        self.report_job_submission(self._info(job, record))

    def _report_refused(self, info: SubmittedJobInfo, error: str) -> None:
        self.report_job_error(info, msg=f"{error}. ")

    def _say_submitted(self, record: Record) -> None:
        self.logger.info(f"Job {record.job_id} submitted ({record.rule}): log {record.log}")

    def _info(self, job: JobExecutorInterface, record: Record) -> SubmittedJobInfo:
        return SubmittedJobInfo(job, external_jobid=record.job_id, aux={"key": record.key})

    def _submission(self, job: JobExecutorInterface, record: Record) -> Submission:
        settings = self.workflow.executor_settings
        parameters = job_submission.sbatch_parameters(
            dict(job.resources.items()), job.threads, settings.signal_delay, settings.setup, self.partitions
        )
        # The jobs of a group share what was allocated, not the whole node.
        command = f"{self.format_job_exec(job)} --cores {parameters['cpus_per_task']}"
        return Submission(job, record, job_submission.task_of(job, record, command, settings.requeue_limit), parameters)

    def _submit(self, job: JobExecutorInterface, record: Record) -> str:
        """Submit a job, or let it wait for room; return the error, or ""."""
        try:
            return self.submitter.submit([self._submission(job, record)])[0]
        except Exception as exception:  # as in `_run`
            return message_of(exception)

    def _admit(self, held: list[SubmittedJobInfo]) -> Iterator[SubmittedJobInfo]:
        """Submit the jobs that wait for room in the queue, in order, until it is full again; yield the live ones."""
        for info in held:
            record = self.waiting.get(info.aux["key"])
            if record is None:  # Snakemake is stopping
                continue
            if not self.waiting.due():
                yield info
                continue
            error = self._submit(info.job, record)
            if error or record.job_id is not None:
                self.waiting.remove(record.key)
            if not error:
                if record.job_id is not None:
                    info.job.register(external_jobid=record.job_id)
                    self._say_submitted(record)
                yield self._info(info.job, record)
            elif not self.stopped.is_set():
                self._report_refused(info, error)

    def get_job_exec_prefix(self, job: JobExecutorInterface) -> str:
        """Run the inner Snakemake where this one was started, so that relative paths mean the same."""
        return f"cd {shlex.quote(str(self.workflow.workdir_init))}"

    # --- monitoring -------------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that have ended, resubmit interrupted ones, yield those that are still live."""
        if not active_jobs:
            return
        self.next_seconds_between_status_checks = max(1, len(active_jobs) // 100)
        async with self.status_rate_limiter:
            with self.records_lock:
                ids = [record.job_id for record in self.live.values() if record.job_id]
            snapshot = self.status_query.snapshot([*ids, *self.ended.ids()])
        self._cancel_orphans(snapshot)
        held, trouble = [], ""
        for info in active_jobs:
            with self.records_lock:
                record = self.live.get(info.aux["key"])
            if record is None:  # it waits for room in the queue, or was cancelled meanwhile
                held.append(info)
                continue
            try:
                live = self._check(info, record, snapshot)
            except OSError as error:  # one that left this method would make Snakemake cancel all jobs
                live, trouble = info, str(error)
            if live is not None:
                yield live
        self.complaints.report("The file system", trouble)
        if trouble:
            self.next_seconds_between_status_checks = max(10, self.next_seconds_between_status_checks)
        for info in self._admit(held):
            yield info

    def _check(self, info: SubmittedJobInfo, record: Record, snapshot: Snapshot) -> SubmittedJobInfo | None:
        """Report a job that has ended, resubmit an interrupted one; return what is to be checked again, if any.

        Raises OSError when a file cannot be read or written (full disk, stale handle); the call may be repeated.
        """
        decision = self.monitor.check(record, snapshot)
        verdict = decision.verdict
        if verdict in (Verdict.FAILED, Verdict.RESUBMIT) and record.result() is None:
            holder = job_cancellation.claimed_by(record)
            if holder is not None and holder != record.job_id:
                self._follow_copy(record, holder)
                return self._info(info.job, record)
            if record.reattached:
                verdict = Verdict.RESUBMIT  # it failed under a previous run; this run is asked to run it
        if verdict is not Verdict.LIVE:
            self.waiting.job_ended()
        if verdict is Verdict.FINISHED:
            self.ended.add(record)
            with self.records_lock:
                self.live.pop(record.key, None)
                self.unconfirmed[info.job] = record
            self.report_job_success(info)
            return None
        if verdict is Verdict.FAILED:
            self._fail(info, record, decision.reason)
            return None
        if verdict is Verdict.RESUBMIT and not self.stopped.is_set():
            return self._resubmit(info, record, decision.reason)
        if reason := self.monitor.unusual_wait(record, snapshot):
            self.logger.warning(f"Job {record.job_id} ({record.rule}) is waiting; SLURM's reason: {reason}")
        return info

    def _cancel_orphans(self, snapshot: Snapshot, seconds: float = 30.0) -> None:
        """Cancel jobs that SLURM still lists as live long after their end, or has put in the queue again."""
        if orphans := self.ended.pop_orphans(snapshot, seconds):
            self.logger.warning(f"SLURM lists ended jobs as live; they are cancelled: {orphans}")
            self.cancellation.scancel(pairs=orphans)

    def _follow_copy(self, record: Record, job_id: str) -> None:
        """Monitor the SLURM job that has started a submission instead of the one that is on record.

        sbatch was called twice because its first answer was lost; the copy that came second has ended at once.
        """
        self.logger.info(f"Job {record.job_id} ({record.rule}) was a second copy; {job_id} is running")
        record.job_id = job_id
        self.records.save(record)
        self.monitor.start(record)

    def _fail(self, info: SubmittedJobInfo, record: Record, reason: str) -> None:
        log = record.log
        if record.result() is None:
            self.cancellation.discard(record)
        self.archive(record, "failed")
        if info.job.is_group():  # Snakemake's error report of a group leaves the message out
            self.logger.error(f"Job {record.job_id} ({record.rule}) failed: {reason}. Log: {log}")
        self.report_job_error(info, msg=f"SLURM job {record.job_id}: {reason}. ", aux_logs=[log])

    def _resubmit(self, info: SubmittedJobInfo, old: Record, reason: str) -> SubmittedJobInfo | None:
        """Submit an interrupted job again; its count of requeues without progress is carried over."""
        failed_starts = 0 if old.attempts() else old.failed_starts + 1
        if failed_starts > self.workflow.executor_settings.requeue_limit:
            self._fail(info, old, f"{reason}; it was lost {failed_starts} times in a row before it started")
            return None
        self.logger.warning(f"Job {old.job_id} ({old.rule}) is submitted again: {reason}")
        self.cancellation.discard(old)
        self.archive(old, "requeued")
        try:
            record = job_submission.new_record(info.job, self.records)
            record.failed_starts = failed_starts
            requeues = files.read_json(old.path / REQUEUES)
            if requeues is not None:
                files.write_json(record.path / REQUEUES, requeues)
            error = self._submit(info.job, record)
        except Exception as exception:
            error = message_of(exception)
        if not error:
            return self._info(info.job, record)
        if not self.stopped.is_set():
            self._report_refused(info, error)
        return None

    # --- ended jobs -------------------------------------------------------------------------------------

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        """Archive a job's submission, now that Snakemake has its outputs in its own metadata."""
        super().handle_job_success(job)
        self._archive_confirmed(job, "finished")

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        """Archive a job's submission whose outputs Snakemake found missing."""
        super().handle_job_error(job)
        self._archive_confirmed(job, "failed")

    def _archive_confirmed(self, job: JobExecutorInterface, outcome: str) -> None:
        with self.records_lock:
            record = self.unconfirmed.pop(job, None)
        if record is None:
            return
        try:
            self.archive(record, outcome)
        except OSError as error:  # here too an exception would make Snakemake cancel all jobs; the next run archives it
            self.logger.warning(f"Job {record.job_id} ({record.rule}) cannot be entered in the ledger: {error}")

    def archive(self, record: Record, outcome: str) -> None:
        """Enter a submission that has ended in the ledger, delete its record and stop monitoring it."""
        self._write_ledger(record, outcome)
        self.records.delete(record)
        self.monitor.stop(record)
        with self.records_lock:
            if self.live.get(record.key) is record:
                del self.live[record.key]
        if outcome == "finished" and not self.workflow.executor_settings.keep_successful_logs:
            shutil.rmtree(record.path, ignore_errors=True)

    def _write_ledger(self, record: Record, outcome: str) -> None:
        path = self.root / "ledger" / f"{self.run_id}.jsonl"
        ledger.append(path, ledger.lines_of(record, outcome, self.run_id))

    # --- stopping ---------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Stop as the base class does, but cancel orphans first, and delete nothing that a pending job needs."""
        with self.lock:
            self.wait = False
        self.wait_thread.join()
        if self.ended.ids() and not self.stopped.is_set():
            self._cancel_orphans(self.status_query.snapshot(self.ended.ids(), fresh=True))
        try:
            for warning in efficiency.report(self.root, self.run_id):
                self.logger.warning(warning)
        except OSError as error:
            self.logger.warning(f"The efficiency report cannot be written: {error}")
        if self.live:
            # After an error in Snakemake. The base class would delete a folder that pending jobs need.
            self.logger.warning(f"{len(self.live)} jobs continue without Snakemake; the next run reattaches to them.")
        else:
            super().shutdown()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all live jobs, including those missing from Snakemake's own list, or leave them to the next run."""
        with self.records_lock:
            self.stopped.set()
            if waiting := self.waiting.clear():
                self.logger.info(f"{waiting} jobs that waited for room in SLURM's queue are not submitted.")
            if self.keep:
                return
            records = list(self.live.values())
            self.live.clear()
        if ended := self.ended.ids():
            self._cancel_orphans(self.status_query.snapshot(ended, fresh=True), seconds=5.0)
        error = self.cancellation.scancel(
            [record.job_id for record in records if record.job_id],
            {record.name for record in records if not record.job_id},
        )
        copies = [pair for record in records if (pair := self._release(record)) is not None]
        if copies:
            error = error or self.cancellation.scancel(pairs=copies)
        if error:
            self.logger.error(
                f"SLURM could not be told to cancel ({error}). These jobs may still be running; the next run "
                f"deals with them: {' '.join(str(record.job_id) for record in records)}"
            )

    def _release(self, record: Record) -> tuple[str, str] | None:
        """Mark a submission as cancelled; return (id, name) of another job that has started it, if any."""
        if record.result() is not None:
            return None  # it ended by itself just before: the next run finds its result
        record.cancelled = True
        try:
            self.records.save(record)  # the next run waits for its end before it submits the same work again
            holder = job_cancellation.revoke_claim(record)
            self._write_ledger(record, "cancelled")
        except OSError as error:  # a full disk, for example; the other jobs have to be cancelled too
            self.logger.error(f"Job {record.job_id} ({record.rule}): {error}")
            return None
        return None if holder in (None, record.job_id) else (str(holder), record.name)
