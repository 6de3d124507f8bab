"""One small render for all tests of the table-top domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowdata_cpt.core import packages
from lowdata_cpt.core.paths import REPOSITORY
from lowdata_cpt.data.tabletop import PACKAGES, render

COUNTS = {"pool": 2, "train": 4, "val": 2, "test": 3}


@pytest.fixture(scope="session")
def assets() -> Path:
    """The installed assets, shared with the study itself."""
    return packages.install(PACKAGES, REPOSITORY / ".cache" / "packages" / "tabletop")


@pytest.fixture(scope="session")
def rendered(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of scenes at 64 px."""
    target = tmp_path_factory.mktemp("tabletop")
    render(assets, target, resolution=64, counts=COUNTS, seed=3, processes=2, crop_size=32)
    return target
