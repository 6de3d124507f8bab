"""dvc.yaml: a stage depends on all that decides its results, and on no more of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lowdata_cpt.core.io import read_json
from lowdata_cpt.dev.golden import units
from tests.workflow.tiny import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STUDIES: dict[str, Any] = DVC["vars"][0]["studies"]


def chain(file: Path) -> list[Path]:
    """Return a study's file and those that it extends."""
    below = yaml.safe_load(file.read_text()).get("extends")
    return [file, *(chain(file.parent / below) if below else [])]


def parameters(stage: str, config: str) -> dict[str, Any]:
    found = (dict.fromkeys([one]) if isinstance(one, str) else one for one in DVC["stages"][stage]["do"]["params"])
    return {name.replace("${item.config}", config): keys for one in found for name, keys in one.items()}


@pytest.mark.parametrize("stage", ["data", "models", "evaluate"])
@pytest.mark.parametrize("study", STUDIES)
def test_a_stage_depends_on_every_file_of_its_configuration(study: str, stage: str) -> None:
    config = STUDIES[study]["config"]
    for file in chain(ROOT / config)[1:]:
        assert parameters(stage, config)[str(file.relative_to(ROOT))] is None, "all of it"


def test_a_stage_depends_on_versions_of_code_and_not_on_the_code() -> None:
    """An edit after which results are equal keeps the version: no result is out of date by it."""
    for stage in ("models", "evaluate"):
        assert parameters(stage, "")["config/code_versions.json"] == ["versions.images"]
    versions = read_json(ROOT / "config/code_versions.json")["versions"]
    assert versions["images"].keys() | versions["language"].keys() == units().keys()
    assert all(name.startswith("language.") for name in versions["language"])
    assert all(re.fullmatch("[0-9a-f]{12}", version) for kind in versions.values() for version in kind.values())


def test_what_the_drawing_reads_of_a_study_is_a_dependency_of_its_stage() -> None:
    tables = {out if isinstance(out, str) else next(iter(out)) for out in DVC["stages"]["evaluate"]["do"]["outs"]}
    assert tables <= set(DVC["stages"]["figures"]["do"]["deps"])
