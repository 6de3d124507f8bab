"""A full queue is no failure: jobs wait here, in order, and are submitted when there is room."""

from __future__ import annotations

import pytest

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit import job_submission, ledger, waiting
from snakemake_executor_plugin_submitit.job_submission import FullError, RefusedError, UnreachableError
from snakemake_executor_plugin_submitit.waiting import WaitingRoom

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
BUSY = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", FullError),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", FullError),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", FullError),
        (f"{BUSY}\n{FAILED}Resource temporarily unavailable", FullError),
        (f"{BUSY}\n{FAILED}Socket timed out on send/recv operation", UnreachableError),  # it may be in the queue
        (f"{FAILED}Resource temporarily unavailable", UnreachableError),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", RefusedError),  # never fits
        (f"sbatch: error: AssocMaxCpuPerJobLimit\n{POLICY}", RefusedError),
        (f"{FAILED}Invalid qos specification", RefusedError),
    ],
)
def test_a_full_queue_is_told_from_a_job_that_never_fits(message: str, kind: type[Exception]) -> None:
    assert type(job_submission._classify(message)) is kind


def test_without_a_reason_it_is_not_certain_that_the_queue_is_full() -> None:
    error = job_submission._classify(POLICY)
    assert isinstance(error, FullError)
    assert not error.certain
    certain = job_submission._classify(f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}")
    assert isinstance(certain, FullError)
    assert certain.certain
    assert str(certain) == "QOSMaxSubmitJobPerUserLimit"


def test_five_jobs_under_a_limit_of_three_all_run_and_it_is_said_once(cluster: Cluster) -> None:
    cluster.limit = 3
    run, jobs = Run(cluster), [FakeJob(name) for name in "abcde"]
    for job in jobs:
        run.executor.run_job(job)
    run.check()
    assert list(cluster.jobs) == ["100", "101", "102"]
    assert len(run.executor.active_jobs) == 5
    assert [len(list(run.executor.records.all())), run.text.count("queue is full")] == [3, 1]
    for job in jobs:
        record = run.record(job)  # a job that was never submitted has none
        assert cluster.start(str(record.job_id))
        cluster.finish(record)
        run.check()
        run.executor.handle_job_success(job)
    assert run.succeeded == jobs
    assert not run.failed
    assert [job.registered[-1] for job in jobs] == ["100", "101", "102", "103", "104"]  # in their order
    assert run.text.count("queue is full") == 1
    assert [line["state"] for line in ledger.read(run.executor.root / "ledger")] == ["finished"] * 5


def test_sbatch_is_not_called_for_each_waiting_job(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 1000.0)
    cluster.limit = 1
    run = Run(cluster)
    run.executor.waiting.interval = 1000.0
    jobs = [FakeJob(str(number)) for number in range(20)]
    for job in jobs:
        run.executor.run_job(job)
    for _ in range(5):
        run.check()
    assert cluster.calls.count("sbatch") == 2
    cluster.finish(run.record(jobs[0]))
    run.check()  # one more is taken, and the next is refused
    assert cluster.calls.count("sbatch") == 4
    assert list(cluster.jobs) == ["100", "101"]


def test_a_resubmission_waits_for_room_too(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a")
    run.executor.run_job(job)
    cluster.jobs["100"][0] = "NODE_FAIL"
    cluster.limit = 0
    run.check()
    run.check()
    assert len(run.executor.active_jobs) == 1
    cluster.limit = 1
    run.check()
    assert run.record(job).job_id == "101"
    assert not run.failed


def test_ctrl_c_drops_what_waits_and_nothing_is_left_on_record(cluster: Cluster) -> None:
    cluster.limit = 1
    run = Run(cluster)
    for name in "ab":
        run.executor.run_job(FakeJob(name))
    run.executor.cancel_jobs([])
    run.check()
    assert [record.outputs for record in run.executor.records.all()] == [["a"]]
    assert list(cluster.jobs) == cluster.cancelled == ["100"]
    assert not run.failed


def test_a_full_queue_after_a_lost_answer_keeps_the_record(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run, job = Run(cluster, controller_patience=900), FakeJob("a")
    answers: list[Exception] = [UnreachableError("Socket timed out"), FullError("QOSMaxSubmitJobPerUserLimit")]
    kept = []

    def submit(*_: object) -> list[str]:
        if answers:
            raise answers.pop(0)
        kept.append(run.record(job).uid)
        return cluster.submit(*_)  # type: ignore[arg-type]

    monkeypatch.setattr(job_submission, "submit", submit)
    run.executor.run_job(job)
    assert kept == [run.record(job).uid]
    assert list(cluster.jobs) == ["100"]


def test_a_job_that_may_be_against_the_rules_does_not_wait_for_ever(cluster: Cluster) -> None:
    cluster.limit, cluster.full = 1, FullError("Job violates accounting/QOS policy (job submit limit, …)", False)
    run, first, second = Run(cluster), FakeJob("a"), FakeJob("b")
    run.executor.run_job(first)
    run.executor.run_job(second)
    run.check()
    assert not run.failed  # while the first is live, the queue may be full
    cluster.limit = 0
    cluster.finish(run.record(first))
    for _ in range(3):
        run.check()
    assert run.failed == [second]
    assert "though none of ours is in the queue" in second.errors[0]


def test_the_pause_doubles_up_to_the_interval() -> None:
    now = 0.0
    room = WaitingRoom(10.0, 900.0, clock=lambda: now)
    pauses = []
    for _ in range(4):
        room.refused(FullError("x"), others=True)
        begin = now
        while not room.due():
            now += 0.5
        pauses.append(now - begin)
    assert pauses == [2.0, 4.0, 8.0, 10.0]
    room.refused(FullError("x"), others=True)
    room.job_ended()
    assert room.due()
