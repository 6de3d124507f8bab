"""The exported crate is a Workflow Run Crate: one action a sidecar, references resolve, files are there."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_file, write_json, write_text
from lowdata_cpt.core.provenance import write_provenance, write_sidecar
from lowdata_cpt.reproduce.crate import PROFILES, write_crate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/quick")
    write_text("Snakefile", "rule all:\n    input: []\n")
    write_text("workflow/rules/a.smk", "rule a:\n")
    write_text("config/claims.yaml", "claims: []\n")
    write_json(folder / "study.json", {"study": "quick"})
    write_text(folder / "cells/m/export/model.safetensors", "weights")
    write_text(folder / "cells/m/linear.json", "{}")
    write_sidecar(
        folder / "cells/m/linear.json",
        inputs=[folder / "cells/m/export/model.safetensors", folder / "study.json"],
        config={"seed": 1, "probe": {"k": 20}},
        seconds=12.5,
    )
    (folder / "cells/m/export/model.safetensors").unlink()
    write_text(folder / "scores.csv", "a,b\n1,2\n")
    write_sidecar(folder / "scores.csv", inputs=[folder / "cells/m/linear.json", "config/claims.yaml"])
    return folder


def graph(path: Path) -> dict[str, dict[str, Any]]:
    content = json.loads(path.read_text())
    assert "https://w3id.org/ro/crate/1.1/context" in content["@context"]
    entities = content["@graph"]
    assert len({e["@id"] for e in entities}) == len(entities), "an entity is described twice"
    return {e["@id"]: e for e in entities}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else [r for v in value.values() for r in references(v)]
    return [r for v in value for r in references(v)] if isinstance(value, list) else []


def test_root_names_profiles_workflow_and_runs(folder: Path) -> None:
    found = graph(write_crate("quick"))
    root, descriptor = found["./"], found["ro-crate-metadata.json"]
    assert root["@type"] == "Dataset"
    assert {one["@id"] for one in root["conformsTo"]} == set(PROFILES)
    assert {"name", "description", "datePublished", "license"} <= set(root)
    assert descriptor["about"] == {"@id": "./"}
    workflow = found[root["mainEntity"]["@id"]]
    assert workflow["@type"] == ["File", "SoftwareSourceCode", "ComputationalWorkflow"]
    assert found[workflow["programmingLanguage"]["@id"]]["@type"] == "ComputerLanguage"
    actions = {i for i, e in found.items() if e["@type"] == "CreateAction"}
    assert {one["@id"] for one in root["mentions"]} == actions


def test_one_action_a_sidecar(folder: Path) -> None:
    found = graph(write_crate("quick"))
    actions = {i: e for i, e in found.items() if e["@type"] == "CreateAction"}
    names = {p.relative_to(folder).as_posix().removesuffix(".prov.json") for p in folder.rglob("*.prov.json")}
    assert set(actions) == {f"#run/{name}" for name in names} | {"#run"}
    for name in names:
        action = actions[f"#run/{name}"]
        assert [one["@id"] for one in action["result"]] == [name]
        assert found[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
        datetime.fromisoformat(action["endTime"])
    linear = actions["#run/cells/m/linear.json"]
    begun, ended = (datetime.fromisoformat(linear[key]) for key in ("startTime", "endTime"))
    assert (ended - begun).total_seconds() == 12.5
    objects = [found[one["@id"]] for one in linear["object"]]
    assert {e["name"]: e.get("value") for e in objects if e["@type"] == "PropertyValue"} == {
        "seed": "1",
        "probe": '{"k": 20}',
    }
    assert [e["name"] for e in objects if e["@type"] == "CreativeWork"] == ["model.safetensors"]
    assert found["#run"]["instrument"] == found["./"]["mainEntity"]


def test_references_resolve_and_files_are_inside(folder: Path) -> None:
    found = graph(write_crate("quick"))
    for entity in found.values():
        for reference in references({k: v for k, v in entity.items() if k != "@id"}):
            assert reference in found or reference.startswith("https://"), f"{entity['@id']} -> {reference}"
    files = {i: e for i, e in found.items() if "File" in e["@type"]}
    assert "used/config/claims.yaml" in files
    for name, entity in files.items():
        assert sha256_file(folder / name) == entity["sha256"]
    assert {one["@id"] for one in found["./"]["hasPart"]} == set(files)


def test_the_same_study_gives_the_same_crate(folder: Path) -> None:
    first = write_crate("quick").read_bytes()
    assert write_crate("quick").read_bytes() == first


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "cells/m/linear.json").unlink()
    with pytest.raises(UserError, match=r"linear\.json: missing; run `make pull`"):
        write_crate("quick")
    with pytest.raises(UserError, match="neither provenance"):
        write_crate("paper")


def test_a_published_study_gives_the_same_runs_without_their_times(folder: Path) -> None:
    def runs() -> dict[str, dict[str, Any]]:
        found = graph(write_crate("quick"))
        kept = {i: e for i, e in found.items() if e["@type"] == "CreateAction"}
        return {i: {k: v for k, v in e.items() if k not in ("startTime", "endTime")} for i, e in kept.items()}

    before = runs()
    write_provenance(folder)
    for sidecar in folder.rglob("*.prov.json"):
        sidecar.unlink()
    assert runs() == before
    found = graph(folder / "ro-crate-metadata.json")
    assert "endTime" not in found["#run/scores.csv"]
    assert found["#run"]["endTime"] == found["./"]["datePublished"]


def test_weights_that_were_deleted_after_scoring_are_named(folder: Path) -> None:
    model = folder / "cells/m/export/model.safetensors"
    write_text(model, "weights")
    write_sidecar(model)
    model.unlink()
    found = graph(write_crate("quick"))
    (result,) = found["#run/cells/m/export/model.safetensors"]["result"]
    assert found[result["@id"]]["@type"] == "CreativeWork"
