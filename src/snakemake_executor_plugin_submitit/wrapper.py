"""The part that runs on the compute node: starts the command, passes on the warning, asks to be requeued.

submitit's own handlers do their work inside the signal handler, in the middle of waiting for the command, where
Python can no longer see it end. Here a handler only takes a note; the loop acts on it, and when the command has
stopped with its checkpoint written, it calls submitit's handler, which saves the job and has it requeued.
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

from snakemake_executor_plugin_submitit import processes
from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.records import CLAIM, REQUEUES, RESULT

BEAT = 15.0  # seconds between heartbeats
RESEND = 2.0  # seconds between warnings to a command that may have been starting up
STRAGGLERS = 60.0  # seconds a process may outlive its command after a warning, to write its checkpoint


@dataclass
class Job:
    """One Snakemake job as submitit runs it; all that changes is kept in files, for a requeue starts it anew.

    Attributes:
        uid, key, folder: as in the record of the submission.
        command: the shell command (an inner Snakemake).
        directory: where to run it.
        progress: glob of files whose content tells how far the work is; "": the job cannot resume.
        limit: requeues in a row without progress after which to give up.
        logs: the rule's log files, which Snakemake deletes before each start; they are kept beside the result.
    """

    uid: str
    key: str
    folder: str
    command: str
    directory: str
    progress: str = ""
    limit: int = 3
    logs: list[str] = field(default_factory=list)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what submitit is to run after the requeue: the same again."""
        return submitit.helpers.DelayedSubmission(self)

    def run(self) -> str:
        """Run the command to its end and return the outcome."""
        os.chdir(self.directory)
        return _Run(self).run()

    def __call__(self) -> NoReturn:
        """Run the command to its end and exit: with status 1 when the outcome is not a good one."""
        # Exiting keeps submitit from writing its own result, which nobody reads, into a folder that may be gone.
        sys.exit(1 if self.run() in ("failed", "stopped", "yielded") else 0)


def progress_token(pattern: str) -> str:
    """Return a hash of the files matching a glob; it changes exactly when the work has moved on."""
    token = hashlib.sha256()
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - the pattern may be absolute
        path = Path(name)
        try:
            status = path.stat()
            # Large files are told apart by size and time: reading gigabytes at each start would be absurd.
            content = path.read_bytes() if status.st_size < 1 << 20 else str(status).encode()
        except OSError:
            continue
        token.update(f"{name}\0".encode() + hashlib.sha256(content).digest())
    return token.hexdigest()


def count_idle(before: dict[str, Any] | None, token: str) -> dict[str, Any]:
    """Return the new requeue notes from those of the start before (None: this is the first) and today's token."""
    if before is None:
        return {"token": token, "idle": 0, "starts": 1}
    idle = before["idle"] + 1 if before["token"] == token else 0
    return {"token": token, "idle": idle, "starts": before["starts"] + 1}


def own_state(job_id: str) -> str | None:
    """Return SLURM's state of this job, None when SLURM does not answer."""
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
    return answer.stdout.strip() or None if answer.returncode == 0 else None


class _Run:
    """One start of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.job_id = os.environ["SLURM_JOB_ID"]
        self.mark = processes.job_mark(job.uid, self.job_id)
        self.number = 1 + len(list(self.folder.glob("attempt-*.json")))
        self.note: dict[str, Any] = {
            "job_id": self.job_id,
            "host": socket.gethostname(),
            "start": time.time(),
            "outcome": "running",
        }
        self.warned = False  # USR2: time is nearly up, or the node is wanted
        self.ending = False  # TERM: the job is being stopped
        self.requeue = signal.getsignal(signal.SIGUSR2)  # submitit's: save, `scontrol requeue`, exit
        signal.signal(signal.SIGUSR2, self._on_warning)
        signal.signal(signal.SIGTERM, self._on_end)

    def _on_warning(self, *_: object) -> None:
        self.warned = True

    def _on_end(self, *_: object) -> None:
        self.ending = True

    @property
    def stopping(self) -> bool:
        """Whether the command is expected to stop before its work is done."""
        return self.ending or (self.warned and bool(self.job.progress))

    def run(self) -> str:
        holder = claim(self.folder / CLAIM, {"by": "job", "job_id": self.job_id})
        if holder.get("job_id") != self.job_id:
            print(f"Not started: this submission is held by {holder}", flush=True)
            return "superseded"
        if (self.folder / RESULT).exists():
            print("Not started again: the result is already there", flush=True)
            return "repeated"
        self._write_note()
        requeues = count_idle(read_json(self.folder / REQUEUES), progress_token(self.job.progress))
        write_json(self.folder / REQUEUES, requeues)
        if requeues["idle"] >= self.job.limit:
            what = f"{self.job.progress} did not change" if self.job.progress else "it names no progress file"
            reason = f"requeued {requeues['idle']} times in a row without progress ({what})"
            return self._finish("failed", reason)
        left_over = processes.end_all(self.job.key)
        if left_over:
            print(f"Ended processes left by an earlier start: {left_over}", flush=True)
        status = self._wait(self._start())
        if status == 0:
            return self._finish("finished", "")
        if self.stopping:
            return self._yield(status)
        return self._finish("failed", f"its command ended with status {status}")

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "SNAKEMAKE_PROFILE" and not name.startswith("SUBMITIT_")
        }
        environment[processes.KEY_VARIABLE] = self.job.key
        environment[processes.JOB_VARIABLE] = self.mark
        return subprocess.Popen(
            ["bash", "-c", self.job.command],
            env=environment,
            # SLURM warns every process of the step. A shell or Snakemake would die of it: they start with the warning
            # ignored, and so does the training until it installs its handler.
            preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN) and None,
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        last_warning = float("-inf")
        last_beat = time.monotonic()
        stragglers_until: float | None = None
        while True:
            now = time.monotonic()
            if self.stopping and self.job.progress and now - last_warning >= RESEND:
                last_warning = now
                processes.send(processes.marked(self.mark, processes.JOB_VARIABLE), signal.SIGUSR2)
            if now - last_beat >= BEAT:
                last_beat = now
                with contextlib.suppress(OSError):  # a full disk is the command's business
                    self._write_note()
            if stragglers_until is None:
                try:
                    status = process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    continue
                stragglers_until = time.monotonic() + STRAGGLERS
            # The shell may have died of the signal before the training has written its checkpoint.
            elif not (
                self.stopping and now <= stragglers_until and processes.marked(self.mark, processes.JOB_VARIABLE)
            ):
                processes.end_all(self.mark, processes.JOB_VARIABLE)
                return status
            else:
                time.sleep(0.2)

    def _yield(self, status: int) -> str:
        """Keep the logs, then let SLURM or submitit requeue the job."""
        for log in self.job.logs:
            if Path(log).is_file():
                shutil.copyfile(log, self.folder / f"attempt-{self.number:03d}.{Path(log).name}")
        state = own_state(self.job_id)
        if state not in (None, "RUNNING"):
            # Cancelled, out of time or already requeued: SLURM has decided, and the executor will see what.
            self._write_note(outcome="stopped", end=time.time())
            print(f"Stopped with status {status}; SLURM says {state}", flush=True)
            return "stopped"
        self._write_note(outcome="yielded", end=time.time())
        print(f"Stopped early with status {status}; asking to be requeued", flush=True)
        # A kill during an earlier requeue can leave this file, which submitit then refuses to overwrite.
        for leftover in self.folder.glob("*.save_tmp"):
            leftover.unlink(missing_ok=True)
        if not callable(self.requeue):
            raise RuntimeError("submitit installed no handler for SIGUSR2")
        for remaining in reversed(range(6)):
            try:
                self.requeue(signal.SIGUSR2, None)  # ends this process
                break
            except (subprocess.SubprocessError, OSError) as error:
                print(f"Could not be requeued: {error}", flush=True)
                if remaining and own_state(self.job_id) in (None, "RUNNING"):
                    time.sleep(5)  # the controller may be restarting
                    continue
                break
        # "yielded" is on record: the executor submits the job again.
        return "yielded"

    def _finish(self, outcome: str, reason: str) -> str:
        self._write_note(outcome=outcome, end=time.time())
        write_json(
            self.folder / RESULT,
            {"uid": self.job.uid, "job_id": self.job_id, "outcome": outcome, "reason": reason},
        )
        print(f"{outcome}{': ' if reason else ''}{reason}", flush=True)
        return outcome

    def _write_note(self, **changes: Any) -> None:
        self.note.update(changes, beat=time.time())
        write_json(self.folder / f"attempt-{self.number:03d}.json", self.note)
