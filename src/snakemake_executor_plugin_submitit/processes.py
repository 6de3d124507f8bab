"""Find and stop the processes of one job on this node, even those whose parent has been killed.

Each job's command runs with its key in the environment, which all its descendants inherit. SLURM installations
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

KEY_VARIABLE = "SNAKEMAKE_SUBMITIT_KEY"


def marked(key: str) -> list[int]:
    """Return the ids of the running processes that carry `key`, without the calling process."""
    mark = f"{KEY_VARIABLE}={key}".encode()
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


def end_all(key: str, patience: float = 10.0) -> list[int]:
    """Kill every process that carries `key` and wait until they are gone; return those that were found."""
    found: set[int] = set()
    deadline = time.monotonic() + patience
    while (pids := marked(key)) and time.monotonic() < deadline:
        found.update(pids)
        send(pids, signal.SIGKILL)
        time.sleep(0.1)
    return sorted(found)


def main() -> None:
    """End whatever a broken job has left behind; the batch script calls this with the job's key."""
    for process in end_all(sys.argv[1]):
        print(f"ended left-over process {process}")
