"""A cluster that is not there, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.chdir(tmp_path)
    return Cluster()
