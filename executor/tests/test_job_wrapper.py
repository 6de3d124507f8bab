"""The part on the compute node, run here without SLURM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import job_wrapper, processes
from snakemake_executor_plugin_submitit.files import claim, read_json, write_json
from snakemake_executor_plugin_submitit.job_wrapper import Job, count_idle, progress_token


@pytest.fixture(autouse=True)
def _as_in_a_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "outer")
    kept = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    directory = Path.cwd()
    yield
    os.chdir(directory)
    for number, handler in kept.items():
        signal.signal(number, handler)


def job(folder: Path, command: str, **changes: object) -> Job:
    return Job(uid="u", key=folder.name, folder=str(folder), command=command, directory=str(folder), **changes)  # type: ignore[arg-type]


def test_success_and_a_clean_environment(tmp_path: Path) -> None:
    assert job(tmp_path, "env > seen").run() == "finished"
    assert read_json(tmp_path / "result.json") == {"uid": "u", "job_id": "7", "outcome": "finished", "reason": ""}
    seen = (tmp_path / "seen").read_text()
    assert f"{processes.KEY_VARIABLE}={tmp_path.name}" in seen
    assert "SNAKEMAKE_PROFILE" not in seen
    (note,) = (json.loads(path.read_text()) for path in tmp_path.glob("attempt-*.json"))
    assert note["outcome"] == "finished"
    assert note["end"] >= note["start"]


def test_a_killed_command_is_told_and_its_use_is_noted(tmp_path: Path) -> None:
    log = tmp_path / "train-u_7_log.out"
    log.write_text("")
    assert job(tmp_path, f"echo 'x returned non-zero exit status 137.' > {log}; exit 1", mem_mb=500).run() == "failed"
    reason = (read_json(tmp_path / "result.json") or {})["reason"]
    assert "killed by signal 9 (SIGKILL)" in reason
    assert "of the 500 MB requested" in reason
    note = read_json(tmp_path / "attempt-001.json") or {}
    assert note["max_rss_mb"] > 0
    assert note["cpu_seconds"] > 0


def test_failure(tmp_path: Path) -> None:
    assert job(tmp_path, "exit 3").run() == "failed"
    assert "status 3" in (read_json(tmp_path / "result.json") or {})["reason"]


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("exit 3", 1)])
def test_slurm_sees_success_or_failure_by_the_exit_status(tmp_path: Path, command: str, status: int) -> None:
    # An exit, not a return: submitit would write into a folder that Snakemake may have deleted already.
    with pytest.raises(SystemExit) as end:
        job(tmp_path, command)()
    assert end.value.code == status


def test_only_its_own_processes_are_killed_at_the_end(tmp_path: Path) -> None:
    command = "sleep 60 > /dev/null 2>&1 & echo $! > own"
    successor = "env SNAKEMAKE_SUBMITIT_JOB=v-8 sleep 60 > /dev/null 2>&1 & echo $! > other"
    under_way = "until grep -q v-8 /proc/$!/environ; do sleep 0.05; done"
    assert job(tmp_path, f"{command}; {successor}; {under_way}").run() == "finished"
    own, other = (int((tmp_path / name).read_text()) for name in ("own", "other"))
    assert own not in processes.find_marked(tmp_path.name)
    assert processes.kill_marked(tmp_path.name) == [other]


def test_a_second_copy_of_a_submission_does_nothing(tmp_path: Path) -> None:
    claim(tmp_path / "claim.json", {"by": "job", "job_id": "6"})
    assert job(tmp_path, "touch ran").run() == "superseded"
    assert not (tmp_path / "ran").exists()


def test_a_blocked_submission_never_starts(tmp_path: Path) -> None:
    claim(tmp_path / "claim.json", {"by": "snakemake"})
    assert job(tmp_path, "touch ran").run() == "superseded"
    assert not (tmp_path / "ran").exists()


def test_a_requeue_after_the_end_does_nothing(tmp_path: Path) -> None:
    job(tmp_path, "echo x >> ran").run()
    assert job(tmp_path, "echo x >> ran").run() == "repeated"
    assert (tmp_path / "ran").read_text() == "x\n"


def test_the_warning_reaches_the_program_and_the_job_requests_a_requeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[int] = []
    signal.signal(signal.SIGUSR2, lambda signum, frame: requested.append(signum))  # in place of submitit's handler
    monkeypatch.setattr(job_wrapper, "query_state", lambda job_id: "RUNNING")
    monkeypatch.setattr(job_wrapper, "WARNING_INTERVAL", 0.2)
    program = (
        "import signal, sys, time, pathlib; signal.signal(signal.SIGUSR2, lambda *a: sys.exit(75)); "
        "pathlib.Path('ready').touch(); time.sleep(60)"
    )
    sender = subprocess.Popen(
        ["bash", "-c", f"until [ -e {tmp_path}/ready ]; do sleep 0.05; done; kill -USR2 {os.getpid()}"]
    )
    outcome = job(
        tmp_path,
        f'mkdir a b; echo log > a/the.json; echo other > b/the.json; {sys.executable} -c "{program}"',
        progress="p*",
        logs=[f"{tmp_path}/a/the.json", f"{tmp_path}/b/the.json", f"{tmp_path}/missing"],
    ).run()
    sender.wait()
    assert outcome == "requeue_requested"
    assert requested == [signal.SIGUSR2]
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "log-001.a_the.json").read_text() == "log\n"
    assert (tmp_path / "log-001.b_the.json").read_text() == "other\n"
    assert [path.name for path in tmp_path.glob("attempt-*.json")] == ["attempt-001.json"]  # each is a start
    assert (read_json(tmp_path / "attempt-001.json") or {})["outcome"] == "requeue_requested"


@pytest.mark.parametrize(
    ("status", "text", "state"),
    [(0, "CLUSTER: big\nRUNNING\n", "RUNNING"), (0, "PENDING\n", "PENDING"), (0, "", None), (1, "RUNNING", None)],
)
def test_the_state_of_the_job_itself(
    monkeypatch: pytest.MonkeyPatch, status: int, text: str, state: str | None
) -> None:
    answer = subprocess.CompletedProcess(["squeue"], status, text, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert job_wrapper.query_state("7") == state


def test_a_job_that_cannot_resume_ignores_the_warning(tmp_path: Path) -> None:
    command = f"kill -USR2 {os.getpid()}; sleep 0.2; touch done"
    assert job(tmp_path, command).run() == "finished"


def test_requeues_without_progress_end(tmp_path: Path) -> None:
    write_json(tmp_path / "requeues.json", {"token": progress_token(f"{tmp_path}/p*"), "idle": 1})
    assert job(tmp_path, "touch ran", progress=f"{tmp_path}/p*", limit=2).run() == "failed"
    assert "2 times in a row without progress" in (read_json(tmp_path / "result.json") or {})["reason"]
    assert not (tmp_path / "ran").exists()


def test_with_a_limit_of_none_the_first_start_still_runs(tmp_path: Path) -> None:
    assert job(tmp_path, "exit 3", limit=0).run() == "failed"
    assert job(tmp_path, "true", limit=0).run() == "repeated"
    assert "status 3" in (read_json(tmp_path / "result.json") or {})["reason"]
    (tmp_path / "result.json").unlink()
    assert job(tmp_path, "true", limit=0).run() == "failed"
    assert "1 times in a row without progress" in (read_json(tmp_path / "result.json") or {})["reason"]


def test_progress_resets_the_count() -> None:
    notes = None
    idle = []
    for token in "aabbbc":
        notes = count_idle(notes, token)
        idle.append(notes["idle"])
    assert idle == [0, 1, 0, 1, 2, 0]


def test_progress_token_follows_the_content(tmp_path: Path) -> None:
    pattern = f"{tmp_path}/**/progress.json"
    tokens = [progress_token(pattern)]
    (tmp_path / "deep").mkdir()
    for text in ("1", "2", "2"):
        (tmp_path / "deep" / "progress.json").write_text(text)
        tokens.append(progress_token(pattern))
    assert len(set(tokens)) == 3
    assert tokens[2] == tokens[3]


def test_left_over_processes_are_found_by_their_key_and_killed(tmp_path: Path) -> None:
    environment = os.environ | {processes.KEY_VARIABLE: tmp_path.name}
    # The parent dies at once; the child is on its own.
    subprocess.run(["bash", "-c", "sleep 60 >/dev/null 2>&1 &"], env=environment, check=True)
    while not (found := processes.find_marked(tmp_path.name)):  # its environment is empty while it is being started
        time.sleep(0.05)
    (pid,) = found
    assert processes.kill_marked(tmp_path.name) == [pid]
    deadline = time.monotonic() + 10
    while processes.find_marked(tmp_path.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes.find_marked(tmp_path.name)


def test_of_two_claims_one_wins(tmp_path: Path) -> None:
    assert claim(tmp_path / "c", {"by": "a"}) == {"by": "a"}
    assert claim(tmp_path / "c", {"by": "b"}) == {"by": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
