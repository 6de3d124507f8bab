from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import Sample, UndecodableError
from lowdata_cpt.data.domain import check_disjoint
from lowdata_cpt.data.store import ImageSet, Store, TaskInfo
from lowdata_cpt.data.writer import BATCH, Item, Splits, StoreWriter, write_splits
from tests.data.stores import with_index

SIDE = 4
TASKS = {
    "depth": TaskInfo(sets={}),
    "segmentation": TaskInfo(sets={}, classes=("a", "b")),
    "classification": TaskInfo(sets={}, classes=tuple("abcdefghij")),
}


def item(name: str, value: int, *, sha: str | None = None, bad: bool = False) -> Item:
    def decode() -> Sample:
        if bad:
            raise UndecodableError("empty file")
        return Sample(
            np.full((SIDE, SIDE, 3), value % 256, np.uint8),
            sha or f"sha-{name}",
            label=value % 10,
            segmentation=np.full((SIDE, SIDE), value % 2, np.uint8),
            depth=np.full((SIDE, SIDE), (1 + value) / 10, np.float32),
        )

    return Item(name, decode, f"s{value % 3}")


def items(prefix: str, count: int) -> list[Item]:
    return [item(f"{prefix}{i}", i) for i in range(count)]


def test_arrays_keep_the_order_over_many_batches(tmp_path: Path) -> None:
    count = 2 * BATCH + 7
    with StoreWriter(tmp_path, SIDE) as writer:
        write_splits(writer, "d", Splits(items("t", count), items("v", 5), items("e", 3)), TASKS)  # type: ignore[arg-type]
    store = Store(tmp_path)
    assert {n: len(store.rows(n)) for n in store.meta.sets} == {
        "pool": count, "train": count, "val": 5, "test": 3,
    }  # fmt: skip
    assert store.images("train")[:, 0, 0, 0].tolist() == [i % 256 for i in range(count)]
    assert store.labels("val").tolist() == [0, 1, 2, 3, 4]
    assert store.depth("test")[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert store.segmentation("pool")[:, 0, 0].tolist() == [i % 2 for i in range(count)]
    assert store.rows("val")["id"].tolist() == [f"v{i}" for i in range(5)]
    assert store.rows("train")["stratum"].tolist()[:4] == ["s0", "s1", "s2", "s0"]
    assert isinstance(store.images("train"), np.memmap)
    check_disjoint(store)


def test_bad_images_are_listed_and_leave_no_hole(tmp_path: Path) -> None:
    train = [item("t0", 0), item("t1", 1, bad=True), item("t2", 2)]
    with StoreWriter(tmp_path, SIDE, max_quarantined=0.5) as writer:
        writer.note("notes.txt", "no image file name")
        write_splits(writer, "d", Splits(train, items("v", 1), items("e", 1)), TASKS)  # type: ignore[arg-type]
    store = Store(tmp_path)
    assert (tmp_path / "quarantine.csv").read_text() == ("id,reason\nt1,empty file\nnotes.txt,no image file name\n")
    assert store.rows("train")["id"].tolist() == ["t0", "t2"]
    assert store.labels("train").tolist() == [0, 2]
    assert store.labels("val").tolist() == [0]


def test_too_many_bad_images(tmp_path: Path) -> None:
    train = [*items("t", 17), item("x", 1, bad=True), item("y", 1, bad=True)]
    with (
        pytest.raises(UserError, match=r"2 of 21 images cannot be used \(for one, x: empty file\).*max_quarantined"),
        StoreWriter(tmp_path, SIDE) as writer,
    ):
        write_splits(writer, "d", Splits(train, items("v", 1), items("e", 1)), TASKS)  # type: ignore[arg-type]
    assert not (tmp_path / "meta.json").exists()


def test_all_images_bad_is_an_error_whatever_the_limit(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIDE, max_quarantined=1.0) as writer:
        writer.add("pool", [item("x", 1, bad=True)], ())
        with pytest.raises(UserError, match="1 of 1 images"):
            writer.finish("d", "pool", {"pool": ImageSet(array="pool")}, {})


def test_copies_across_splits_are_left_out_and_do_not_count_as_bad(tmp_path: Path) -> None:
    train = [item("t0", 0), item("copy", 1, sha="sha-e0"), item("other", 1, sha="sha-v0"), item("t2", 2)]
    val = [item("v0", 0), item("v1", 1, sha="sha-e0")]
    with StoreWriter(tmp_path, SIDE, max_quarantined=0) as writer:
        write_splits(writer, "d", Splits(train, val, items("e", 1)), TASKS)  # type: ignore[arg-type]
    store = Store(tmp_path)
    check_disjoint(store)
    assert store.rows("pool")["id"].tolist() == ["t0", "t2"]
    assert store.rows("val")["id"].tolist() == ["v0"]
    assert (tmp_path / "quarantine.csv").read_text().splitlines()[1:] == [
        "v1,left out: the same bytes as test image e0",
        "copy,left out: the same bytes as test image e0",
        "other,left out: the same bytes as val image v0",
    ]


@pytest.mark.parametrize(("held_out", "called"), [("e0", "test"), ("v0", "validation")])
def test_check_disjoint_catches_a_leak(held_out: str, called: str, tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIDE) as writer:
        write_splits(writer, "d", Splits(items("t", 3), items("v", 1), items("e", 1)), TASKS)  # type: ignore[arg-type]
    store = with_index(tmp_path, "sha-t1", f"sha-{held_out}")
    with pytest.raises(UserError, match=f"t1 is a {called} image"):
        check_disjoint(store)


def test_empty_split(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIDE) as writer, pytest.raises(UserError, match="the val split has no image"):
        write_splits(writer, "d", Splits(items("t", 3), [], items("e", 1)), TASKS)  # type: ignore[arg-type]
    assert not (tmp_path / "meta.json").exists()


def test_two_images_of_one_id(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SIDE) as writer, pytest.raises(UserError, match="'t0'"):
        writer.add("pool", [item("t0", 0), item("t0", 1)], ())


def test_a_bug_in_decoding_is_not_quarantined(tmp_path: Path) -> None:
    def broken() -> Sample:
        raise ZeroDivisionError

    with StoreWriter(tmp_path, SIDE) as writer, pytest.raises(ZeroDivisionError):
        writer.add("pool", [Item("x", broken)], ())
