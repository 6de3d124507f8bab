"""SLURM is queried rarely, and its answer counts only for jobs that are ours, and for what it can know."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fake_cluster import Logger
from snakemake_executor_plugin_submitit import job_status_query
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.job_cancellation import EndedJobs, JobCancellation
from snakemake_executor_plugin_submitit.job_monitor import SACCT_TIMEOUT, JobMonitor
from snakemake_executor_plugin_submitit.job_state import Verdict
from snakemake_executor_plugin_submitit.job_status_query import (
    Complaints,
    JobStatusQuery,
    Snapshot,
    parse_sacct,
    parse_squeue,
)
from snakemake_executor_plugin_submitit.records import RESULT, Record


class Fake:
    """Canned SLURM output and a clock set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.squeue: str | None = ""
        self.sacct: str | None = None
        self.scancel: str | None = ""
        self.error = "Slurm accounting storage is disabled"
        self.calls: list[str] = []

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(command[0])
        text = {"squeue": self.squeue, "sacct": self.sacct, "scancel": self.scancel}[command[0]]
        return subprocess.CompletedProcess(command, int(text is None), text or "", self.error)

    def clock(self) -> float:
        return self.now


def record(tmp_path: Path, **changes: object) -> Record:
    values: dict[str, object] = {
        "key": "k", "uid": "u", "name": "train-u", "folder": str(tmp_path), "signature": "s", "rule": "train",
        "wildcards": {}, "outputs": ["a"], "job_id": "7",
    }  # fmt: skip
    return Record(**(values | changes))  # type: ignore[arg-type]


def test_parsers() -> None:
    rows = parse_squeue("7|RUNNING|None|train-u\n8|PENDING|(Nodes required, down)|odd|name\n\nnonsense\n")
    assert (rows["7"].state, rows["7"].name) == ("RUNNING", "train-u")
    assert (rows["8"].reason, rows["8"].name) == ("(Nodes required, down)", "odd|name")
    rows = parse_sacct("7|CANCELLED by 0|train-u\n7.batch|CANCELLED|batch\n")
    assert rows.keys() == {"7"}
    assert rows["7"].state == "CANCELLED"


def test_slurm_is_queried_at_most_once_per_interval() -> None:
    fake = Fake()
    slurm = JobStatusQuery(10.0, Complaints(Logger()), fake.run, fake.clock)
    for fake.now in (100.0, 105.0, 109.9):
        slurm.snapshot(["7"])
    assert fake.calls == ["squeue", "sacct"]
    fake.now = 110.0
    slurm.snapshot(["7"])
    assert fake.calls == ["squeue", "sacct", "squeue"]


def test_sacct_is_queried_only_for_forgotten_jobs_and_never_again_once_disabled() -> None:
    fake = Fake()
    slurm = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock)
    fake.squeue = "7|RUNNING|None|train-u"
    slurm.snapshot(["7"])
    assert fake.calls == ["squeue"]
    assert slurm.snapshot(["7", "8"]).complete
    slurm.snapshot(["7", "8"])
    assert fake.calls.count("sacct") == 1


def test_while_sacct_fails_missing_jobs_stay_undecided() -> None:
    fake = Fake()
    fake.error = "Connection refused"
    snapshot = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock).snapshot(["8"])
    assert not snapshot.complete


def test_a_reused_job_id_is_not_ours(tmp_path: Path) -> None:
    fake = Fake()
    slurm, monitor = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock), JobMonitor(5.0, fake.clock)
    ours = record(tmp_path)
    monitor.start(ours)
    fake.squeue = "7|RUNNING|None|somebody-elses"
    monitor.check(ours, slurm.snapshot(["7"]))
    fake.now += 6
    assert monitor.check(ours, slurm.snapshot(["7"])).verdict is Verdict.FAILED


def test_another_submissions_result_is_not_ours(tmp_path: Path) -> None:
    write_json(tmp_path / RESULT, {"uid": "other", "outcome": "finished"})
    assert record(tmp_path).result() is None
    write_json(tmp_path / RESULT, {"uid": "u", "outcome": "finished"})
    assert JobMonitor(5.0).check(record(tmp_path), Snapshot()).verdict is Verdict.FINISHED


def test_answers_from_before_the_submission_do_not_count(tmp_path: Path) -> None:
    fake = Fake()
    slurm, monitor = JobStatusQuery(1000.0, Complaints(Logger()), fake.run, fake.clock), JobMonitor(5.0, fake.clock)
    slurm.snapshot([])
    fake.now += 1
    ours = record(tmp_path)
    monitor.start(ours)
    fake.now += 100
    assert monitor.check(ours, slurm.snapshot(["7"])).verdict is Verdict.LIVE


def test_a_requeue_restarts_the_patience(tmp_path: Path) -> None:
    fake = Fake()
    slurm, monitor = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock), JobMonitor(5.0, fake.clock)
    ours = record(tmp_path)
    monitor.start(ours)
    verdicts = []
    for state, seconds in (("NODE_FAIL", 4), ("PENDING", 4), ("NODE_FAIL", 4), ("NODE_FAIL", 6)):
        fake.squeue = f"7|{state}|None|train-u"
        verdicts.append(monitor.check(ours, slurm.snapshot(["7"])).verdict)
        fake.now += seconds
    assert verdicts == [Verdict.LIVE] * 4
    assert monitor.check(ours, slurm.snapshot(["7"])).verdict is Verdict.RESUBMIT


def test_scancel_returns_the_error_when_slurm_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fake = Fake()
    cancellation = JobCancellation(fake.run)
    assert cancellation.scancel(["7"], ["train-u"]) == ""
    assert fake.calls == ["scancel", "scancel"]
    fake.scancel, fake.error = None, "Unable to contact slurm controller"
    assert cancellation.scancel(["7"], ["train-u"], [("8", "train-v")]) == "; ".join([fake.error] * 3)
    assert fake.calls == ["scancel"] * (2 + 3 * 3)
    fake.calls, fake.error = [], "scancel: error: Kill job error on job id 7: Invalid job id specified"
    assert cancellation.scancel(["7"]) == ""  # it has ended already
    assert fake.calls == ["scancel"]
    fake.error += "\nscancel: error: Kill job error on job id 8: Unable to contact slurm controller"
    assert cancellation.scancel(["7", "8"]) == fake.error  # and the other may be running still


def test_a_runaway_job_of_the_accounting_database_is_not_live(tmp_path: Path) -> None:
    fake = Fake()
    slurm, monitor = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock), JobMonitor(5.0, fake.clock)
    ours = record(tmp_path)
    monitor.start(ours)
    fake.sacct = "7|RUNNING|train-u"
    monitor.check(ours, slurm.snapshot(["7"]))
    fake.now += 6
    assert monitor.check(ours, slurm.snapshot(["7"])).verdict is Verdict.FAILED
    fake.sacct = "7|COMPLETED|train-u"
    monitor.check(ours, slurm.snapshot(["7"]))
    fake.now += 6
    assert "never arrived" in monitor.check(ours, slurm.snapshot(["7"])).reason


def test_a_permanently_failing_sacct_keeps_no_job_live_forever(tmp_path: Path) -> None:
    fake = Fake()
    fake.error = "Connection refused"
    slurm, monitor = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock), JobMonitor(5.0, fake.clock)
    ours = record(tmp_path)
    monitor.start(ours)
    verdicts = []
    for seconds in (0, SACCT_TIMEOUT - 1, 1, 6):
        fake.now += seconds
        verdicts.append(monitor.check(ours, slurm.snapshot(["7"])).verdict)
    assert verdicts == [Verdict.LIVE, Verdict.LIVE, Verdict.LIVE, Verdict.FAILED]


def test_ended_jobs_that_slurm_still_lists_are_orphans(tmp_path: Path) -> None:
    fake = Fake()
    slurm, ended = JobStatusQuery(0.0, Complaints(Logger()), fake.run, fake.clock), EndedJobs(fake.clock)
    fake.error = "Connection refused"  # sacct's: squeue alone says what is live
    for job_id in ("1", "2", "3", "4", "5"):
        ended.add(record(tmp_path, job_id=job_id))
    fake.now += 1
    # 1 is ending, 2 was started again, 3 has gone, SLURM has reused the id of 4, 5 has a long epilog
    fake.squeue = "1|RUNNING|None|train-u\n2|PENDING|None|train-u\n4|RUNNING|None|other\n5|COMPLETING|None|train-u\n"
    assert ended.pop_orphans(slurm.snapshot(ended.ids()), 30.0) == [("2", "train-u")]
    assert ended.ids() == ["1", "5"]
    fake.now += 30
    assert ended.pop_orphans(slurm.snapshot(ended.ids()), 30.0) == [("1", "train-u")]
    assert ended.ids() == ["5"]
    fake.squeue = ""
    assert ended.pop_orphans(slurm.snapshot(ended.ids()), 30.0) == []
    assert ended.ids() == []


def test_ids_go_in_batches_and_an_unknown_one_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, asked = Fake(), []

    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        if command[-1].endswith("=9"):  # as SLURM answers for a single id that it does not know
            return subprocess.CompletedProcess(command, 1, "", "slurm_load_jobs error: Invalid job id specified")
        return fake.run(command)

    monkeypatch.setattr(job_status_query, "IDS_PER_COMMAND", 2)
    fake.squeue = "1|RUNNING|None|train-u"
    slurm = JobStatusQuery(0.0, Complaints(Logger()), run, fake.clock)
    slurm.accounting = False
    snapshot = slurm.snapshot(["1", "2", "9"])
    assert asked == ["--jobs=1,2", "--jobs=9"]
    assert snapshot.jobs.keys() == {"1"}
    assert (snapshot.complete, slurm.last_error) == (True, "")
    fake.squeue, fake.error = None, "Unable to contact slurm controller"
    fake.now += 1
    assert slurm.snapshot(["1", "9"]) is snapshot  # nothing new is known
    assert slurm.last_error == "Unable to contact slurm controller"


def test_a_login_node_without_a_free_process_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", fail)
    slurm = JobStatusQuery(0.0, Complaints(Logger()))
    assert slurm.snapshot(["7"]) == Snapshot()
    assert "squeue cannot be started: [Errno 11]" in slurm.last_error


def test_bytes_that_are_no_text_do_not_matter() -> None:
    assert "name" in job_status_query.run_command(["printf", r"\377name"]).stdout
