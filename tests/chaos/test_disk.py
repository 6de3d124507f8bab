"""A full disk and a read-only one: one sentence names file and room, what was there stays, the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lowdata_cpt.core import io
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.jobs import evaluate, inputs
from lowdata_cpt.jobs.pretrain import pretrain
from lowdata_cpt.study import job_params
from lowdata_cpt.study.paths import Paths
from tests.chaos import study
from tests.chaos.conftest import Record, count
from tests.chaos.study import CELLS, PATHS, STUDY, digest

MEGABYTES = 24
MAE = CELLS["mae"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield place
    os.chdir("/")
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Write a file that leaves `left` bytes of the disk."""
    filler = disk / "filler"
    filler.write_bytes(b"0" * max(shutil.disk_usage(disk).free - left, 0))
    return filler


def decode() -> None:
    inputs.data(job_params.data_params(STUDY, "camvid"), PATHS.manifest("camvid"))


def train() -> None:
    pretrain(job_params.pretrain_params(STUDY, MAE), MAE, PATHS, device="cpu", checkpoint_seconds=0.0)


def score() -> None:
    evaluate.evaluate(job_params.evaluate_params(STUDY, MAE), MAE, PATHS, device="cpu")


STEPS: dict[str, tuple[Callable[[], None], tuple[Path, ...]]] = {
    "decode": (decode, (PATHS.manifest("camvid").parent,)),
    "train": (train, (PATHS.cell(MAE) / "export",)),
    "evaluate": (score, tuple(PATHS.cell(MAE) / name for name in ("evaluation.json", "outcomes.npz"))),
    "collect": (study.gather, (PATHS.of_study("scores.csv"), PATHS.of_study("outcomes"))),
    "analyse": (study.analyse, (PATHS.of_study("statistics"), PATHS.of_study("claims.json"))),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWDATA_DATA", "data")
        patch.chdir(folder)
        study.make(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    finished: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """Each step fails at every amount of room that is too little, in parts of what it needs."""
    monkeypatch.setenv("LOWDATA_DATA", "data")
    shutil.copytree(finished, disk, dirs_exist_ok=True)
    monkeypatch.chdir(disk)
    steps, full, early = count(12, 3), 0, 0
    for name, (work, results) in STEPS.items():
        free = shutil.disk_usage(disk).free
        work()
        good = digest(*results)
        for part in range(steps):
            filler = fill(disk, int(3e6 * part / steps))
            said = ""
            try:
                work()
                early += 1
            except UserError as error:
                full += 1
                said = str(error)
            assert not said or ("no space is left (" in said and "MB are free" in said and "\n" not in said), said
            filler.unlink()
            io._held.clear()
            work()
            assert digest(*results) == good, f"{name}: another result after a full disk"
        assert shutil.disk_usage(disk).free >= free - 2e6, f"{name}: leaves files behind"
    record(
        "full disk", {"steps at too little room": full, "that had enough": early, "other results": 0, "tracebacks": 0}
    )
    assert full > steps


def test_a_file_that_stands_stays_when_the_disk_is_full(disk: Path) -> None:
    target = disk / "table.csv"
    io.write_text(target, "whole\n")
    fill(disk, 4096)
    with pytest.raises(UserError, match=r"table\.csv: cannot be written, no space is left \(.* MB are free") as caught:
        io.write_text(target, "x" * 10**6)
    assert "\n" not in str(caught.value)
    assert target.read_text() == "whole\n"
    assert [path.name for path in disk.iterdir() if path.name != "filler"] == ["table.csv"]


def test_read_only_results_are_one_sentence(disk: Path) -> None:
    paths = Paths(disk / "results/s")
    io.write_text(paths.of_study("scores.csv"), "whole\n")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match=r"scores\.csv: cannot be written, the file system is read-only"):
        io.write_text(paths.of_study("scores.csv"), "other\n")
    assert paths.of_study("scores.csv").read_text() == "whole\n"
