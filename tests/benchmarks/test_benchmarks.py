"""Every benchmark at its smallest: both sides do the same work. Their times are not looked at."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.harness import Case, Flops, compare, matmuls, near

from benchmarks import __main__ as table
from benchmarks import devices, gpu
from lowdata_cpt.core.io import read_json


@pytest.mark.slow
@pytest.mark.parametrize("name", table.FILES)
def test_both_sides_do_the_same(name: str) -> None:
    for case in importlib.import_module(f"benchmarks.{name}").cases(small=True):
        row = compare(case, 1)
        assert row["parity"]
        assert row["ours_s"] > 0


def case(ours: object, other: object) -> Case:
    return Case("row", "it", 1.0, lambda: ours, lambda: other, lambda a, b: near(a, b, 1e-6, "result"))


def test_different_results_are_no_row() -> None:
    with pytest.raises(AssertionError, match="result"):
        compare(case(1.0, 1.1), 1)


def test_the_ratio_is_of_cpu_seconds() -> None:
    def busy(seconds: float) -> float:
        begun = time.process_time()
        while time.process_time() - begun < seconds:
            pass
        return 1.0

    def idle() -> float:
        time.sleep(0.2)
        return busy(0.02)

    row = compare(Case("row", "it", None, idle, lambda: busy(0.1), lambda a, b: near(a, b, 0.0, "result")), 2)
    assert row["ratio"] > 2
    assert row["ours_wall_s"] > 0.2


def test_a_limit_is_the_reference_of_a_row_without_another() -> None:
    def never() -> None:
        raise AssertionError("not to be run")

    def idle() -> float:
        time.sleep(0.2)
        return 0.3

    row = compare(
        Case("row", "a limit", 1.0, idle, never, lambda made, _: f"{made:g}", known=lambda made: 2 * made, wall=True), 2
    )
    assert (row["reference_s"], row["parity"]) == (0.6, "0.3")
    assert 0.2 <= row["ours_s"] < 0.6
    assert row["ratio"] == pytest.approx(0.6 / row["ours_s"], rel=0.01)


def test_matmuls_take_as_many_operations_as_asked_for() -> None:
    work = matmuls(3.5e9)
    with Flops() as counted:
        work()
    assert counted.total == pytest.approx(3.5e9, rel=0.01)


def test_operations_are_counted_as_pytorch_counts_them() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5))
    with FlopCounterMode(display=False) as theirs, Flops() as ours:
        model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert ours.total == theirs.get_total_flops() > 0


@pytest.mark.parametrize("module", [table, gpu, devices])
def test_the_page_shows_the_results(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, before = tmp_path / "page.md", module.PAGE.read_text(encoding="utf-8")
    page.write_text(before, encoding="utf-8")
    monkeypatch.setattr(module, "PAGE", page)
    module.write_page(read_json(module.RESULTS))
    assert page.read_text(encoding="utf-8") == before


def test_a_row_without_memory_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PAGE", tmp_path / "page.md")
    gpu.PAGE.write_text("a <!-- benchmarks/gpu.json -->\nold\n<!-- end --> b <!-- end --> c")
    row = {"method": "dino", "model": "vit_l", "batch": 32, "size": 224, "precision": "bf16", "error": "out of memory"}
    gpu.write_page({"card": "a card", "torch": "2", "rows": [row]})
    text = gpu.PAGE.read_text()
    assert "| dino | vit_l | out of memory" in text
    assert "old" not in text
    assert text.startswith("a <!-- ")
    assert text.endswith("<!-- end --> b <!-- end --> c")


def test_near_is_relative() -> None:
    assert near(torch.tensor([1e6]), torch.tensor([1e6 + 0.1]), 1e-6, "x").startswith("x equal to")
