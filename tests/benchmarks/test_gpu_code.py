"""The code of the GPU tests and of `benchmarks/gpu.py`, run with the CPU as the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from tests.gpu import steps

CPU = torch.device("cpu")


def test_a_step_against_itself() -> None:
    steps.same_step("dino", "fp32", 1e-6, CPU)
    with pytest.raises(AssertionError):
        steps.same_step("dino", "bf16", 1e-9, CPU)


def test_a_resumed_run_of_vpretraining_knows_its_counts(tmp_path: Path) -> None:
    steps.resumed_is_equal("v_pretraining", CPU, tmp_path)


def test_features(tmp_path: Path) -> None:
    steps.same_features(CPU, tmp_path)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = gpu.main(["--device", "cpu", "--small", "--methods", "diet_cp", "--batch", "2", "--steps", "1"])
    assert row["images_per_s"] > 0
    assert set(row["seconds"]) == set(gpu.PARTS)
    assert "diet_cp" in capsys.readouterr().out
