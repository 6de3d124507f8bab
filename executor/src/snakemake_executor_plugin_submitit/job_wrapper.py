"""Runs on the compute node: starts the command, forwards the warning signal, asks SLURM for the requeue.

submitit's own signal handlers work inside the handler, while the main program waits for the command, where Python
cannot observe that the command ends. Here a handler only sets a flag. The main loop acts on it, and once the command
has stopped with its checkpoint written, it calls submitit's handler, which saves the job and has it requeued.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import submitit

from snakemake_executor_plugin_submitit import job_usage, processes
from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.records import CLAIM, REQUEUES, RESULT

HEARTBEAT_INTERVAL = 15.0  # seconds
WARNING_INTERVAL = 2.0  # seconds between warnings; the command may still have been starting at the first one
STRAGGLER_TIMEOUT = 60.0  # seconds a process may outlive its command after a warning, to write its checkpoint


@dataclass
class Job:
    """One Snakemake job as submitit runs it. A requeue starts from this same pickle: all state is kept in files.

    Attributes:
        uid, key, folder: as in the record of the submission.
        command: the shell command (an inner Snakemake).
        directory: its working directory.
        progress: glob of files whose content changes with progress; "": the job cannot resume.
        limit: number of consecutive requeues without progress after which the job fails.
        mem_mb: the memory requested, in MB; 0: none.
        logs: the rule's log files, which Snakemake deletes before each start; copies are kept beside the result.
    """

    uid: str
    key: str
    folder: str
    command: str
    directory: str
    progress: str = ""
    limit: int = 3
    mem_mb: int = 0
    logs: list[str] = field(default_factory=list)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what submitit is to run after the requeue: the same job."""
        return submitit.helpers.DelayedSubmission(self)

    def run(self) -> str:
        """Run the command to its end and return the outcome."""
        os.chdir(self.directory)
        return _Start(self).run()

    def __call__(self) -> NoReturn:
        """Run the command to its end and exit, with status 1 unless the outcome is good."""
        # Exiting keeps submitit from writing its own result, which nobody reads, into a folder that may be deleted.
        sys.exit(1 if self.run() in ("failed", "stopped", "requeue_requested") else 0)


def progress_token(pattern: str) -> str:
    """Return a hash of the files matching a glob; it changes exactly when there was progress."""
    token = hashlib.sha256()
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - the pattern may be absolute
        path = Path(name)
        try:
            status = path.stat()
            # Large files are compared by size and time: they are too large to read at each start.
            content = path.read_bytes() if status.st_size < 1 << 20 else str(status).encode()
        except OSError:
            continue
        token.update(f"{name}\0".encode() + hashlib.sha256(content).digest())
    return token.hexdigest()


def count_idle(before: dict[str, Any] | None, token: str) -> dict[str, Any]:
    """Return the token, and how many requeues in a row left it as it was; `before`: the same of the previous start."""
    idle = before["idle"] + 1 if before is not None and before["token"] == token else 0
    return {"token": token, "idle": idle}


def query_state(job_id: str) -> str | None:
    """Return SLURM's state of a job, None if SLURM does not answer."""
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--format=%T", f"--jobs={job_id}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = answer.stdout.split()  # with SLURM_CLUSTERS some versions print the cluster's name first
    return words[-1] if words and answer.returncode == 0 else None


def own_id() -> str:
    """Return the id of the SLURM job this is, as squeue prints it: `7`, or `7_0` for a task of a job array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


class _Start:
    """One start of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.job_id = own_id()
        self.marker = processes.job_marker(job.uid, self.job_id)
        self.number = 1 + len(list(self.folder.glob("attempt-*.json")))
        self.note: dict[str, Any] = {
            "job_id": self.job_id,
            "host": socket.gethostname(),
            "start": time.time(),
            "outcome": "running",
        }
        self.usage = job_usage.Usage(self.marker)
        self.log = next(self.folder.glob(f"*_{self.job_id}_log.out"), None)
        self.log_start = self.log.stat().st_size if self.log is not None else 0
        self.warned = False  # USR2: the time limit is near, or the job is being preempted
        self.terminated = False  # TERM: the job is being ended
        self.requeue_handler = signal.getsignal(signal.SIGUSR2)  # submitit's: save, `scontrol requeue`, exit
        signal.signal(signal.SIGUSR2, self._on_warning)
        signal.signal(signal.SIGTERM, self._on_termination)

    def _on_warning(self, *_: object) -> None:
        self.warned = True

    def _on_termination(self, *_: object) -> None:
        self.terminated = True

    @property
    def stopping(self) -> bool:
        """Whether the command is expected to stop before its work is done."""
        return self.terminated or (self.warned and bool(self.job.progress))

    def run(self) -> str:
        holder = claim(self.folder / CLAIM, {"by": "job", "job_id": self.job_id})
        if holder.get("job_id") != self.job_id:
            print(f"Not started: this submission is claimed by {holder}", flush=True)
            return "superseded"
        if (self.folder / RESULT).exists():
            print("Not started again: the result exists already", flush=True)
            return "repeated"
        self._write_note()
        requeues = count_idle(read_json(self.folder / REQUEUES), progress_token(self.job.progress))
        write_json(self.folder / REQUEUES, requeues)
        if requeues["idle"] >= max(1, self.job.limit):
            what = f"{self.job.progress} did not change" if self.job.progress else "it names no progress file"
            reason = f"requeued {requeues['idle']} times in a row without progress ({what})"
            return self._finish("failed", reason)
        left_over = processes.kill_marked(self.job.key)
        if left_over:
            print(f"Killed processes left by an earlier start: {left_over}", flush=True)
        status = self._wait(self._start_command())
        if status == 0:
            return self._finish("finished", "")
        if self.stopping:
            return self._stop_early(status)
        status = job_usage.own_status(status, self.log, self.log_start)
        return self._finish(
            "failed",
            job_usage.reason_of(status, job_usage.oom_kills(os.environ["SLURM_JOB_ID"]), self.usage, self.job.mem_mb),
        )

    def _start_command(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "SNAKEMAKE_PROFILE" and not name.startswith("SUBMITIT_")
        }
        environment[processes.KEY_VARIABLE] = self.job.key
        environment[processes.JOB_VARIABLE] = self.marker
        return subprocess.Popen(
            ["bash", "-c", self.job.command],
            env=environment,
            # SLURM signals every process of the step. By default a shell or Snakemake would die of USR2: they start
            # with it ignored, and so does the training until it installs its handler.
            preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN) and None,
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the command, forwarding warnings and writing heartbeats; return its exit status."""
        last_warning = float("-inf")
        last_heartbeat = time.monotonic()
        stragglers_until: float | None = None
        while True:
            now = time.monotonic()
            if self.stopping and self.job.progress and now - last_warning >= WARNING_INTERVAL:
                last_warning = now
                marked = processes.find_marked(self.marker, processes.JOB_VARIABLE)
                processes.send_signal(marked, signal.SIGUSR2)
            if now - last_heartbeat >= HEARTBEAT_INTERVAL:
                last_heartbeat = now
                with contextlib.suppress(OSError):  # a full disk is for the command to report
                    self._write_note()
            if stragglers_until is None:
                try:
                    status = process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    continue
                stragglers_until = time.monotonic() + STRAGGLER_TIMEOUT
            # The shell may have died of the signal before the training has written its checkpoint.
            elif not (
                self.stopping and now <= stragglers_until and processes.find_marked(self.marker, processes.JOB_VARIABLE)
            ):
                processes.kill_marked(self.marker, processes.JOB_VARIABLE)
                return status
            else:
                time.sleep(0.2)

    def _stop_early(self, status: int) -> str:
        """Keep the logs, then let SLURM or submitit requeue the job."""
        for log in self.job.logs:
            name = os.path.relpath(log, self.job.directory).replace(os.sep, "_")
            with contextlib.suppress(OSError):  # not written yet, or no room for a copy: the requeue matters more
                shutil.copyfile(log, self.folder / f"log-{self.number:03d}.{name}")
        state = query_state(self.job_id)
        if state not in (None, "RUNNING"):
            # Cancelled, timed out or requeued already: the executor will see which.
            self._write_note(outcome="stopped", end=time.time())
            print(f"Stopped with status {status}; SLURM's state is {state}", flush=True)
            return "stopped"
        self._write_note(outcome="requeue_requested", end=time.time())
        print(f"Stopped early with status {status}; requesting a requeue", flush=True)
        # A kill during an earlier requeue can leave this file, which submitit then refuses to overwrite.
        for leftover in self.folder.glob("*.save_tmp"):
            leftover.unlink(missing_ok=True)
        if not callable(self.requeue_handler):
            raise RuntimeError("submitit installed no handler for SIGUSR2")
        for remaining in reversed(range(6)):
            try:
                self.requeue_handler(signal.SIGUSR2, None)  # ends this process
                break
            except (subprocess.SubprocessError, OSError) as error:
                print(f"Could not be requeued: {error}", flush=True)
                if remaining and query_state(self.job_id) in (None, "RUNNING"):
                    time.sleep(5)  # the controller may be restarting
                    continue
                break
        # The note says "requeue_requested": if no requeue happens, the executor submits the job again.
        return "requeue_requested"

    def _finish(self, outcome: str, reason: str) -> str:
        self._write_note(outcome=outcome, end=time.time())
        write_json(
            self.folder / RESULT,
            {"uid": self.job.uid, "job_id": self.job_id, "outcome": outcome, "reason": reason},
        )
        print(f"{outcome}{': ' if reason else ''}{reason}", flush=True)
        return outcome

    def _write_note(self, **changes: Any) -> None:
        self.note.update(changes, **self.usage.sample(), beat=time.time())
        write_json(self.folder / f"attempt-{self.number:03d}.json", self.note)
