from __future__ import annotations

import os
from pathlib import Path

import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, identity, read_json, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert read_json(target) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_equal_values_have_equal_bytes_and_identities(tmp_path: Path) -> None:
    first, second = {"a": 1, "b": [1.5, None]}, {"b": [1.5, None], "a": 1}
    write_json(tmp_path / "1", first)
    write_json(tmp_path / "2", second)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert identity(first) == identity(second) != identity({"a": 2, "b": [1.5, None]})


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_bad_json_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"facts\.json"):
        read_json(path)


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    left, other = tmp_path / ".table.0123abc_.csv", tmp_path / ".tables.0123abc_.csv"
    for path in (left, other):
        path.write_text("half")
    with atomic_path(target) as first, atomic_path(target) as second:
        assert not left.exists()
        assert first.exists()
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "table.csv"]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced = tmp_path / "a.json", list[tuple[int, str, bool]]()

    def fsync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, os.pread(handle, 99, 0).decode(), target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(target, "whole")
    assert synced == [(target.stat().st_ino, "whole", False)]
