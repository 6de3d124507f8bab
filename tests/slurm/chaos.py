"""Seeded chaos: a workflow on the real local SLURM while everything around it breaks, then the same scores.

    python tests/slurm/chaos.py --events 20 --seed 2                this project on nine pictures, with its profile
    python tests/slurm/chaos.py --toy --events 24 --seed 1          trainings that count their steps, without torch

Each event is fired at a job (or at Snakemake, or at the controller) that is really there, so the run goes on until
all have happened or the work is done. Afterwards: the compared files are byte-equal to the reference, no training ran
twice at the same time, squeue is empty, no process is left. The log of events is printed.
Exits with status 1 when any of this does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.page import show

from lowdata_cpt.jobs.collect import differences
from tests.slurm.cluster import (
    Workflow,
    command_line,
    fail_node,
    processes_in,
    queue,
    restart_controller,
    slurm,
    stopped_at_end,
    wait_until,
    wrappers,
)
from tests.workflow.tiny import snakemake, tiny_study

TOY_ARGUMENTS = (
    "--executor submitit --jobs 6 --cores 2 --seconds-between-status-checks 3 --latency-wait 20 --keep-going "
    "--rerun-incomplete --retries 50 --config runs={runs} steps={steps} seconds=0.25 partition=preemptible"
)


SCORES = "results/quick/scores.csv"
PROJECT_ARGUMENTS = "--retries 50 --seconds-between-status-checks 3 --latency-wait 20"


@dataclass(frozen=True)
class Result:
    """What happened, and whether it held."""

    fired: Counter[str]
    starts: Counter[str]
    checks: dict[str, bool]
    seconds: float


class NothingError(Exception):
    """There was nothing to fire this event at."""


class Chaos:
    """The events. Each returns what it hit, or raises NothingError."""

    def __init__(self, flow: Workflow, seed: int, rule: str, trainer: str) -> None:
        self.flow = flow
        self.random = random.Random(seed)
        self.rule = rule
        self.trainer = trainer

    def _job(self) -> str:
        jobs = [job for job in queue() if job["state"] == "RUNNING" and job["name"].startswith(self.rule)]
        if not jobs:
            raise NothingError
        return self.random.choice(jobs)["id"]

    def _process(self, pids: list[int]) -> int:
        if not pids:
            raise NothingError
        return self.random.choice(sorted(pids))

    def requeue(self) -> str:
        """An administrator requeues a job."""
        job = self._job()
        slurm(f"scontrol requeue {job}")
        return f"job {job}"

    def warning(self) -> str:
        """The warning signal of a time limit."""
        job = self._job()
        slurm(f"scancel --signal=USR2 {job}")
        return f"job {job}"

    def preemption(self) -> str:
        """A job on the better partition takes the node."""
        self._job()
        return slurm("sbatch --partition=main --exclusive --time=1 --output=/dev/null --wrap 'sleep 2'", check=True)

    def scancel(self) -> str:
        """Somebody cancels a job."""
        job = self._job()
        slurm(f"scancel {job}")
        return f"job {job}"

    def kill_training(self) -> str:
        """kill -9 of a training process, as the kernel does when memory runs out."""
        pids = [p for p in processes_in(self.flow.directory) if self.trainer in command_line(p)]
        pid = self._process(pids)
        os.kill(pid, signal.SIGKILL)
        return f"process {pid}"

    def kill_wrapper(self) -> str:
        """kill -9 of submitit's process; the training it started loses its parent."""
        pid = self._process(wrappers(self.flow.directory))
        os.kill(pid, signal.SIGKILL)
        return f"process {pid}"

    def kill_snakemake(self) -> str:
        """kill -9 of Snakemake, then a new start."""
        pid = self.flow.process.pid  # type: ignore[union-attr]
        self.flow.kill()
        time.sleep(self.random.uniform(0, 6))
        self.flow.start()
        return f"process {pid}"

    def interrupt(self) -> str:
        """Ctrl-C: the queue must be empty soon after; then a new start."""
        self._job()
        pid = self.flow.process.pid  # type: ignore[union-attr]
        self.flow.interrupt(timeout=200)
        wait_until(lambda: not queue(), 60, "an empty queue after Ctrl-C")
        self.flow.start()
        return f"process {pid}"

    def controller(self) -> str:
        """kill -9 of slurmctld; it is away for some seconds."""
        away = self.random.uniform(2, 10)
        restart_controller(away)
        return f"away for {away:.0f} s"

    def node_failure(self) -> str:
        """The node goes down and comes back."""
        self._job()
        return f"node {fail_node()}"

    def late_result(self) -> str:
        """The next job's folder vanishes the moment its result is there, and comes back later (slow NFS)."""
        self._job()
        jobs = self.flow.directory / ".snakemake/submitit/jobs"
        known = set(jobs.glob("*/*/*/result.json"))
        threading.Thread(target=self._hide, args=(jobs, known), daemon=True).start()
        return "armed"

    def _hide(self, jobs: Path, known: set[Path]) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            for result in set(jobs.glob("*/*/*/result.json")) - known:
                folder, hidden = result.parent, jobs.parent / f"hidden-{result.parent.name}"
                try:
                    folder.rename(hidden)
                except OSError:
                    continue
                time.sleep(6)
                if folder.exists():  # submitit has written its own farewell into a new folder of that name
                    shutil.copytree(folder, hidden, dirs_exist_ok=True)
                    shutil.rmtree(folder)
                hidden.rename(folder)
                return
            time.sleep(0.02)


EVENTS = (
    "requeue",
    "warning",
    "preemption",
    "scancel",
    "kill_training",
    "kill_wrapper",
    "kill_snakemake",
    "interrupt",
    "controller",
    "node_failure",
    "late_result",
)


def overlaps(lines: Iterable[dict[str, Any]], jobs: Path) -> list[tuple[str, str]]:
    """The submissions that were at work on the same file at the same time.

    A ledger line says what was known when Snakemake let go of a job, which may have gone on: the job's own notes in
    its folder (under `jobs`) have the last word.
    """
    by_file: dict[str, set[tuple[float, float, str]]] = {}
    for line in lines:
        if line["start"] is None:
            continue
        end = line["start"] + line["elapsed"]
        for note in jobs.glob(f"*/*/{line['submission']}/attempt-{line['attempts']:03d}.json"):
            end = max(end, json.loads(note.read_text())["beat"])
        for name in line["outputs"]:
            by_file.setdefault(name, set()).add((line["start"], end, line["submission"]))
    return [
        (earlier[2], later[2])
        for spans in by_file.values()
        for earlier, later in itertools.pairwise(sorted(spans))
        if later[0] < earlier[1] - 1  # a requeued job's clock may run on for a moment while it is being ended
    ]


def same(made: Path, expected: Path) -> bool:
    """Whether two files are byte-equal; a table of scores may differ in `train_seconds`, which is a measurement."""
    if made.read_bytes() == expected.read_bytes():
        return True
    return "train_seconds" in made.read_text().partition("\n")[0] and differences(made, expected) is None


def toy(arguments: argparse.Namespace) -> tuple[Workflow, Path]:
    """Return the toy workflow and the folder of its undisturbed run."""
    reference, values = arguments.directory / "reference", f"runs={arguments.runs} steps={arguments.steps}"
    if Workflow(reference, f"--cores 2 --quiet all --config {values} seconds=0").run() != 0:
        raise SystemExit("the reference run failed")
    return Workflow(
        arguments.directory / "run", TOY_ARGUMENTS.format(runs=arguments.runs, steps=arguments.steps)
    ), reference


def project(arguments: argparse.Namespace) -> tuple[Workflow, Path]:
    """Return this project's workflow on a tiny study, with the profile, and the folder of its undisturbed run."""
    methods = {name: {} for name in ("base", "diet_cp", "mae", "tec")}
    long = {"epochs": arguments.steps, "max_steps": arguments.steps, "milestones": [4, 4 * arguments.steps // 2]}
    settings = {"seeds": [0, 1], "methods": methods, "training": long, "resources": {"checkpoint_seconds": 5.0}}
    reference, folder = (tiny_study(arguments.directory / name, **settings) for name in ("reference", "run"))
    snakemake(reference, "--quiet", "all", "--", SCORES)
    profile = f"--profile {folder}/workflow/profiles/slurm {PROJECT_ARGUMENTS} -- {SCORES}"
    return Workflow(folder, profile, folder / "Snakefile"), reference


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> Result:
    """Run the workflow under chaos."""
    shutil.rmtree(arguments.directory, ignore_errors=True)
    if arguments.toy:
        (flow, reference), rule, trainer, compare = toy(arguments), "train", "toy_trainer.py", "scores.csv"
    else:
        (flow, reference), rule, trainer = project(arguments), "pretrain", "lowdata-cpt pretrain"
        compare = SCORES
    chaos = Chaos(flow, arguments.seed, rule, trainer)
    # Every kind in turn, in a seeded order, so that none is left out.
    plan: list[str] = []
    while len(plan) < arguments.events:
        plan += chaos.random.sample(EVENTS, len(EVENTS))
    plan = plan[: arguments.events]

    began = time.monotonic()
    fired: Counter[str] = Counter()
    with stopped_at_end(flow):
        flow.start()
        say(f"seed {arguments.seed}: {len(plan)} events planned")
        restarts = 0
        while True:
            assert flow.process is not None
            if flow.process.poll() is not None:
                if flow.process.returncode == 0:
                    break
                restarts += 1
                if restarts > arguments.restarts:
                    break
                say(f"{time.monotonic() - began:7.1f} s  Snakemake ended with status {flow.process.returncode}; again")
                flow.start()
            if not plan:
                time.sleep(0.5)
                continue
            time.sleep(chaos.random.uniform(arguments.pause / 2, arguments.pause * 1.5))
            if flow.process.poll() is not None:
                continue
            for position, name in enumerate(plan):
                try:
                    what = getattr(chaos, name)()
                except NothingError:
                    continue
                del plan[position]
                fired[name] += 1
                say(f"{time.monotonic() - began:7.1f} s  {fired.total():2d}. {name}: {what}")
                break
        elapsed = time.monotonic() - began
        status = flow.process.returncode
        leftover_jobs = []
        try:
            wait_until(lambda: not queue(), 60, "an empty queue")
        except TimeoutError:
            leftover_jobs = queue()
        leftover_processes = processes_in(flow.directory)
    made = flow.directory / compare
    lines = {(line["submission"], line["attempts"]): line for line in flow.ledger()}.values()
    jobs = flow.directory / ".snakemake/submitit/jobs"
    checks = {
        f"at least {arguments.events} events fired ({fired.total()})": fired.total() >= arguments.events,
        f"Snakemake ended well (status {status})": status == 0,
        f"equal to the undisturbed run: {compare}": made.is_file() and same(made, reference / compare),
        "no work ran twice at the same time": not flow.violations() and not overlaps(lines, jobs),
        f"squeue is empty {leftover_jobs or ''}".strip(): not leftover_jobs,
        f"no process is left {leftover_processes or ''}".strip(): not leftover_processes,
    }
    result = Result(fired, Counter(line["state"] for line in lines), checks, elapsed)
    for what, holds in checks.items():
        say(f"{'ok  ' if holds else 'FAIL'}  {what}")
    say(f"events: {dict(fired)}; ledger (starts): {dict(result.starts)}; {elapsed:.0f} s")
    return result


def table(result: Result, arguments: argparse.Namespace) -> str:
    """Return a run for reading."""
    what = "the toy study" if arguments.toy else "this project on nine pictures, three methods, two seeds"
    rows = [f"| {(getattr(Chaos, name).__doc__ or '').strip().rstrip('.')} | {n} |" for name, n in result.fired.items()]
    starts = ", ".join(f"{count} {state}" for state, count in sorted(result.starts.items()))
    held = "; ".join(f"{what}: {'yes' if holds else '**no**'}" for what, holds in result.checks.items())
    return "\n".join(
        [
            f"{result.fired.total()} accidents in one run of {result.seconds:.0f} s ({what}; seed {arguments.seed}, "
            f"{date.today()}). Starts of jobs: {starts}. {held}.",
            "",
            "| accident | times |",
            "|---|---:|",
            *rows,
        ]
    )


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=8.0, help="mean seconds between events")
    parser.add_argument("--toy", action="store_true", help="the toy study: trainings without torch")
    parser.add_argument("--runs", type=int, default=8, help="trainings of the toy study")
    parser.add_argument("--steps", type=int, help="of a training (160 of 0.25 s in the toy study, otherwise 600)")
    parser.add_argument("--directory", type=Path, default=Path("work/chaos"), help="where it runs; is replaced")
    parser.add_argument("--restarts", type=int, default=3, help="how often Snakemake may end with an error")
    parser.add_argument("--page", type=Path, help="a page with the table's markers")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (160 if arguments.toy else 600)
    arguments.directory = arguments.directory.resolve()
    result = run(arguments, lambda line: print(line, flush=True))
    if arguments.page:
        show(arguments.page, "make chaos-slurm", table(result, arguments))
    return 0 if all(result.checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
