from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean

import pytest

from lowdata_cpt import cli
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json
from lowdata_cpt.dev.generate import ROOT
from lowdata_cpt.jobs.forecast import Assumptions
from lowdata_cpt.jobs.forecast_language import BLOCKS, forecast, step_operations, weights_of
from lowdata_cpt.language.config import HubModel, load
from lowdata_cpt.language.plan import Paths
from tests.jobs.planned import planned_jobs

A = Assumptions()
NOWHERE = Paths("nowhere")
EMBEDDED, PAPER = (load(ROOT / f"config/{name}.yaml") for name in ("language", "language_paper"))


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "results/language" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_jobs_are_those_that_snakemake_lists(tmp_path: Path) -> None:
    found, listed = forecast(EMBEDDED, NOWHERE, A), planned_jobs("language", tmp_path)
    assert {**{rule: line.jobs for rule, line in found.lines.items()}, "total": found.jobs} == listed


def test_weights_are_those_of_the_model() -> None:
    assert weights_of(EMBEDDED.learners["bytes_1m"].model) == pytest.approx(
        int(rows("cost.csv")[0]["parameters"]), rel=1e-3
    )
    assert weights_of(PAPER.learners["qwen15_4b"].model) == 4e9
    assert weights_of(PAPER.learners["qwen25_05b"].model) == 5e8


def test_a_model_whose_size_nothing_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    model = HubModel(name="openai-community/gpt2")
    with pytest.raises(
        UserError, match=r"gpt2: its name has no size such as 0\.5B; expected its files in .*models/gpt2"
    ):
        weights_of(model)
    folder = tmp_path / "models/gpt2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(2000))
    assert weights_of(model) == 1000


def test_an_arm_with_a_designer_costs_what_it_was_measured_to() -> None:
    """V, φ and the pass over the feedback, as a ratio to next-token prediction in the same study, within a quarter."""
    of, seconds = EMBEDDED.learners["bytes_1m"], {}
    for arm in ("next_token", "v_pretraining_text"):
        seconds[arm] = mean(float(row["train_seconds"]) for row in rows("cost.csv") if row["arm"] == arm)
    plain, taught = (step_operations(of, arm, EMBEDDED.designer, of.training, 127) for arm in seconds)
    assert taught / plain == pytest.approx(seconds["v_pretraining_text"] / seconds["next_token"], rel=0.25)


def test_operations_by_hand() -> None:
    of = PAPER.learners["qwen25_05b_lora"]
    designer, length, weights, tokens = PAPER.designer, of.training, 5e8, 32 * 1024
    assert step_operations(of, "uniform_topk", designer, length, 200) == 4 * weights * tokens  # weights frozen
    phi, share = 99 * 256**2, 2 / BLOCKS
    taught = 4 * 1024 * ((4 + 12 * share) * weights + 6 * phi) + 16 * 200 * (4 + 4 * share) * weights
    expected = 4 * weights * tokens + 4 * (tokens * (2 * phi + 2 * 64 * 256) + taught / 8)
    assert step_operations(of, "v_pretraining_text", designer, length, 200, 4.0) == pytest.approx(expected)


def test_counted_windows_are_used_and_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    few = {"stream": [100, 1025], "problems": [10, 300]}
    for name in PAPER.learners:
        write_json(paths.data(name) / "manifest.json", {"shape": few})
    counted, assumed = (forecast(PAPER, of, A).lines["language_continue"].seconds for of in (paths, NOWHERE))
    assert counted < assumed / 2
    for content in ([], {}, {"shape": []}, {"shape": {"stream": [1, 2]}}, {"shape": {"problems": ["a", 2]}}):
        write_json(paths.data("qwen25_05b") / "manifest.json", content)
        with pytest.raises(UserError, match=r"manifest.json: damaged, expected the splits' shapes"):
            forecast(PAPER, paths, A)


def test_the_command_prints_hours_and_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    of = [
        "forecast",
        "--study",
        str(ROOT / "config/language_paper.yaml"),
        "--measured",
        str(ROOT / "benchmarks/gpu.json"),
    ]
    assert cli.main(of) == 0
    said = capsys.readouterr().out
    for part in ("language_continue", "GPU-hours", "60 TFLOP/s", "400,000,000 tokens"):
        assert part in said
    assert "sustained on" not in said  # a card's table is of the other studies' methods
