"""What a long queue costs: calls of SLURM's programs, time and memory, with stand-ins for sbatch and squeue.

    python executor/tests/simulate_queue.py --jobs 200 2000

The stand-ins answer at once, so the times are the executor's own, submitit's and those of starting a process. Calls a
minute follow from the number of calls in a round and from the pauses between rounds, which are not waited for. Prints
the table of the README.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import pytest

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit import job_submission
from snakemake_executor_plugin_submitit.job_status_query import run_command

INTERVAL = 20.0  # --seconds-between-status-checks
ROUNDS = 5
PROGRAMS = {
    "sbatch": """while read -r line; do
  case $line in
    "#SBATCH --job-name="*) name=${line#*=};;
    "#SBATCH --array="*) last=${line#*=0-}; last=${last%%%*};;
  esac
done < "$1"
read -r id < "$QUEUE.next"; echo $((id + 1)) > "$QUEUE.next"
if [ -n "$last" ]; then
  for task in $(seq 0 "$last"); do echo "${id}_$task|PENDING|Priority|$name"; done >> "$QUEUE"
else
  echo "$id|PENDING|Priority|$name" >> "$QUEUE"
fi
echo sbatch >> "$QUEUE.calls"
echo "Submitted batch job $id"
""",
    "squeue": """echo squeue >> "$QUEUE.calls"
exec cat "$QUEUE"
""",
    "srun": "exit 1\n",
}


def memory_mb() -> float:
    """The memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def simulate(number: int, array_size: int) -> list[float]:
    """Return ms per submission, calls of sbatch, calls a minute, seconds a round, MB, seconds to reattach."""
    folder = Path.cwd()
    queue = folder / "queue"
    queue.write_text("")
    (folder / "queue.next").write_text("1000\n")
    calls = folder / "queue.calls"

    def called() -> int:
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    with pytest.MonkeyPatch.context() as patch:
        real, which = job_submission.submit, __import__("shutil").which
        patch.setenv("QUEUE", str(queue))
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        run = Run(Cluster(patch), array_size=array_size)
        patch.setattr(job_submission, "submit", real)
        patch.setattr("shutil.which", which)
        run.executor.status_query._runner = run_command
        jobs = [FakeJob(f"out/{n}", runtime=60, mem_mb=2000) for n in range(number)]
        before = memory_mb()
        start = time.perf_counter()
        run.executor.run_jobs(jobs)
        submission = (time.perf_counter() - start) / number
        submitted = called()
        done, rounds = called(), []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            run.check()
            rounds.append(time.perf_counter() - start)
        if len(run.executor.active_jobs) != number:
            raise SystemExit(f"{number - len(run.executor.active_jobs)} jobs were lost:\n{run.text[-2000:]}")
        seconds = statistics.median(rounds)
        held = memory_mb() - before
        pause = max(INTERVAL, run.executor.next_seconds_between_status_checks)
        a_minute = (called() - done) / ROUNDS * 60 / (pause + seconds)
        again = Run(Cluster(patch))
        again.executor.status_query._runner = run_command
        start = time.perf_counter()
        for job in jobs:
            again.executor.run_job(job)
        taken = time.perf_counter() - start
        if any(job.registered[-1] != job.registered[0] for job in jobs):
            raise SystemExit("not all jobs were reattached")
    return [1000 * submission, submitted, a_minute, seconds, held, taken]


def main() -> None:
    """Print one row per number of jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--array-size", type=int, nargs="+", default=[1, 500])
    arguments = parser.parse_args()
    heads = "queued jobs", "in arrays of", "ms a submission", "calls of sbatch", "calls a minute", "s a round", "MB"
    print("| " + " | ".join((*heads, "s to reattach")) + " |")
    print("|" + "---:|" * 8)
    for number, size in itertools.product(arguments.jobs, arguments.array_size):
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            Path("bin").mkdir()
            for program, text in PROGRAMS.items():
                path = Path("bin") / program
                path.write_text(f"#!/bin/sh\n{text}")
                path.chmod(0o755)
            numbers = simulate(number, size)
            os.chdir("/")
        cells = [f"{value:.{digits}f}" for value, digits in zip(numbers, (0, 0, 1, 2, 0, 1), strict=True)]
        print(f"| {number:,} | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
