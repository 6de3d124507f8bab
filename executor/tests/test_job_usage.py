"""Why a command died, and what it used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import job_usage, processes
from snakemake_executor_plugin_submitit.job_usage import Usage, own_status, reason_of


def used(megabytes: float = 0.0) -> Usage:
    usage = Usage("none")
    usage.max_rss_mb = megabytes
    return usage


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Command 'set -euo pipefail; exec x' died with <Signals.SIGKILL: 9>.", -9),
        ("Command 'set -euo pipefail; x; y' returned non-zero exit status 137.", 137),
        ("/usr/bin/bash: line 1: 28995 Killed                  x\n", -9),
        ("Killed\n[Wed Nov 25 21:42:06 2026]\nError in rule b:\n", -9),
        ("returned non-zero exit status 2.", 2),
        ("Killed time is not lost\n", 1),
    ],
)
def test_the_commands_own_status_is_in_its_log(tmp_path: Path, text: str, status: int) -> None:
    log = tmp_path / "log"
    before = "an earlier start died with <Signals.SIGTERM: 15>.\n"
    log.write_text(before + text)
    assert own_status(1, log, len(before), patience=0.0) == status


def test_the_last_lines_of_the_log_may_be_late(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    late = subprocess.Popen(["bash", "-c", f"sleep 0.3; echo 'died with <Signals.SIGSEGV: 11>' > {log}"])
    assert own_status(1, log, 0, patience=10.0) == -11
    late.wait()


@pytest.mark.parametrize(
    ("status", "oom", "words"),
    [
        (3, 0, "its command ended with status 3"),
        (-11, 0, "its command was killed by signal 11 (SIGSEGV)"),
        (137, 0, "(SIGKILL), as the kernel does when memory runs out; it was seen to use 2900 MB of the 3000 MB"),
        (137, 1, "(SIGKILL): out of memory (the kernel killed 1 of its processes); give the rule more `mem_mb`"),
        (1, 2, "its command ended with status 1: out of memory (the kernel killed 2"),
    ],
)  # fmt: skip
def test_the_reason_is_one_sentence(status: int, oom: int, words: str) -> None:
    assert words in reason_of(status, oom, used(2900.0), 3000)


@pytest.mark.parametrize(
    ("line", "file", "text"),
    [
        ("0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
         "system.slice/slurmstepd.scope/job_7/memory.events",
         "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("9:memory:/slurm/uid_0/job_7/step_0", "memory/slurm/uid_0/job_7/memory.oom_control",
         "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)  # fmt: skip
def test_out_of_memory_is_read_from_the_jobs_cgroup(tmp_path: Path, line: str, file: str, text: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"12:cpu:/slurm/uid_0/job_7\n{line}\n")
    path = tmp_path / "sys/fs/cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert job_usage.oom_kills("7", tmp_path) == 2
    assert job_usage.oom_kills("71", tmp_path) == 0


def test_memory_and_time_of_all_processes_of_a_job(tmp_path: Path) -> None:
    program = f"x = bytearray(60 << 20); open({str(tmp_path / 'ready')!r}, 'a').write('.')\nwhile True: pass"
    environment = os.environ | {processes.JOB_VARIABLE: tmp_path.name}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(2)]
    usage = Usage(tmp_path.name)
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            seen = usage.sample()
            if (tmp_path / "ready").exists() and seen["max_rss_mb"] > 120 and seen["cpu_seconds"] > 0.2:
                break
            time.sleep(0.05)
        assert seen["max_rss_mb"] > 120
        assert seen["cpu_seconds"] > 0.2
    finally:
        for process in running:
            process.kill()
            process.wait()
