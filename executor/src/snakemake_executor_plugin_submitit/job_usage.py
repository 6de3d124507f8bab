"""On the compute node: what a job's command used, and why it died."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from pathlib import Path

from snakemake_executor_plugin_submitit import processes
from snakemake_executor_plugin_submitit.job_state import signal_of, signal_words

# What a shell, and a Snakemake whose own exit status is always 1, print of the command they ran.
_DIED = re.compile(r"died with <Signals\.\w+: (\d+)>")
_STATUS = re.compile(r"returned non-zero exit status (\d+)")
_KILLED = re.compile(r"^Killed$|\s\d+ Killed\s", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Memory and CPU time of a command and all its descendants.

    Attributes:
        max_rss_mb: largest memory observed, in MB: the sum over its processes, or the largest process between samples.
        cpu_seconds: CPU time of its processes, those that have ended included.
    """

    def __init__(self, marker: str) -> None:
        self.marker = marker
        self.max_rss_mb = 0.0
        self.cpu_seconds = 0.0

    def sample(self) -> dict[str, float]:
        """Observe the processes that are running now; return both values."""
        memory = seconds = 0.0
        for pid in processes.find_marked(self.marker, processes.JOB_VARIABLE):
            with contextlib.suppress(OSError, ValueError, IndexError):
                memory += _memory_mb(pid)
                # Time of its own and of the children it has waited for: user, system, user, system.
                ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
                seconds += sum(map(int, ticks)) / _TICKS
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.max_rss_mb = max(self.max_rss_mb, memory, ended.ru_maxrss / 1024)
        self.cpu_seconds = max(self.cpu_seconds, seconds, ended.ru_utime + ended.ru_stime)
        return {"max_rss_mb": round(self.max_rss_mb, 1), "cpu_seconds": round(self.cpu_seconds, 2)}


def _memory_mb(pid: int) -> float:
    """Return a process's memory in MB; what it shares with forks of itself counts once for all of them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def oom_kills(job_id: str, root: Path = Path("/")) -> int:
    """Return how many processes of a SLURM job the kernel has killed for want of memory; 0 where it has no cgroup.

    Source: `memory.events` (cgroup v2) or `memory.oom_control` (v1), both with a line `oom_kill <number>`.
    """
    number = 0
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            head, found, _ = path.partition(f"/job_{job_id}")
            if not found or (controllers and "memory" not in controllers.split(",")):
                continue
            group = root / "sys/fs/cgroup" / ("memory" if controllers else "") / (head + found).lstrip("/")
            counts = group / ("memory.oom_control" if controllers else "memory.events")
            with contextlib.suppress(OSError):
                number += sum(int(n) for n in re.findall(r"^oom_kill (\d+)$", counts.read_text(), re.MULTILINE))
    return number


def own_status(status: int, log: Path | None, offset: int, patience: float = 2.0) -> int:
    """Return the exit status of the command itself where its log tells it, otherwise `status`.

    Args:
        status: exit status of the inner Snakemake; negative: the signal that killed it.
        log: the job's output, None if there is none.
        offset: where the output of this start begins.
        patience: seconds by which the last lines may be late.
    """
    if status < 0 or log is None:
        return status
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError), log.open("rb") as stream:
            stream.seek(offset)
            text = stream.read().decode(errors="replace")
            if found := _DIED.findall(text):
                return -int(found[-1])
            if found := _STATUS.findall(text):
                return int(found[-1])
            if _KILLED.search(text):
                return -9
        if time.monotonic() >= deadline:
            return status
        time.sleep(0.2)


def reason_of(status: int, oom: int, usage: Usage, mem_mb: int) -> str:
    """Return in one sentence why a command failed.

    Args:
        status: its exit status; negative, or above 128: it was killed by a signal.
        oom: number of its processes that were killed for want of memory.
        usage: what it used.
        mem_mb: the memory requested, in MB; 0: none.
    """
    words = signal_words(status)
    what = f"its command was killed by {words}" if words else f"its command ended with status {status}"
    asked = f" of the {mem_mb} MB requested" if mem_mb else ""
    if oom:
        return f"{what}: out of memory (the kernel killed {oom} of its processes); give the rule more `mem_mb`"
    if signal_of(status) == 9:
        used = f"it was seen to use {usage.max_rss_mb:.0f} MB{asked}"
        return f"{what}, as the kernel does when memory runs out; {used}"
    return what
