from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.store import Store
from lowdata_cpt.dev.fixtures import picture, save


def fill(folder: Path, *names: str, seed: int = 0) -> None:
    for i, name in enumerate(names):
        save(folder / name, picture(np.full((20, 20), i), 1000 * seed + i))


def opened(folder: Path, **settings: object) -> Store:
    domain = ImageFolder.model_validate({"root": str(folder), "resolution": 16, **settings})
    store = prepare(domain, folder.parent / f"{folder.name}.cache")
    assert tuple(store.meta.tasks) == domain.tasks()
    return store


def counts(store: Store) -> dict[str, int]:
    return {name: len(store.rows(name)) for name in store.meta.sets}


def numbered(prefix: str, count: int, ending: str = ".png") -> list[str]:
    return [f"{prefix}{i}{ending}" for i in range(count)]


def test_a_pool_without_labels(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("", 3), "deeper/down/x.jpg", "B.PNG")
    store = opened(tmp_path / "d")
    assert counts(store) == {"pool": 5}
    assert store.rows("pool")["id"].tolist() == ["0.png", "1.png", "2.png", "B.PNG", "deeper/down/x.jpg"]


def test_labels_none_makes_class_folders_a_pool(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("a/", 3), *numbered("b/", 3), "loose.png")
    assert counts(opened(tmp_path / "d", labels="none")) == {"pool": 7}


def test_given_splits_are_kept(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("train/a/", 5), *numbered("train/b/", 5))
    fill(tmp_path / "d", *numbered("test/a/", 2), *numbered("test/b/", 1), seed=1)
    store = opened(tmp_path / "d")
    assert counts(store) == {"pool": 8, "train": 8, "val": 2, "test": 3}
    assert store.rows("test")["id"].str.startswith("test/").all()
    assert set(store.rows("val")["stratum"]) == {"a", "b"}
    fill(tmp_path / "d", *numbered("val/a/", 2), seed=2)
    assert counts(opened(tmp_path / "d")) == {"pool": 10, "train": 10, "val": 2, "test": 3}


def test_split_folders_without_labels_pool_the_training_images_only(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("train/", 4), *numbered("test/", 2))
    assert counts(opened(tmp_path / "d")) == {"pool": 4}


def test_another_split_seed_is_another_split(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("a/", 20), *numbered("b/", 20))
    tests = [set(opened(tmp_path / "d", split_seed=seed).rows("test")["id"]) for seed in (0, 1)]
    assert len(tests[0]) == len(tests[1]) == 8
    assert tests[0] != tests[1]


def test_damaged_files_are_quarantined_and_other_files_noted(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("", 40))
    (folder / "3.png").write_bytes(b"")
    (folder / "5.png").write_text("this is text")
    (folder / "captions.txt").write_text("a dog")
    (folder / ".DS_Store").write_bytes(b"x")
    store = opened(folder)
    assert counts(store) == {"pool": 38}
    assert (store.root / "quarantine.csv").read_text().splitlines() == [
        "id,reason",
        "3.png,empty file",
        "5.png,not an image that Pillow can read",
        'captions.txt,"no image file name, or outside the split folders"',
    ]


def test_dangling_link_is_quarantined(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("", 30))
    (tmp_path / "d" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "gone.png,cannot be read" in (opened(tmp_path / "d").root / "quarantine.csv").read_text()


@pytest.mark.parametrize("content", [b"", b"just words"])
def test_too_many_damaged_files_stop_the_run(content: bytes, tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("", 4))
    (tmp_path / "d" / "2.png").write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 4 images cannot be used \(for one, 2.png"):
        opened(tmp_path / "d")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no folder"),
        (["notes.txt"], "no images, only 1 other files"),
        (["a/1.png", "b/1.png", "loose.png"], "1 loose images"),
        (["test/a/1.png", "test/b/1.png"], "no train/"),
        (["train/a/1.png", "train/b/1.png"], "no test/"),
        (["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/c/2.png"], r"\['c'\], which train/ has not"),
    ],
)
def test_wrong_layouts(names: list[str], said: str, tmp_path: Path) -> None:
    for i, name in enumerate(names):
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(np.zeros((4, 4), int), i)).save(path, "PNG")
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "d")


def test_duplicates_across_the_split_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("train/a/", 20), *numbered("train/b/", 20))
    fill(folder, *numbered("test/a/", 2), *numbered("test/b/", 2), seed=1)
    (folder / "train" / "a" / "7.png").write_bytes((folder / "test" / "b" / "0.png").read_bytes())
    store = opened(folder)
    assert counts(store)["pool"] == 31
    assert "train/a/7.png,left out" in (store.root / "quarantine.csv").read_text()


def test_store_is_made_once(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("", 3))
    store = opened(tmp_path / "d")
    stamp = (store.root / "meta.json").stat().st_mtime_ns
    assert opened(tmp_path / "d").root == store.root
    assert (store.root / "meta.json").stat().st_mtime_ns == stamp
    fill(tmp_path / "d", "new.png", seed=5)
    assert opened(tmp_path / "d").root != store.root
