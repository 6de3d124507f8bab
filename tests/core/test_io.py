from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lowdata_cpt.core import io
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import (
    atomic_path,
    identity,
    is_intact,
    read_arrays,
    read_json,
    sha256_file,
    write_array,
    write_arrays,
    write_json,
    write_text,
)


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


def test_json_identities_and_hashes_are_these_bytes(tmp_path: Path) -> None:
    value = {"ä": [1], "a": None}
    write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_bytes() == '{\n "a": null,\n "ä": [\n  1\n ]\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == value
    assert identity(value) == hashlib.sha256(b'{"a":null,"\\u00e4":[1]}').hexdigest()
    long = tmp_path / "long"
    long.write_bytes(b"a" * 2**20 + b"b")
    assert sha256_file(long) == hashlib.sha256(b"a" * 2**20 + b"b").hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "a", list[Path]()
    path.write_bytes(b"one")
    sha256 = sha256_file(path)
    monkeypatch.setattr(io, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    assert [is_intact(path, sha256), is_intact(path, sha256), is_intact(path, None)] == [True, True, False]
    assert read == [path]
    path.write_bytes(b"other")
    assert not is_intact(path, sha256)
    assert read == [path, path]


def test_arrays_come_back_and_damage_is_named(tmp_path: Path) -> None:
    arrays = {"a/b": np.arange(6, dtype=np.int16).reshape(2, 3), "c": np.array([0.5, np.nan])}
    write_arrays(tmp_path / "a.npz", arrays)
    # The same bytes by every release of Python: no zip64 header ("version needed" 2.0, sizes in place).
    written = (tmp_path / "a.npz").read_bytes()
    assert written[4:6] == b"\x14\x00"
    assert b"\xff\xff\xff\xff" not in written[:30]
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    write_array(tmp_path / "a.npy", arrays["c"])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), arrays["c"])
    objects = np.array([{}], dtype=object)
    for write in (
        lambda: write_array(tmp_path / "o.npy", objects),
        lambda: write_arrays(tmp_path / "o.npz", {"o": objects}),
    ):
        with pytest.raises(ValueError, match="pickle"):
            write()
    np.savez(tmp_path / "o.npz", o=objects)  # a pickle inside
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    for name in ("o.npz", "cut.npz", "gone.npz"):
        with pytest.raises(UserError, match=rf"{name}: (not a readable \.npz of arrays \(|no such file)"):
            read_arrays(tmp_path / name)
