"""Finds and kills the processes of one job on this node, including those whose parent has been killed.

Each job's command runs with two markers in its environment, which all descendants inherit. Without cgroups SLURM
loses track of a process once its parent is gone; the environment stays.
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
JOB_VARIABLE = "SNAKEMAKE_SUBMITIT_JOB"  # one submission in one SLURM job: `job_marker`


def job_marker(uid: str, job_id: str) -> str:
    """Return the value of JOB_VARIABLE for a submission that runs as this SLURM job."""
    return f"{uid}-{job_id}"


def find_marked(value: str, variable: str = KEY_VARIABLE) -> list[int]:
    """Return the ids of the running processes that carry this marker, except the calling process."""
    marker = f"{variable}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # Another user's processes cannot be read, and a zombie's environment is empty.
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def send_signal(pids: Iterable[int], signum: int) -> None:
    """Send a signal to processes, ignoring those that have ended meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def kill_marked(value: str, variable: str = KEY_VARIABLE, timeout: float = 10.0) -> list[int]:
    """Kill every process that carries this marker, wait up to `timeout` seconds for their end, return those found."""
    found: set[int] = set()
    deadline = time.monotonic() + timeout
    while (pids := find_marked(value, variable)) and time.monotonic() < deadline:
        found.update(pids)
        send_signal(pids, signal.SIGKILL)
        time.sleep(0.1)
    return sorted(found)


def main() -> None:
    """Kill the processes a failed job has left behind; the batch script calls this with the job's own marker."""
    # Not by the key: a later submission for the same outputs may already be running on this node.
    for pid in kill_marked(sys.argv[1], JOB_VARIABLE):
        print(f"killed left-over process {pid}")
