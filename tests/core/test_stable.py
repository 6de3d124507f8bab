"""Tables and figures stay when their results do."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.core.stable import write_table

OLD = 1_000_000_000


def table(value: float = 0.1 + 0.2, seconds: float = 1.5) -> pd.DataFrame:
    return pd.DataFrame({"method": ["mae", "base"], "value": [value, 0.5], "train_seconds": [seconds, 0.0]})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "scores.csv"
    assert write_table(target, table())
    os.utime(target, (OLD, OLD))
    return target


def test_other_seconds_leave_the_table_and_renew_its_time(target: Path) -> None:
    before = target.read_bytes()
    assert not write_table(target, table(seconds=99.0))
    assert target.read_bytes() == before
    assert target.stat().st_mtime > OLD


@pytest.mark.parametrize(
    "other",
    [
        table(value=0.3),  # one unit in the last place
        table().iloc[:1],
        table().iloc[::-1],
        table().drop(columns="train_seconds"),
        table().rename(columns={"value": "score"}),
        table(seconds=float("nan")),
    ],
)
def test_any_other_difference_is_written(target: Path, other: pd.DataFrame) -> None:
    assert write_table(target, other)
    assert target.read_text() == other.to_csv(index=False)


def test_a_table_without_measurements(tmp_path: Path) -> None:
    frame = table().drop(columns="train_seconds")
    assert write_table(tmp_path / "trivial_baselines.csv", frame)
    assert not write_table(tmp_path / "trivial_baselines.csv", frame)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b'a,"b\n1', b"method,value,train_seconds\nmae,0.3,x\n"])
def test_a_damaged_table_is_replaced(target: Path, damage: bytes) -> None:
    target.write_bytes(damage)
    assert write_table(target, table())
    assert target.read_text() == table().to_csv(index=False)
