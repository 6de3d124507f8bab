"""The table-top domain as a store: its sets, its hashes, draws apart from validation and test."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import draw
from lowdata_cpt.data.tabletop import domain as tabletop

COUNTS = {"pool": 4, "train": 12, "val": 2, "test": 20}


@pytest.fixture(scope="module")
def store(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "PACKAGE_CACHE", assets)
        settings = {**COUNTS, "resolution": 64, "crop_size": 32, "max_crops": 50, "max_test_crops": 60}
        return prepare(tabletop.Tabletop.model_validate(settings), tmp_path_factory.mktemp("tabletop") / "cache")


def test_sets_are_as_large_as_asked(store: Store) -> None:
    assert {name: len(store.rows(name)) for name in COUNTS} == COUNTS
    assert [len(store.labels(f"crops_{split}")) for split in ("train", "test")] == [50, 60]
    assert set(store.meta.files) == {"index.csv", *(path.name for path in store.root.glob("*.npy"))}
    store.verify()


def test_no_draw_has_a_validation_or_test_image(store: Store) -> None:
    drawn = set(draw(store, COUNTS["pool"], 0)["sha256"])
    assert drawn == set(store.rows("pool")["sha256"])
    for info in store.meta.tasks.values():
        for split in ("val", "test"):
            assert not drawn & set(store.rows(info.sets[split])["sha256"])
    with pytest.raises(UserError, match="pool has 4"):
        draw(store, 5, 0)


def test_nothing_unfinished_is_left(store: Store) -> None:
    assert list(store.root.parent.iterdir()) == [store.root]
