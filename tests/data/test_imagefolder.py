from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.store import Store
from lowdata_cpt.dev.fixtures import picture, save
from tests.data.own import listed


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
        "captions.txt,no image file name",
    ]


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
        (["bus/1.png", "car/1.png", "train/1.png"], r"images in train/ and in bus/: splits or classes\?"),
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


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("photos", "masks"), "masks"),
        (("rgb", "Depth"), "Depth"),
        (("image", "mask"), "mask"),
        (("masks",), "masks"),
        (("", "masks"), "masks"),
        (("covid/images", "covid/masks", "normal/images", "normal/masks"), "covid/masks"),
        (("train/rgb", "train/gt", "test/rgb", "test/gt"), "gt"),
    ],
)
def test_pictures_in_a_folder_of_labels_are_no_images(folders: tuple[str, ...], found: str, tmp_path: Path) -> None:
    for seed, folder in enumerate(folders):
        fill(tmp_path / "d", *numbered(f"{folder}/", 4), seed=seed)
    with pytest.raises(UserError, match=f"d: {found}/ is called like a folder of label files.*set `masks` or `depth`"):
        opened(tmp_path / "d")
    assert sum(counts(opened(tmp_path / "d", labels="none")).values()) > 0


def test_a_root_may_be_called_like_a_folder_of_labels(tmp_path: Path) -> None:
    fill(tmp_path / "labels", *numbered("wine/", 3), *numbered("beer/", 3))
    assert opened(tmp_path / "labels").task("classification").classes == ("beer", "wine")


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


CIRCLE = "a link to a folder that is read already, or that it lies in"


def remarks(folder: Path) -> list[str]:
    return ImageFolder(root=str(folder)).remarks()


def test_links_that_close_a_circle_are_listed_and_each_file_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("", 3), *numbered("z/", 2))
    (folder / "a_loop").symlink_to(folder)
    (folder / "z" / "up").symlink_to(tmp_path)
    (folder / "again").symlink_to(folder / "z")
    store = opened(folder)
    assert sorted(store.rows("pool")["id"]) == ["0.png", "1.png", "2.png", "z/0.png", "z/1.png"]
    assert set(remarks(folder)) == {f"{folder}: not read: 3 × {CIRCLE}"}
    assert {name for name, reason in listed(store).items() if reason == CIRCLE} == {"a_loop", "again", "z/up"}


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", *numbered("", 3))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "shelf").symlink_to(tmp_path / "elsewhere")
    assert counts(opened(tmp_path / "d")) == {"pool": 3}


def test_names_that_are_no_utf_8_are_used_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("a/", 5), *numbered("b/", 5))
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/kl\xe4rchen"))
    (folder / "b").rename(odd)
    (odd / "0.png").rename(odd / os.fsdecode(b"\xff.png"))
    store = opened(folder)
    assert store.task("classification").classes == ("a", r"kl\xe4rchen")
    ids = {name for split in ("train", "val", "test") for name in store.rows(split)["id"]}
    assert r"kl\xe4rchen/\xff.png" in ids
    assert len(ids) == 10
    (odd / "loose").write_text("")
    (folder / "loose.png").write_bytes((folder / "a/0.png").read_bytes())
    with pytest.raises(UserError, match="1 loose images"):
        opened(folder)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "VAL", "Test"),
        ("training", "valid", "testing"),
        ("TRAIN", "validation", "TEST"),
        ("train", "dev", "test"),
    ],
)
def test_split_folders_by_other_names(train: str, val: str, test: str, tmp_path: Path) -> None:
    for seed, (name, count) in enumerate(((train, 4), (val, 2), (test, 3))):
        fill(tmp_path / "d", *numbered(f"{name}/a/", count), *numbered(f"{name}/b/", count), seed=seed)
    store = opened(tmp_path / "d")
    assert counts(store) == {"pool": 8, "train": 8, "val": 4, "test": 6}
    assert store.rows("test")["id"].str.startswith(f"{test}/").all()
    assert store.task("classification").classes == ("a", "b")


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "d", "train/a/0.png", "train/b/0.png", "Train/a/1.png", "test/a/2.png")
    with pytest.raises(UserError, match=r"Train/ and train/ in .* are both a train split"):
        opened(tmp_path / "d")


def test_files_that_are_no_pictures_are_listed_and_said_before_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("", 3))
    for name in ("features.h5", "paper.pdf", "film.mpg", "sky.fits", "plot.eps", "1.heic", "2.heic", "LICENCE"):
        (folder / name).write_bytes(b"x")
    store = opened(folder)
    assert counts(store) == {"pool": 3}
    assert len(listed(store)) == 8
    (said,) = remarks(folder)
    assert "8 files are not read as images: 2 .heic, " in said
    assert "1 no ending" in said


def test_endings_are_known_in_a_fresh_process() -> None:
    code = "from lowdata_cpt.data.layouts.folders import image_suffixes as s; print(*sorted(s()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    endings = set(done.stdout.split())
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".tga"} <= endings
    assert not endings & {".h5", ".hdf", ".pdf", ".eps", ".fits", ".mpg", ".txt"}


def test_classes_that_a_split_lacks_are_said_before_the_run(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("a/", 20), *numbered("b/", 20), "rare/0.png", "rare/1.png")
    said = remarks(tmp_path / "d")
    assert len(said) in (1, 2)
    assert all("of 1 classes: rare (2 images in all)" in line for line in said)
    assert not remarks(tmp_path / "nowhere")


def test_one_file_in_two_classes_is_left_out_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("a/", 10))
    fill(folder, *numbered("b/", 10), seed=1)
    (folder / "b/3.png").write_bytes((folder / "a/7.png").read_bytes())
    (folder / "b/5.png").write_bytes((folder / "b/4.png").read_bytes())
    store = opened(folder)
    assert sum(len(store.rows(split)) for split in ("train", "val", "test")) == 17
    assert listed(store) == {
        "a/7.png": "left out: the same bytes as b/3.png, which has another class",
        "b/3.png": "left out: the same bytes as a/7.png, which has another class",
        "b/5.png": "left out: the same bytes as b/4.png",
    }
    assert "3 exact copies left out" in capsys.readouterr().out


def test_val_that_repeats_train_leaves_train_without_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("train/a/", 6), *numbered("train/b/", 6))
    fill(folder, *numbered("test/a/", 2), *numbered("test/b/", 2), seed=1)
    shutil.copytree(folder / "train", folder / "val")
    for name in ("a/0.png", "b/0.png"):
        (folder / "val" / name).unlink()
    store = opened(folder)
    assert counts(store) == {"pool": 2, "train": 2, "val": 10, "test": 4}
    assert listed(store)["train/a/1.png"] == "left out: the same bytes as val image val/a/1.png"


def test_pages_are_listed_and_the_first_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "d"
    fill(folder, *numbered("", 3))
    pages = [Image.new("L", (20, 20), 10 * i) for i in range(30)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    store = opened(folder)
    assert listed(store) == {"stack.tif": "30 pages; the first is used"}
    assert store.images("pool")[3].max() == 0
    assert "1 files with several pages" in capsys.readouterr().out


def sixteen_bits(folder: Path, top: int) -> None:
    folder.mkdir()
    for i in range(4):
        values = np.linspace(0, top - i, 400).reshape(20, 20)
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{i}.png")


def test_twelve_bits_in_sixteen_are_refused_with_the_way_out(tmp_path: Path) -> None:
    sixteen_bits(tmp_path / "d", 4095)
    with pytest.raises(UserError, match=r"values up to 4095 of 65535, at most 17 grey levels of 256; `bits: 12`"):
        opened(tmp_path / "d")
    scaled = opened(tmp_path / "d", bits=12).images("pool")
    assert scaled[0].min() < 4
    assert scaled[0].max() > 250
    assert opened(tmp_path / "d", bits=16).images("pool").max() == 16
    with pytest.raises(UserError, match="beyond 10 bits"):
        opened(tmp_path / "d", bits=10)


def test_a_part_of_the_range_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sixteen_bits(tmp_path / "d", 16383)
    assert opened(tmp_path / "d").images("pool").max() == 64
    assert "values up to 16383 of 65535; `bits: 14`" in capsys.readouterr().out


def test_the_largest_picture_is_an_option(tmp_path: Path) -> None:
    fill(tmp_path / "d", *numbered("", 3))
    Image.new("RGB", (300, 200), "red").save(tmp_path / "d" / "aerial.png")
    assert counts(opened(tmp_path / "d")) == {"pool": 4}
    store = opened(tmp_path / "d", max_pixels=50_000, max_quarantined=0.3)
    assert counts(store) == {"pool": 3}
    assert "more than `max_pixels`" in listed(store)["aerial.png"]


def test_a_picture_beyond_the_limit_of_pillow_is_decoded_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    Image.new("1", (20_000, 10_000)).save(tmp_path / "d" / "aerial.png")
    with pytest.raises(UserError, match=r"200 megapixels, more than `max_pixels` \(179\)"):
        opened(tmp_path / "d")
    assert counts(opened(tmp_path / "d", max_pixels=300_000_000)) == {"pool": 1}
