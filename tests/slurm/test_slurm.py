"""The plugin on a real SLURM: each way a job or Snakemake can end, and that nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.chaos import overlaps
from tests.slurm.cluster import Workflow, fail_node, queue, restart_controller, slurm, trainers, wait_until, wrappers
from tests.slurm.toy_trainer import result_of

pytestmark = pytest.mark.slurm

Make = Callable[..., Workflow]


def expected(runs: int, steps: int) -> str:
    return "".join(f"run{n},{result_of(f'run{n}', steps)}\n" for n in range(runs))


def check(flow: Workflow, runs: int, steps: int, status: int = 0) -> None:
    assert status == 0, flow.text
    assert (flow.directory / "scores.csv").read_text() == expected(runs, steps)
    assert not flow.violations()
    wait_until(lambda: not queue(), 30, "an empty queue")
    assert not trainers(flow.directory)


def running_job(rule: str = "train") -> str:
    def find() -> str | None:
        return next((j["id"] for j in queue() if j["name"].startswith(rule) and j["state"] == "RUNNING"), None)

    return str(wait_until(find, 60, f"a running {rule} job"))


def training(flow: Workflow, step: int = 1) -> str:
    """Wait until one run has trained for some steps; return the id of a running training job."""

    def trained() -> bool:  # any run: which of the ready ones Snakemake submits first differs from start to start
        return any(len(flow.steps(run.name)) >= step for run in flow.directory.glob("work/*"))

    wait_until(trained, 120, "training steps")
    return running_job()


def test_success_with_gpu_groups_logs_and_ledger(workflow: Make) -> None:
    flow = workflow("runs=2 steps=3 gpu=1", "--submitit-keep-successful-logs")
    check(flow, 2, 3, flow.run())
    lines = flow.ledger()
    assert {line["state"] for line in lines} == {"finished"}
    assert sorted(line["rule"] for line in lines).count("train") == 2
    assert all(line["gpus"] == (line["rule"] == "train") for line in lines)
    logs = list((flow.directory / ".snakemake/submitit/jobs/train/run=run0").rglob("*_log.out"))
    assert logs
    assert str(logs[0]) in flow.text
    # Only resources changed: nothing is run again.
    assert flow.run("--set-resources", "train:mem_mb=310", "train:runtime=11", "--dry-run") == 0
    assert "Nothing to be done" in flow.text


def test_failure_names_the_log(workflow: Make) -> None:
    flow = workflow("runs=1 steps=3 flags=--no-such-flag")
    assert flow.run() == 1
    assert "its command ended with status 2" in flow.text  # argparse's; Snakemake's own is 1
    assert flow.text.count("its command ended with status") == 1
    assert [line["state"] for line in flow.ledger() if line["rule"] == "train"] == ["failed"]


def test_a_submit_limit_waits(workflow: Make, submit_limit: Path) -> None:
    submit_limit.write_text("1\n")
    flow = workflow("runs=2 steps=3")
    check(flow, 2, 3, flow.run())
    assert flow.text.count("SLURM's queue is full for us (QOSMaxSubmitJobPerUserLimit)") == 1
    lines = flow.ledger()
    assert {line["state"] for line in lines} == {"finished"}
    assert len(lines) == 6
    assert "sbatch: error" not in flow.text


def test_interrupt_can_keep_the_jobs(workflow: Make) -> None:
    flow = workflow("runs=1 steps=100", "--submitit-on-interrupt keep")
    flow.start()
    job = training(flow, 3)
    assert flow.interrupt() != 0
    assert "1 jobs continue without Snakemake" in flow.text
    assert any(entry["id"] == job and entry["state"] == "RUNNING" for entry in queue())
    check(flow, 1, 100, flow.run())
    assert f"Reattached to job {job} of a previous run" in flow.text
    assert flow.steps("run0") == list(range(100))


def test_squeue_tells_what_runs_and_the_ledger_what_it_used(workflow: Make) -> None:
    flow = workflow("runs=1 steps=90", "--submitit-keep-successful-logs")
    process = flow.start()
    job = training(flow, 3)
    name, comment = slurm(f"squeue --noheader --jobs={job} --format=%j|%k").split("|")
    assert name.startswith("train-run0-")
    assert comment == "train run=run0 -> models/run0.txt"
    check(flow, 1, 90, process.wait(180))
    (line,) = [line for line in flow.ledger() if line["rule"] == "train"]
    assert 5 < line["max_rss_mb"] < 2000
    assert 0.05 < line["cpu_seconds"] < line["elapsed"] * 4
    assert (line["mem_mb"], line["runtime"]) == (300, 10)
    assert "| train | 1 |" in (flow.directory / ".snakemake/submitit/efficiency.md").read_text()
    assert list(flow.directory.glob(f".snakemake/submitit/jobs/train/run=run0/*/{name}_{job}_log.out"))


def test_the_controller_is_complained_of_once(workflow: Make) -> None:
    flow = workflow("runs=1 steps=250")
    process = flow.start()
    training(flow, 30)
    restart_controller(seconds_down=35)  # a query waits up to 30 s
    check(flow, 1, 250, process.wait(300))
    assert flow.text.count("SLURM does not answer") == flow.text.count("SLURM answers again") == 1


def test_a_partition_is_chosen_by_need(workflow: Make) -> None:
    flow = workflow("runs=1 steps=3 partition=", "--submitit-partitions 'preemptible runtime=5\nmain gpu=2'")
    check(flow, 1, 3, flow.run())
    jobs = {line["rule"]: line["job_id"] for line in flow.ledger()}
    chosen = {rule: slurm(f"scontrol show job {job_id}") for rule, job_id in jobs.items()}
    assert "Partition=preemptible" in chosen["subset"]
    assert "Partition=main" in chosen["train"]  # ten minutes


def test_refused_submission_is_told(workflow: Make) -> None:
    flow = workflow("runs=1 partition=nowhere")
    assert flow.run() == 1
    assert "SLURM refuses the job" in flow.text
    assert "nvalid partition" in flow.text


def test_scancel_fails_clearly(workflow: Make) -> None:
    flow = workflow("runs=1 steps=100")
    process = flow.start()
    slurm(f"scancel {training(flow)}")
    assert process.wait(90) == 1
    assert "somebody cancelled it" in flow.text
    assert not trainers(flow.directory)


def test_scontrol_requeue_resumes(workflow: Make) -> None:
    flow = workflow("runs=1 steps=40")
    process = flow.start()
    slurm(f"scontrol requeue {training(flow, 7)}")
    check(flow, 1, 40, process.wait(180))
    assert len(flow.steps("run0")) == 40  # the checkpoint was written at the last step: none was done twice
    assert [line["state"] for line in flow.ledger() if line["rule"] == "train"] == ["requeued", "finished"]


def test_warning_requeues_through_submitit(workflow: Make) -> None:
    flow = workflow("runs=1 steps=40")
    process = flow.start()
    slurm(f"scancel --signal=USR2 {training(flow, 7)}")
    check(flow, 1, 40, process.wait(180))
    assert flow.steps("run0") == list(range(40))
    assert [line["state"] for line in flow.ledger() if line["rule"] == "train"] == ["requeued", "finished"]


def test_preemption_resumes(workflow: Make) -> None:
    flow = workflow("runs=1 steps=40 partition=preemptible")
    process = flow.start()
    training(flow, 7)
    slurm("sbatch --partition=main --exclusive --time=1 --output=/dev/null --wrap 'sleep 2'", check=True)
    check(flow, 1, 40, process.wait(180))
    assert flow.steps("run0") == list(range(40))


def test_time_limit_of_a_minute_is_no_obstacle(workflow: Make) -> None:
    # 45 s of work, warned (and requeued) about every 20 s.
    flow = workflow("runs=1 steps=225 runtime=1 signal=USR2@40")
    check(flow, 1, 225, flow.run(timeout=500))
    assert flow.steps("run0") == list(range(225))
    assert [line["state"] for line in flow.ledger() if line["rule"] == "train"].count("requeued") >= 1


def test_requeues_without_progress_fail_clearly(workflow: Make) -> None:
    flow = workflow("runs=1 steps=400 flags=--stuck", "--submitit-requeue-limit 2")
    process = flow.start()
    for start in (1, 2):
        wait_until(lambda start=start: len(flow.steps("run0")) > 2 * (start - 1), 90, "a new start")
        job = running_job()
        wait_until(lambda: trainers(flow.directory), 60, "a trainer")
        slurm(f"scancel --signal=USR2 {job}")
        wait_until(lambda: not trainers(flow.directory), 60, "its end")
    assert process.wait(120) == 1
    assert "requeued 2 times in a row without progress" in flow.text


def test_killed_snakemake_reattaches_to_its_jobs(workflow: Make) -> None:
    flow = workflow("runs=2 steps=150")
    flow.start()
    job = training(flow, 3)
    flow.kill()
    assert any(entry["id"] == job for entry in queue())
    check(flow, 2, 150, flow.run())
    assert f"Reattached to job {job} of a previous run" in flow.text
    assert flow.steps("run0") == list(range(150))  # one job, never interrupted
    assert [line["state"] for line in flow.ledger() if line["job_id"] == job] == ["finished"]


def test_job_that_finished_while_snakemake_was_dead_is_not_run_again(workflow: Make) -> None:
    flow = workflow("runs=1 steps=10")
    flow.start()
    training(flow)
    flow.kill()
    wait_until(lambda: not queue(), 60, "the job's end")
    check(flow, 1, 10, flow.run())
    assert flow.steps("run0") == list(range(10))
    # Its parameters are in Snakemake's memory all the same: a later change is seen.
    flow.arguments = [word.replace("steps=10", "steps=12") for word in flow.arguments]
    assert flow.run("--dry-run") == 0
    assert "Params have changed" in flow.text


def test_changed_parameters_withdraw_the_job_of_an_earlier_run(workflow: Make) -> None:
    flow = workflow("runs=1 steps=300")
    flow.start()
    training(flow)
    flow.kill()
    flow.arguments = [word.replace("steps=300", "steps=20") for word in flow.arguments]
    check(flow, 1, 20, flow.run())
    assert "of a previous run is cancelled" in flow.text


@pytest.mark.parametrize("which", [trainers, wrappers])
def test_killed_process_is_retried_and_resumes(workflow: Make, which: Callable[[Path], list[int]]) -> None:
    flow = workflow("runs=1 steps=40", "--retries 1")
    process = flow.start()
    training(flow, 7)
    for pid in which(flow.directory):
        os.kill(pid, signal.SIGKILL)
    check(flow, 1, 40, process.wait(180))
    assert flow.text.count("killed by signal 9 (SIGKILL)") == 1
    # Steps since the last checkpoint are done again, one after the other.
    assert len(flow.steps("run0")) >= 40
    assert [line["state"] for line in flow.ledger() if line["rule"] == "train"] == ["failed", "finished"]


def test_node_failure_is_survived(workflow: Make) -> None:
    flow = workflow("runs=1 steps=40")
    process = flow.start()
    training(flow, 7)
    fail_node()
    check(flow, 1, 40, process.wait(240))


def test_controller_restart_is_survived(workflow: Make) -> None:
    flow = workflow("runs=1 steps=100")
    process = flow.start()
    training(flow, 30)  # the controller writes its state only every 5 s: killed sooner, it has never heard of the job
    restart_controller(seconds_down=6)
    check(flow, 1, 100, process.wait(180))
    assert flow.steps("run0") == list(range(100))


def test_late_result_is_waited_for(workflow: Make) -> None:
    flow = workflow("runs=1 steps=5")
    process = flow.start()
    jobs = flow.directory / ".snakemake/submitit/jobs/train"
    result = wait_until(lambda: next(jobs.glob("*/*/result.json"), None), 90, "a result")
    hidden = flow.directory / "hidden"
    result.parent.rename(hidden)
    wait_until(lambda: not queue(), 30, "the job's end")
    time.sleep(4)
    assert process.poll() is None
    hidden.rename(result.parent)
    check(flow, 1, 5, process.wait(120))
    assert flow.steps("run0") == list(range(5))


def test_interrupt_leaves_no_orphan(workflow: Make) -> None:
    flow = workflow("runs=2 steps=60")
    flow.start()
    training(flow, 7)
    assert flow.interrupt() != 0
    wait_until(lambda: not queue(), 40, "an empty queue")
    assert not trainers(flow.directory)
    assert {line["state"] for line in flow.ledger() if line["rule"] == "train"} == {"cancelled"}
    # The same command finishes the work from the checkpoints.
    check(flow, 2, 60, flow.run())
    assert flow.steps("run0") == list(range(60))


def test_a_restarted_group_withdraws_the_larger_one(workflow: Make) -> None:
    # One core: the two jobs of the group run one after the other.
    flow = workflow("runs=2 steps=1 score_seconds=15", "--cores 1 --group-components scores=2")
    flow.start()
    scores = flow.directory / "scores"
    wait_until(lambda: len(list(scores.glob("*.csv"))) == 1, 120, "the first score")
    old = running_job("scores")
    flow.kill()
    check(flow, 2, 1, flow.run())
    assert f"Job {old} of a previous run is cancelled" in flow.text
    assert [line["state"] for line in flow.ledger() if line["rule"] == "scores"] == ["cancelled", "finished"]
    assert not overlaps(flow.ledger(), flow.directory / ".snakemake/submitit/jobs")
