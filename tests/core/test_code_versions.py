from __future__ import annotations

from pathlib import Path

import pytest

from lowdata_cpt.core import code_versions as codeversion
from lowdata_cpt.jobs.figures import FACTS
from lowdata_cpt.methods.registry import METHODS


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "methods").mkdir()
    (tmp_path / "shared.py").write_text("X = 1\n")
    (tmp_path / "methods/a.py").write_text('"""Doc."""\nfrom lowdata_cpt.shared import X\n\nY = X  # why\n')
    (tmp_path / "methods/b.py").write_text("Z = 3\n")
    monkeypatch.setattr(codeversion, "PACKAGE", tmp_path)
    codeversion._read.cache_clear()
    return tmp_path


def version(module: str) -> str:
    codeversion._read.cache_clear()
    return codeversion.code_version(module)


def test_code_imported_from_elsewhere_counts(package: Path) -> None:
    a, b = version("methods.a"), version("methods.b")
    (package / "shared.py").write_text("X = 2\n")
    assert version("methods.a") != a
    assert version("methods.b") == b


def test_comments_and_docstrings_do_not_count(package: Path) -> None:
    before = version("methods.a")
    (package / "methods/a.py").write_text('"""Another\n\ndoc."""\n\nfrom lowdata_cpt.shared import X\nY = X\n')
    assert version("methods.a") == before
    (package / "methods/a.py").write_text("from lowdata_cpt.shared import X\nY = X + 0\n")
    assert version("methods.a") != before


def test_facts_of_a_method_do_not_count() -> None:
    modules = codeversion.sources(*(module for method in METHODS for module in method.code_modules()))
    assert "methods.base" in modules
    assert "methods.dino.loss" in modules
    assert not {"methods.facts", "methods.dino.cost", "methods.glare.diagnostics"} & modules.keys()


def test_what_only_refuses_a_study_does_not_count() -> None:
    modules = codeversion.sources("language.data", "language.runs", "language.evaluation")
    assert {"study.load", "study.config"} <= modules.keys()
    assert "study.checks" not in modules


def test_facts_of_a_method_count_where_they_are_asked_for() -> None:
    modules = codeversion.sources("jobs.report", *FACTS)
    assert {"methods.facts", "methods.glare.config", "analysis.preconditions"} <= modules.keys()
    assert "methods.facts" not in codeversion.sources("jobs.report")


def test_methods_have_versions_of_their_own() -> None:
    trained = [codeversion.code_version(*m.code_modules()) for m in METHODS if m.learner_path]
    assert len(set(trained)) == len(trained)
