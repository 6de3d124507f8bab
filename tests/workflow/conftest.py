"""One tiny study, run and committed once a session; tests get copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow import tiny


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the tiny study once. Not to be changed: take a copy (`study`)."""
    folder = tiny.tiny_study(tmp_path_factory.mktemp("finished") / "checkout")
    tiny.snakemake(folder, "--quiet", "all")
    tiny.git(folder, "init", "--quiet", "--initial-branch", "main")
    tiny.lowdata(folder, "publish")
    tiny.lowdata(folder, "dvc-commit")
    tiny.git(folder, "add", "--all")
    tiny.git(folder, "commit", "--quiet", "--message", "Run the study")
    return folder


@pytest.fixture
def copy_of(finished_study: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy the finished study, with its modification times, to a new checkout of a given name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(finished_study, tmp_path / name, symlinks=True))

    return copy


@pytest.fixture
def study(copy_of: Callable[[str], Path]) -> Path:
    """A copy of the finished study that a test may change."""
    return copy_of("checkout")
