"""A wrong command is one sentence and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lowdata_cpt import cli


@pytest.mark.parametrize("arguments", [["claims", "nowhere"], ["compare", "none.csv", "none.csv"]])
def test_an_error_is_one_sentence_and_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said


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
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["claims", "x"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
