"""A cluster that is not there, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_cluster import Cluster
from snakemake_executor_plugin_submitit import waiting


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A job that waits for room in its queue tries again at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.0)
    return Cluster(monkeypatch)
