"""Settings of a language study: what is refused, what the project's studies say, what must be here to run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lowdata_cpt.cli import main
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.language import plan, text, tokens
from lowdata_cpt.language.config import ARMS, HubModel, Length, load, validate
from tests.language import tiny
from tests.language.test_data import hub
from tests.workflow.tiny import ROOT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"designer.alpha_max": 1.5}, r"designer.alpha_max: .*less than or equal to 0.5.*1.5"),
        ({"arms": ["next_token", "magic"]}, r"arms.1: .*'next_token', 'uniform_topk'.*magic"),
        ({"arms": ["v_pretraining_text"]}, "arms must have `next_token`"),
        ({"designer.alpha": 0.1}, r"designer.alpha: unknown key; did you mean 'alpha_max'"),
        ({"data.stream": {"prose": 0.5}}, r"the shares add up to 0.5; expected 1"),
        ({"learners.tiny.training.epochs": 2}, "exactly one of `steps` and `epochs`"),
        (
            {"learners.tiny.model": {"kind": "hub", "name": "Qwen/Qwen2.5-0.5B"}},
            "`pretraining` is for models of kind bytes",
        ),
        ({"designer.last_layers": 4}, r"tiny has 3 layers; designer.last_layers asks for more"),
        ({"learners.tiny.model.heads": 3}, r"hidden is 16; expected a multiple of 2 · heads, 6"),
        ({"learners.tiny.training.accumulation": 4}, r"accumulation is 4; expected at most batch_size, 2"),
        (
            {"learners.tiny.pretraining.schedule": {"final_lr": 0.1}},
            r"schedule.final_lr is 0.1; expected at most the peak",
        ),
        ({"learners.tiny.lora.targets": []}, r"learners.tiny.lora.targets: .*at least 1"),
        (
            {"learners.tiny.lora.targets": ["q_proj", "qkv"]},
            r"lora.targets: \['qkv'\]; expected some of q_proj, k_proj",
        ),
        ({"designer.every": 3}, r"designer.every is 3; expected fewer than the 3 steps of learners.tiny.training"),
        ({"designer.burn_in": 9}, r"designer.burn_in is 9; expected fewer than the 3 steps of learners.tiny.training"),
        ({"feedback": 5000}, r"ask for 5004 problems of kind change"),
        *(
            (
                {"data": hub().model_dump() | {"stream": {"name": "a/b", "files": files}}},
                "stream.files: .*a pattern of files below",
            )
            for files in ("/etc/*", "../*.parquet", "a**/b", "", "data/")
        ),
    ],
)
def test_wrong_settings_are_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(tiny.changed(change), "x.yaml")


def test_the_projects_studies_are_valid_and_say_what_the_source_says() -> None:
    small, paper = load(ROOT / "config/language.yaml"), load(ROOT / "config/language_paper.yaml")
    assert small.arms == paper.arms == ARMS
    assert len(list(plan.cells(small))) == 25
    assert small.keep_models
    assert (small.designer.burn_in, paper.designer.burn_in) == (200, 0)
    text.held_out(small.data.target, (small.evaluation.problems, small.feedback), small.data.seed)  # type: ignore[union-attr]
    assert small.feedback == paper.feedback == 1024
    lora = paper.learners["qwen25_05b_lora"]
    assert lora.lora is not None
    assert (lora.lora.rank, lora.lora.alpha, lora.lora.dropout, len(lora.lora.targets)) == (8, 16, 0.05, 7)
    assert (lora.training.optimiser.lr, lora.training.optimiser.clip, lora.training.steps) == (2e-4, 1.0, 2000)
    of = paper.designer
    assert (of.candidates, of.alpha_max, of.every, of.last_layers, of.hidden, of.layers) == (64, 0.5, 8, 2, 256, 6)


def test_missing_hub_files_and_models_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    assert main(["validate", str(ROOT / "config/language_paper.yaml")]) == 2
    assert "NuminaMath-CoT/data/train-*.parquet: no such file; expected the hub's" in capsys.readouterr().err
    (tmp_path / "models/Nothing").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Some/Nothing: cannot be opened .*hf download Some/Nothing"):
        tokens.tokens_of(HubModel(name="Some/Nothing"))


def test_a_model_of_the_hub_that_cannot_be_had_is_told_by_validate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny.raw()
    learner = content["learners"]["tiny"] | {"model": {"kind": "hub", "name": "Qwen/Qwen2.5-0.5B"}}
    del learner["pretraining"]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content | {"learners": {"tiny": learner}}))
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["validate", str(file)]) == 2
    said = capsys.readouterr().err
    assert (
        "learners.tiny.model: Qwen/Qwen2.5-0.5B would have to come from the model hub, and HF_HUB_OFFLINE is set"
        in said
    )
    folder = tmp_path / "models/Qwen2.5-0.5B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert main(["validate", str(file)]) == 2
    assert f"{folder} has no config.json or no *.safetensors" in capsys.readouterr().err
    (folder / "model.safetensors").touch()
    assert main(["validate", str(file)]) == 0


def test_a_cell_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "config/language.yaml")
    assert main(["language", "continue", "--study", file, "--cell", "bytes_1m/magic/s0"]) == 2
    assert "study language has no such cell" in capsys.readouterr().err
    assert main(["language", "evaluate", "--study", file, "--cell", "bytes_1m"]) == 2
    assert "expected LEARNER/ARM/sSEED" in capsys.readouterr().err


def test_steps_and_milestones_are_the_loops() -> None:
    training = Length(steps=10, batch_size=4, milestones=2).training(15)
    assert training.steps(15) == 10
    assert list(training.milestone_steps(15)) == [5, 10]
    assert Length(epochs=2, batch_size=4).training(15).steps(15) == 8
