"""Helpers for the tests on the real one-machine SLURM."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ENVIRONMENT = REPOSITORY / ".slurm" / "env"


def environment() -> dict[str, str]:
    """The environment in which SLURM's programs find the local cluster."""
    settings = dict(os.environ)
    if ENVIRONMENT.exists():
        for line in ENVIRONMENT.read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            settings[name] = value.replace("$PATH", settings.get("PATH", ""))
    return settings


def slurm(command: str, check: bool = False) -> str:
    """Run one of SLURM's programs; return what it prints."""
    answer = subprocess.run(
        shlex.split(command), env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    if check and answer.returncode:
        raise RuntimeError(f"{command}: {answer.stderr}")
    return answer.stdout.strip()


def queue() -> list[dict[str, str]]:
    """The jobs in the queue: id, name, state."""
    lines = slurm("squeue --noheader --format=%i|%T|%j").splitlines()
    return [dict(zip(("id", "state", "name"), line.split("|", 2), strict=True)) for line in lines]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"waited {seconds} s for {what}")


def fail_node() -> str:
    """Take the node down for some seconds and bring it back; return its name."""
    node = slurm("sinfo --noheader --format=%n").split()[0]
    slurm(f"scontrol update nodename={node} state=down reason=test", check=True)
    time.sleep(3)

    def back() -> bool:
        slurm(f"scontrol update nodename={node} state=resume")  # refused while the node is not (any longer) down
        return not {"down", "drain"} & {state.rstrip("*") for state in slurm("sinfo --noheader --format=%T").split()}

    wait_until(back, 60, "the node")
    return node


def restart_controller(seconds_down: float) -> None:
    """kill -9 of slurmctld, and a new one after some seconds."""
    pid = int((Path(environment()["SLURM_CONF"]).parent / "run" / "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(seconds_down)
    subprocess.run(["slurmctld"], env=environment(), check=True)
    wait_until(lambda: "is UP" in slurm("scontrol ping"), 60, "the controller")


def processes_in(directory: Path) -> list[int]:
    """The processes of jobs whose working directory is `directory`, without SLURM's own and Snakemake's main one."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and (entry / "cwd").resolve() == directory
                and b"SNAKEMAKE_SUBMITIT_KEY=" in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    """The command line of a process, empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def trainers(directory: Path) -> list[int]:
    """The running toy trainers of a directory (not the shells that start them)."""
    pids = processes_in(directory)
    return [pid for pid in pids if "toy_trainer.py" in command_line(pid) and "bash -c" not in command_line(pid)]


def wrappers(directory: Path) -> list[int]:
    """The submitit processes that hold this directory's jobs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            line = command_line(int(entry.name))
            if "submitit.core._submit" in line and str(directory) in line and line.split()[0].endswith("python"):
                found.append(int(entry.name))
    return found


class Workflow:
    """Snakemake on a workflow in a directory, started, killed and started again."""

    def __init__(self, directory: Path, arguments: str = "", snakefile: Path = HERE / "Snakefile") -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.output = self.directory / "snakemake.out"
        self.base = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
        self.arguments = shlex.split(arguments)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start Snakemake, after unlocking what a killed one has left locked."""
        assert self.process is None or self.process.poll() is not None, "one Snakemake at a time"
        subprocess.run([*self.base, "--unlock"], cwd=self.directory, env=environment(), capture_output=True)
        stream = self.output.open("ab")
        self.process = subprocess.Popen(
            [*self.base, *self.arguments, *more],
            cwd=self.directory,
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell's background jobs ignore Ctrl-C, and so would everything they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        return self.process

    def run(self, *more: str, timeout: float = 300) -> int:
        """Run Snakemake to its end."""
        return self.start(*more).wait(timeout)

    def kill(self) -> None:
        """kill -9 Snakemake, as the end of a login shell or a machine would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def interrupt(self, timeout: float = 90) -> int:
        """Ctrl-C: the signal goes to the whole foreground group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout)

    @property
    def text(self) -> str:
        """All that Snakemake has printed."""
        return self.output.read_text() if self.output.exists() else ""

    def ledger(self) -> list[dict[str, Any]]:
        """The ledger of all runs in this directory."""
        files = sorted((self.directory / ".snakemake/submitit/ledger").glob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    def steps(self, run: str) -> list[int]:
        """The steps a toy trainer did, in order, over all its starts."""
        path = self.directory / "work" / run / "trace.jsonl"
        return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []

    def violations(self) -> list[Path]:
        """Where two trainers worked on one checkpoint at the same time."""
        return list(self.directory.glob("work/*/violations"))


@contextlib.contextmanager
def stopped_at_end(workflow: Workflow) -> Iterator[Workflow]:
    """Whatever the test does, leave no Snakemake and no job behind."""
    try:
        yield workflow
    finally:
        if workflow.process is not None and workflow.process.poll() is None:
            workflow.kill()
        for job in queue():
            slurm(f"scancel {job['id']}")
        wait_until(lambda: not queue(), 60, "an empty queue")
