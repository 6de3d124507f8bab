"""Find and stop the processes of one job on this node, even those whose parent has been killed.

Each job's command runs with two marks in the environment, which all its descendants inherit. SLURM installations
without cgroups lose sight of a process once its parent is gone; the environment does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

KEY_VARIABLE = "SNAKEMAKE_SUBMITIT_KEY"  # shared by all submissions of the same outputs
JOB_VARIABLE = "SNAKEMAKE_SUBMITIT_JOB"  # one submission in one SLURM job: `job_mark`


def job_mark(uid: str, job_id: str) -> str:
    """Return the value of JOB_VARIABLE for a submission that runs as this SLURM job."""
    return f"{uid}-{job_id}"


def marked(value: str, variable: str = KEY_VARIABLE) -> list[int]:
    """Return the ids of the running processes that carry this mark, without the calling process."""
    mark = f"{variable}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # Another user's processes cannot be read, and a zombie's environment is empty.
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to processes, some of which may have ended meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def end_all(value: str, variable: str = KEY_VARIABLE, patience: float = 10.0) -> list[int]:
    """Kill every process that carries this mark, wait up to `patience` seconds for their end, return those found."""
    found: set[int] = set()
    deadline = time.monotonic() + patience
    while (pids := marked(value, variable)) and time.monotonic() < deadline:
        found.update(pids)
        send(pids, signal.SIGKILL)
        time.sleep(0.1)
    return sorted(found)


def main() -> None:
    """End whatever a broken job has left behind; the batch script calls this with the job's own mark."""
    # Not the key: a successor that makes the same outputs may be at work on this node already.
    for process in end_all(sys.argv[1], JOB_VARIABLE):
        print(f"ended left-over process {process}")
