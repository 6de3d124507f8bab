from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import Sample
from lowdata_cpt.data.feedback import feedback_rows
from lowdata_cpt.data.splits import balanced_order, seeded_split
from lowdata_cpt.data.store import ImageSet, Store, Task, TaskInfo
from lowdata_cpt.data.subsets import draw, read_manifest, write_manifest
from lowdata_cpt.data.writer import Item, Splits, StoreWriter, write_splits
from tests.data.stores import with_index

strata_lists = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=120)


def tiny_store(folder: Path, strata: list[str], test: int = 2) -> Store:
    def item(number: int, stratum: str) -> Item:
        image = np.full((4, 4, 3), number, np.uint8)
        return Item(f"i{number}", lambda: Sample(image, f"{number:064x}", label=0), stratum)

    folder.mkdir()
    with StoreWriter(folder, 4) as writer:
        writer.add("pool", [item(i, s) for i, s in enumerate(strata)], ())
        writer.add("test", [item(200 + i, "") for i in range(test)], ("classification",))
        sets = {"pool": ImageSet(array="pool"), "test": ImageSet(array="test")}
        task = TaskInfo(sets={"train": "test", "val": "test", "test": "test"}, classes=("x",))
        writer.finish("tiny", "pool", sets, {"classification": task})
    return Store(folder)


@given(strata_lists, st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_every_prefix_is_proportional_within_one(strata: list[str], seed: int) -> None:
    order = balanced_order([f"{i}" for i in range(len(strata))], strata, seed, "draw")
    assert sorted(order.tolist()) == list(range(len(strata)))
    sizes, seen = Counter(strata), Counter[str]()
    for taken, position in enumerate(order, start=1):
        seen[strata[position]] += 1
        for stratum, size in sizes.items():
            assert abs(seen[stratum] - taken * size / len(strata)) < 1


@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 3, 7), (3, 5, 5, 8)])
def test_strata_take_turns_by_their_windows_ends_rounded_up(sizes: tuple[int, ...]) -> None:
    """The j-th of m members of a stratum belongs into [floor(jM/m), ceil((j+1)M/m)); who has the earliest end goes."""
    strata = [stratum for stratum, size in zip("abcd", sizes, strict=False) for _ in range(size)]
    total, taken = len(strata), Counter[str]()
    for slot, position in enumerate(balanced_order([f"{i}" for i in range(total)], strata, 0, "draw")):
        ends = {
            stratum: math.ceil(Fraction((taken[stratum] + 1) * total, size))
            for stratum, size in zip("abcd", sizes, strict=False)
            if taken[stratum] < size and taken[stratum] * total // size <= slot
        }
        assert ends[strata[position]] == min(ends.values())
        taken[strata[position]] += 1


def test_rare_strata_are_spread_and_differ_by_seed() -> None:
    strata = ["big"] * 900 + [f"s{i}" for i in range(100)]
    ids = [f"{i}" for i in range(1000)]
    first = [balanced_order(ids, strata, seed, "draw")[:50] for seed in range(4)]
    assert all(sum(i >= 900 for i in order) in (4, 5, 6) for order in first)
    assert len({frozenset(order[order >= 900].tolist()) for order in first}) > 1


@given(st.permutations(range(30)), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_draw_does_not_depend_on_the_order_of_the_pool(permutation: list[int], seed: int) -> None:
    ids, strata = [f"id{i}" for i in range(30)], ["a", "b", "c"] * 10
    shuffled = balanced_order([ids[i] for i in permutation], [strata[i] for i in permutation], seed, "draw")
    assert [ids[permutation[i]] for i in shuffled] == [ids[i] for i in balanced_order(ids, strata, seed, "draw")]


def test_known_order() -> None:
    """Pins the draw: a change of it would silently change every study."""
    ids = [f"i{i}" for i in range(8)]
    strata = ["a"] * 6 + ["b"] * 2
    assert balanced_order(ids, strata, 0, "split").tolist() == [0, 1, 7, 2, 4, 3, 6, 5]
    assert balanced_order(ids, strata, 0, "draw").tolist() == [5, 4, 3, 7, 1, 0, 2, 6]


def test_no_seed_of_a_draw_has_the_order_of_the_split() -> None:
    """Where they shared a stream, the first images drawn with the split's seed were its validation images."""
    ids, strata = [f"i{i}" for i in range(200)], ["ab"[i % 2] for i in range(200)]
    for split_seed in range(3):
        first = set(balanced_order(ids, strata, split_seed, "split")[:100].tolist())
        for seed in range(20):
            assert 30 < len(first & set(balanced_order(ids, strata, seed, "draw")[:100].tolist())) < 70


@given(st.integers(3, 200), st.integers(1, 90), st.integers(1, 90), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_split_covers_disjointly(count: int, first: int, second: int, seed: int) -> None:
    parts = seeded_split([f"{i}" for i in range(count)], ["ab"[i % 2] for i in range(count)], [first, second], seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert [len(part) for part in parts] == [
        min(first, count), min(second, max(count - first, 0)), max(count - first - second, 0),
    ]  # fmt: skip


@given(strata=st.lists(st.sampled_from(["", "x", "y"]), min_size=5, max_size=40), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_draws_are_nested_and_paired(strata: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tiny_store(tmp_path_factory.mktemp("s") / "store", strata)
    frames = [draw(store, n, seed) for n in range(1, len(strata) + 1)]
    for n, frame in enumerate(frames, start=1):
        assert len(frame) == n
        assert frame["sha256"].is_unique
        assert frame.equals(frames[-1].iloc[:n])
    images = store.images("pool")
    assert [f"i{images[row][0, 0, 0]}" for row in frames[-1]["row"]] == frames[-1]["id"].tolist()


def test_seeds_differ(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "s", [""] * 50)
    assert set(draw(store, 10, 0)["id"]) != set(draw(store, 10, 1)["id"])


@pytest.mark.parametrize("n", [0, -1, 6])
def test_n_beyond_the_pool(n: int, tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "s", [""] * 5)
    with pytest.raises(UserError, match=rf"n = {n} .*'tiny', whose pool has 5"):
        draw(store, n, 0)


def test_manifest_round_trip(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "s", ["a", "b"] * 5)
    frame = draw(store, 7, 3)
    write_manifest(tmp_path / "m.csv", frame)
    assert (tmp_path / "m.csv").read_text().startswith("row,id,sha256\n")
    assert read_manifest(tmp_path / "m.csv", store).equals(frame)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("i3,", "i9,", "id of image i9"),
        ("0000003\n", "0000009\n", "sha256 of image i3"),
        ("3,i3", "7,i3", "beyond the pool of 5"),
        ("3,i3,", "2,i2,", "listed twice"),
        ("row,id,sha256", "row,name,sha256", "expected the columns row,id,sha256"),
        ("3,i3", "x,i3", "not a subset manifest"),
    ],
)
def test_tampered_manifest(old: str, new: str, said: str, tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "s", [""] * 5)
    write_manifest(tmp_path / "m.csv", draw(store, 5, 0).sort_values("row"))
    text = (tmp_path / "m.csv").read_text()
    assert old in text
    (tmp_path / "m.csv").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path / "m.csv", store)


@pytest.mark.parametrize("text", [None, "", "row,id,sha256\n"])
def test_no_manifest(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=r"m\.csv"):
        read_manifest(tmp_path / "m.csv", tiny_store(tmp_path / "s", [""] * 5))


def test_a_held_out_image_never_comes_in(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "s", [""] * 5)
    write_manifest(tmp_path / "m.csv", draw(store, 3, 0))
    store = with_index(store.root, f"{200:064x}", draw(store, 3, 0)["sha256"].iloc[0])
    with pytest.raises(UserError, match=r"is a (validation|test) image"):
        read_manifest(tmp_path / "m.csv", store)


def test_a_copy_of_a_held_out_image_in_the_pool_is_not_drawn(tmp_path: Path) -> None:
    store = with_index(tiny_store(tmp_path / "s", [""] * 5).root, f"{200:064x}", f"{3:064x}")
    assert set(draw(store, 4, 0)["id"]) == {"i0", "i1", "i2", "i4"}
    with pytest.raises(UserError, match="set `sizes` to numbers from 1 to 4"):
        draw(store, 5, 0)


def feedback_store(folder: Path, count: int) -> Store:
    """A pool of `count` images that are the labelled train images too, one val and one test image."""
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)

    def items(split: str, number: int) -> list[Item]:
        return [Item(f"{split}{i}", partial(Sample, image, f"{split}{i}", segmentation=mask)) for i in range(number)]

    folder.mkdir()
    with StoreWriter(folder, 4) as writer:
        task: dict[Task, TaskInfo] = {"segmentation": TaskInfo(sets={}, classes=("a",))}
        splits = Splits(items("t", count), items("v", 1), items("e", 1))
        write_splits(writer, "tiny", splits, task)
    return Store(folder)


def test_feedback_is_apart_from_the_drawn_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = feedback_store(tmp_path / "s", 100)
    drawn = set(draw(store, 36, 0)["sha256"])
    rows = feedback_rows(store, drawn)
    assert len(rows) == 64
    assert not drawn & set(store.rows("train")["sha256"].iloc[rows])
    assert (np.diff(rows) > 0).all()
    assert not capsys.readouterr().out
    assert feedback_rows(store, set()).tolist() == list(range(100))


def test_feedback_takes_all_train_images_where_too_few_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = feedback_store(tmp_path / "s", 100)
    assert feedback_rows(store, set(draw(store, 37, 0)["sha256"])).tolist() == list(range(100))
    assert "only 63 of 100 labelled train images" in capsys.readouterr().out


def test_feedback_needs_dense_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither segmentation nor depth labels"):
        feedback_rows(tiny_store(tmp_path / "s", [""] * 5), set())
