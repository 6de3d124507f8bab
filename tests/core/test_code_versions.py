from __future__ import annotations

from pathlib import Path

import pytest

from lowdata_cpt.core import code_versions as codeversion
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


def test_the_ledger_does_not_count(package: Path) -> None:
    text = "class A:\n    deviations: tuple[str, ...] = (\n        {!r},\n    )\n    rate: float = {}\n"
    versions = []
    for prose, rate in (("one", 1), ("another, longer one", 1), ("one", 2)):
        (package / "methods/b.py").write_text(text.format(prose, rate))
        versions.append(version("methods.b"))
    assert versions[0] == versions[1] != versions[2]


def test_methods_have_versions_of_their_own() -> None:
    trained = [m.code_version() for m in METHODS if m.learner_path]
    assert len(set(trained)) == len(trained)
