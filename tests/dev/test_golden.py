"""An edit keeps a version where the golden cell's digest is equal and the changed module ran: nothing re-runs by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.dev import golden

MODULE = "methods.mae.loss"
NAME = "methods.mae"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of two units by an older source: one of this machine, one of another."""
    path = tmp_path / "code_versions.json"
    monkeypatch.setattr(golden, "RECORDED", path)
    monkeypatch.setattr(golden, "units", lambda: {NAME: golden.Unit((MODULE,), str), "other": UNCHANGED})
    monkeypatch.setattr(golden, "machine", lambda: "here")
    return path


UNCHANGED = golden.Unit(("methods.tec.loss",), str)


def write(path: Path, machine: str) -> None:
    old = {"source": "old", "digest": "as before", "machine": machine, "modules": {MODULE: "old"}}
    source = golden.source_version(*UNCHANGED.modules)
    other = {"source": source, "digest": "d", "machine": "elsewhere", "modules": {}}
    versions = {"images": {NAME: "v1", "other": "v2"}, "language": {}}
    write_json(path, {"versions": versions, "units": {NAME: old, "other": other}})


def outcome(monkeypatch: pytest.MonkeyPatch, digest: str, *ran: str) -> list[list[str]]:
    """Let the golden cells have a digest; return the names for which the last commit's are asked."""
    asked: list[list[str]] = []

    def of_commit(names: list[str]) -> dict[str, str]:
        asked.append(names)
        return dict.fromkeys(names, "as on this machine")

    monkeypatch.setattr(golden, "compute", lambda names: {name: golden.Outcome(digest, {*ran}) for name in names})
    monkeypatch.setattr(golden, "_digests_of_commit", of_commit)
    return asked


@pytest.mark.parametrize(
    ("digest", "ran", "kept"), [("as before", MODULE, True), ("another", MODULE, False), ("as before", "", False)]
)
def test_equal_results_of_code_that_ran_keep_the_version(
    digest: str, ran: str, kept: bool, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(recorded, "here")
    asked = outcome(monkeypatch, digest, ran)
    golden.record()
    found: dict[str, Any] = read_json(recorded)
    assert (found["versions"]["images"][NAME] == "v1") == kept
    assert found["versions"]["images"]["other"] == "v2"
    assert not asked
    assert golden.unrecorded() == []


@pytest.mark.parametrize(("digest", "kept"), [("as on this machine", True), ("as before", False)])
def test_digests_of_another_machine_are_not_compared(
    digest: str, kept: bool, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(recorded, "elsewhere")
    asked = outcome(monkeypatch, digest, MODULE)
    golden.record()
    found: dict[str, Any] = read_json(recorded)
    assert asked == [[NAME]]
    assert (found["versions"]["images"][NAME] == "v1") == kept
    # What was not computed here is still of the machine that computed it.
    assert {name: unit["machine"] for name, unit in found["units"].items()} == {NAME: "here", "other": "elsewhere"}
