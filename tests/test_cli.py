"""A wrong command is one sentence and status 2, whatever the command."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import torch

from lowdata_cpt import cli
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json
from lowdata_cpt.language import plan
from lowdata_cpt.reproduce import dvc
from lowdata_cpt.study import grid
from lowdata_cpt.study.load import load

STUDY = """study: small
backbones: {tiny: {model: vit_tiny_patch16_224, weights: random, image_size: 32}}
domains: {camvid: {sizes: [4]}}
methods: {base: {}, dino: {}}
training: {epochs: 1}
"""
OF_STUDY = ["--study", "study.yaml"]
CELL = "tiny/camvid/dino/n4/s0"
# Each command with a mistake, and what its sentence names.
MISTAKES: dict[str, tuple[list[str], str]] = {
    "validate": (["absent.yaml"], "absent.yaml"),
    "init": (["nowhere"], "nowhere: no such folder"),
    "data": ([*OF_STUDY, "--domain", "nuclei"], "nuclei"),
    "backbone": ([*OF_STUDY, "--backbone", "large"], "large"),
    "subset": ([*OF_STUDY, "--domain", "camvid", "--n", "4", "--seed", "0"], "manifest.json"),
    "pretrain": ([*OF_STUDY, "--cell", CELL], "model.safetensors: missing"),
    "evaluate": ([*OF_STUDY, "--cell", "tiny/camvid/mae/n4/s0"], "has no such cell"),
    "diagnostics": ([*OF_STUDY, "--cell", "camvid"], "expected BACKBONE/DOMAIN/METHOD/nN/sSEED"),
    "trivial-baselines": (["absent.json", "--out", "x.csv"], "absent.json"),
    "collect": (["--params", "{", "--not-run", "{}", "--results", "r"], "not JSON"),
    "pack": (["--study", "absent"], "absent.yaml"),
    "restore": (["--study", "absent"], "absent.yaml"),
    "partial": (["--study", "absent"], "absent.yaml"),
    "examples": (["nowhere", "--backbone", "b", "--domain", "d"], "study.json"),
    "statistics": (["nowhere"], "scores.csv"),
    "claims": (["nowhere"], "scores.csv"),
    "figures": (["nowhere"], "nowhere"),
    "report": (["nowhere"], "nowhere"),
    "headline": (["nowhere"], "nowhere"),
    "tables": (["nowhere"], "scores.csv"),
    "forecast": (["--study", "absent.yaml"], "absent.yaml"),
    "language": (["collect"], "--study is missing"),
    "scale-down": (["--study", "absent.yaml"], "absent.yaml"),
    "pull": (["--study", "nowhere"], "dvc cache dir"),
    "push": (["--study", "nowhere"], "dvc cache dir"),
    "publish": (["--study", "nowhere"], "nowhere"),
    "dvc-commit": (["--study", "nowhere"], "error: config/nowhere.yaml: no such file"),
    "verify": (["--study", "nowhere"], "dvc cache dir"),
    "crate": (["--study", "nowhere"], "nowhere"),
    "compare": (["none.csv", "none.csv"], "none.csv"),
}


def test_every_command_has_a_mistake_here() -> None:
    assert set(MISTAKES) == set(cli.cli.commands)


@pytest.mark.parametrize("command", ["pack", "verify", "pull"])
def test_a_file_in_place_of_a_studys_name_is_one_sentence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--study", "config/quick.yaml"]) == 2
    assert "--study config/quick.yaml: is a file; expected a study's name, here quick" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pack", "restore", "publish", "verify", "dvc-commit", "pull", "partial", "crate"])
@pytest.mark.parametrize("name", ["", ".", "..", "A b", "x" * 3000])
def test_what_is_no_studys_name_is_one_sentence(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--study", name]) == 2
    said = capsys.readouterr().err
    assert "expected a study's name" in said
    assert len(said) < 300


@pytest.mark.parametrize("arguments", [["init", ""], ["init", "x", "--out", ""], ["headline", ""], ["validate", ""]])
def test_an_empty_path_is_not_the_working_directory(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "it is empty; expected a path" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x", "a/b/c/n1/s0"])
def test_a_cell_that_is_none_is_refused_before_the_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    write_json("results/small/study.json", load("study.yaml").model_dump(mode="json"))
    monkeypatch.setattr(dvc, "cache_folder", lambda: None)
    assert cli.main(["verify", "--study", "small", "--cell", name]) == 2
    shown = capsys.readouterr()
    assert f"error: cell '{name}': " in shown.err
    assert not shown.out


@pytest.mark.parametrize("end", ["s01", "s٠", f"s{'9' * 5000}"])
def test_a_number_of_a_cell_is_written_one_way(end: str) -> None:
    for parse, name in ((grid.parse_cell, f"a/b/c/n1/{end}"), (plan.parse_cell, f"a/b/{end}")):
        with pytest.raises(UserError, match="expected ") as error:
            parse(name)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("command", ["headline", "report", "tables"])
def test_a_folder_without_scores_is_no_answer(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results/yard/data").mkdir(parents=True)
    assert cli.main([command, "results/yard"]) == 2
    assert "scores.csv" in capsys.readouterr().err
    assert [path.name for path in Path("results/yard").iterdir()] == ["data"]


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_status_2(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    arguments, named = MISTAKES[command]
    assert cli.main([command, *arguments]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert "Traceback" not in said
    assert sum(line.lower().startswith("error: ") for line in said.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "results/x.csv"), "error: results/x.csv: No space left on device"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "smaller training.batch_size"),
    ],
)
def test_a_full_disk_or_device_is_one_sentence(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.cli.commands, "fail", fail)
    assert cli.main(["fail"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", ["--tflops", "--gbytes", "--startup"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_a_rate_that_is_no_number_above_zero_is_one_sentence(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    assert cli.main(["forecast", *OF_STUDY, option, value]) == 2
    assert option in capsys.readouterr().err


def test_seconds_between_checkpoints_are_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", *OF_STUDY, "--cell", CELL, "--checkpoint-seconds", "nan"]) == 2
    assert "--checkpoint-seconds" in capsys.readouterr().err
