from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.analysis import synthetic_study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def scores() -> pd.DataFrame:
    return synthetic_study.scores()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one domain, two methods and two seeds, with every optional file."""
    folder = tmp_path_factory.mktemp("small")
    return synthetic_study.study(folder, domains=("tabletop",), seeds=2, methods=("diet_cp", "dino"))


@pytest.fixture(scope="session")
def claims_file() -> Path:
    return ROOT / "config" / "claims.yaml"
