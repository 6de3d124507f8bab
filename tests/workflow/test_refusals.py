"""What makes no sense stops a dry run, as it stops `validate`: one sentence, nothing computed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.workflow import tiny


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {batch_size: 1.0e+15}", "training.batch_size: Input should be less than or equal to 65536"),
        ("seeds: [0]\nseeds: [1]", "line 4: key 'seeds' is given twice, first in line 3"),
        ("backbones: {tiny: {weights: 'file:none.safetensors'}}", "none.safetensors is no file"),
        ("domains: {camvid: {root: elsewhere}}", "no data in data/elsewhere"),
    ],
)
def test_a_dry_run_refuses_with_one_sentence(text: str, expected: str, tmp_path: Path) -> None:
    folder = tiny.tiny_study(tmp_path / "checkout")
    (folder / "mine.yaml").write_text(f"extends: config/quick.yaml\nstudy: mine\n{text}\n")
    done = tiny.snakemake(folder, "--dry-run", "--configfile", "mine.yaml", fails=True)
    said = done.stdout + done.stderr
    assert expected in said
    assert "mine.yaml" in said
    assert "Traceback" not in said


def test_a_file_is_laid_over_the_one_beside_it(tmp_path: Path) -> None:
    folder = tiny.tiny_study(tmp_path / "checkout")
    (folder / "mine.yaml").write_text("extends: config/quick.yaml\nstudy: mine\n")
    assert "results/mine" in tiny.snakemake(folder, "--dry-run", "--configfile", "mine.yaml").stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_second_run_of_a_study_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    folder = tiny.tiny_study(tmp_path / "checkout")
    command = ["snakemake", "--cores", "1"]
    first = subprocess.Popen(
        command, cwd=folder, env=tiny.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (folder / ".snakemake/holders/quick").exists():
            assert first.poll() is None, "the first run ended before it began"
            time.sleep(0.05)
        second = tiny.run(folder, *command, fails=True)
        assert f"study quick is being run by process {first.pid} on " in second.stdout + second.stderr
        assert "cannot be locked" in second.stdout + second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert "is being run by" not in tiny.snakemake(folder, "--dry-run", "--rerun-incomplete").stderr
