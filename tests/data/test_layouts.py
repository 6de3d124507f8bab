"""Every domain reads its published layout exactly, says what is missing, and is identified by its content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import Domain, prepare
from lowdata_cpt.data.domains.neu_steel import CLASSES, NEUSteel
from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.layouts.masked import MaskedFiles
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import draw
from lowdata_cpt.dev.fixtures import MAKERS, Expected, picture, red, save

KINDS = {domain.model_fields["kind"].default: domain for domain in DOMAINS if issubclass(domain, FolderDomain)}
SIDE = 16
CENTRES = [(y, x) for y in (SIDE // 4, 3 * SIDE // 4) for x in (SIDE // 4, 3 * SIDE // 4)]


def test_every_domain_on_disk_has_a_fixture() -> None:
    assert sorted(KINDS) == sorted(MAKERS)


def make(kind: str, folder: Path) -> tuple[Domain, Expected]:
    expected = MAKERS[kind](folder)
    return KINDS[kind](root=str(folder), resolution=SIDE, **expected.settings), expected


@pytest.fixture(scope="module", params=sorted(MAKERS))
def decoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Domain, Expected, Store]:
    folder = tmp_path_factory.mktemp(request.param)
    domain, expected = make(request.param, folder / "data")
    return domain, expected, prepare(domain, folder / "cache")


def test_counts_and_tasks(decoded: tuple[Domain, Expected, Store]) -> None:
    domain, expected, store = decoded
    assert {name: len(store.rows(name)) for name in store.meta.sets} == expected.counts
    assert {name: len(store.images(name)) for name in store.meta.sets} == expected.counts
    assert set(store.meta.tasks) == set(domain.tasks())
    assert (store.root / "quarantine.csv").read_text() == "id,reason\n"
    for task, info in store.meta.tasks.items():
        assert set(info.sets) == {"train", "val", "test"}
        if task != "depth":
            assert len(info.classes) == expected.classes
            assert len(set(info.classes)) == expected.classes


def test_splits_are_disjoint_and_the_pool_is_what_trains(decoded: tuple[Domain, Expected, Store]) -> None:
    _, _, store = decoded
    ids = {name: set(store.rows(name)["id"]) for name in store.meta.sets}
    assert not ids["val"] & ids["test"]
    assert not ids["pool"] & (ids["val"] | ids["test"])
    assert ids["train"] == ids["pool"]
    assert store.rows("pool")["sha256"].is_unique


def test_no_draw_has_a_validation_or_test_image(decoded: tuple[Domain, Expected, Store]) -> None:
    _, expected, store = decoded
    largest = expected.counts["pool"]
    held_out = {name: set(store.rows(name)["sha256"]) for name in ("val", "test")}
    for seed in range(5):  # 0 among them: the split's own seed
        drawn = set(draw(store, largest, seed)["sha256"])
        assert len(drawn) == largest
        assert not drawn & held_out["val"]
        assert not drawn & held_out["test"]
    with pytest.raises(UserError, match=f"pool has {largest} without its validation and test images"):
        draw(store, largest + 1, 0)


def test_labels_lie_on_their_pixels(decoded: tuple[Domain, Expected, Store]) -> None:
    _, expected, store = decoded
    for name in ("train", "val", "test"):
        ids, images = store.rows(name)["id"], store.images(name)
        for i, image_id in enumerate(ids):
            if expected.labels:
                label = expected.labels[image_id]
                assert store.labels(name)[i] == label
                assert abs(float(images[i][..., 0].mean()) - red(label)) < 6
            if expected.quadrants:
                seen = store.segmentation(name)[i]
                assert tuple(int(seen[yx]) for yx in CENTRES) == expected.quadrants[image_id]
                for yx, raw in zip(CENTRES, expected.raw[image_id], strict=True):
                    assert abs(int(images[i][yx][0]) - red(raw)) < 8


def test_card_states_what_one_must_know(decoded: tuple[Domain, Expected, Store]) -> None:
    domain, _, _ = decoded
    card = domain.card()
    for part in ("Source", "Licence", "Get it", "Split", "Labels", "Pixels", "Known limits"):
        assert f"**{part}.** " in card
    assert "http" not in card


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_missing_folder_says_what_to_put_there(kind: str, tmp_path: Path) -> None:
    settings = {"root": str(tmp_path / "nowhere"), "resolution": SIDE}
    with pytest.raises(UserError, match=f"'{kind}'.*nowhere.*(download|put|get)") as caught:
        prepare(KINDS[kind](**settings), tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {"imagefolder", "neu_steel"}))  # those are flat folders
def test_missing_part_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    domain, expected = make(kind, tmp_path / "data")
    path = tmp_path / "data" / expected.needed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=path.name.split("_")[0]):
        prepare(domain, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/meta.json"))


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_fingerprint_is_content_and_settings(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    domain, _expected = make(kind, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = domain.model_copy(update={"root": str(tmp_path / "b"), "sizes": (2,)})
    assert moved.fingerprint() == domain.fingerprint()
    assert domain.model_copy(update={"resolution": 32}).fingerprint() != domain.fingerprint()
    for path in moved.sources():  # every source file counts
        original = path.read_bytes()
        path.write_bytes(original + b"\n")
        assert moved.fingerprint() != domain.fingerprint(), path
        path.write_bytes(original)
    assert moved.fingerprint() == domain.fingerprint()


@pytest.mark.parametrize("kind", ["camvid", "loveda", "cityscapes", "ade20k", "pascal_context"])
def test_mask_of_another_size(kind: str, tmp_path: Path) -> None:
    domain, _expected = make(kind, tmp_path / "data")
    assert isinstance(domain, MaskedFiles)
    mask = domain.contents()["train"][0].mask
    Image.open(mask).resize((12, 12)).save(mask)
    with pytest.raises(UserError, match="12×12 pixels, expected 24×24"):
        prepare(domain, tmp_path / "cache")


def test_unknown_mask_value(tmp_path: Path) -> None:
    domain, _ = make("camvid", tmp_path / "data")
    mask = tmp_path / "data" / "trainannot" / "0001TP_000000.png"
    Image.fromarray(np.full((24, 24), 12, np.uint8)).save(mask)
    with pytest.raises(UserError, match="mask value 12"):
        prepare(domain, tmp_path / "cache")


def test_coloured_mask(tmp_path: Path) -> None:
    domain, _ = make("camvid", tmp_path / "data")
    mask = tmp_path / "data" / "trainannot" / "0001TP_000000.png"
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(mask)
    with pytest.raises(UserError, match="mode RGB, expected one channel"):
        prepare(domain, tmp_path / "cache")


def test_damaged_mask_quarantines_its_image(tmp_path: Path) -> None:
    domain, _ = make("camvid", tmp_path / "data")
    (tmp_path / "data" / "trainannot" / "0001TP_000000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 9 images cannot be used .*its mask .*empty file"):
        prepare(domain, tmp_path / "cache")
    store = prepare(domain.model_copy(update={"max_quarantined": 0.2}), tmp_path / "cache")
    assert "train/0001TP_000000.png" in (store.root / "quarantine.csv").read_text()
    assert len(store.rows("train")) == 3


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_masks_that_are_void_everywhere_are_refused(split: str, tmp_path: Path) -> None:
    domain, _ = make("camvid", tmp_path / "data")
    for mask in (tmp_path / "data" / f"{split}annot").iterdir():
        Image.fromarray(np.full((24, 24), 11, np.uint8)).save(mask)
    with pytest.raises(UserError, match=rf"no pixel of the \d {split} images has a segmentation label"):
        prepare(domain, tmp_path / "cache")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("medmnist", "pathmnist.npz"),
        ("galaxy10", "Galaxy10_DECals.h5"),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin"),
        ("nyuv2", "nyu_depth_v2_labeled.mat"),
    ],
)
def test_truncated_archive_is_one_clear_error(kind: str, path: str, tmp_path: Path) -> None:
    domain, _ = make(kind, tmp_path / "data")
    file = tmp_path / "data" / path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 + 1])
    with pytest.raises(UserError, match=file.name):
        prepare(domain, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_aircraft_banner_is_cut_off(tmp_path: Path) -> None:
    domain, _ = make("aircraft", tmp_path / "data")
    assert (prepare(domain, tmp_path / "cache").images("test")[:, -1, :, 0] < 150).all()


def test_steel_class_folders_with_splits(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                seed = 100 * label + 10 * i + len(split)
                save(tmp_path / split / name / f"{i}.png", picture(np.full((8, 8), label), seed))
    store = prepare(NEUSteel(root=str(tmp_path), resolution=SIDE), tmp_path / "cache")
    assert len(store.rows("test")) == 12
    assert len(store.rows("train")) == 24
    assert set(store.rows("train")["stratum"].value_counts()) == {4}


def test_root_is_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    assert KINDS["camvid"]().folder == tmp_path / "camvid"
    assert KINDS["camvid"](root="copies/cam").folder == tmp_path / "copies" / "cam"
    assert KINDS["camvid"](root="/elsewhere").folder == Path("/elsewhere")
    monkeypatch.delenv("LOWDATA_DATA")
    assert KINDS["camvid"]().folder == Path("data/camvid")


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_max_images_caps_every_split_that_the_data_set_has(kind: str, tmp_path: Path) -> None:
    domain, expected = make(kind, tmp_path / "data")
    capped = domain.model_copy(update={"max_images": 3})
    whole, small = prepare(domain, tmp_path / "cache"), prepare(capped, tmp_path / "cache")
    kept = {name: set(small.rows(name)["id"]) for name in small.meta.sets}
    assert len(kept["pool"]) <= 3 < sum(expected.counts.values())
    assert len(kept["test"]) == min(3, expected.counts["test"]) or len(kept["pool"] | kept["val"] | kept["test"]) == 3
    assert all(kept["pool" if name == "train" else name] for name in kept)
    everything = set().union(*(whole.rows(name)["id"] for name in whole.meta.sets))
    assert set().union(*kept.values()) < everything
    again = prepare(capped, tmp_path / "other")
    assert {name: set(again.rows(name)["id"]) for name in again.meta.sets} == kept


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {"medmnist"}))
def test_number_of_validation_and_test_images(kind: str, tmp_path: Path) -> None:
    domain, expected = make(kind, tmp_path / "data")
    asked = domain.model_copy(update={"val_images": 1, "test_images": 1})
    store = prepare(asked, tmp_path / "cache")
    assert [len(store.rows(name)) for name in ("val", "test")] == [1, 1]
    # What is cut for validation is missing in the pool, and nothing else.
    given = kind in ("camvid", "aircraft")
    cut = expected.counts["pool"] + expected.counts["val"] - 1
    flat = kind in ("eurosat", "galaxy10", "imagefolder", "neu_steel", "nuclei")
    assert len(store.rows("pool")) == expected.counts["pool"] if given else cut + flat * (expected.counts["test"] - 1)


@pytest.mark.parametrize("kind", ["camvid", "cifar10", "nyuv2"])
def test_a_new_split_of_all_labelled_images(kind: str, tmp_path: Path) -> None:
    domain, expected = make(kind, tmp_path / "data")
    total = sum(expected.counts[name] for name in ("train", "val", "test"))
    asked = domain.model_copy(update={"split": "seeded", "val_images": 1, "test_images": 3})
    store = prepare(asked, tmp_path / "cache")
    assert {name: len(store.rows(name)) for name in ("pool", "val", "test")} == {"pool": total - 4, "val": 1, "test": 3}


def test_a_split_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    domain, _ = make("nuclei", tmp_path / "data")
    with pytest.raises(UserError, match="4 and 3 images for validation and testing leave none of 7"):
        prepare(domain.model_copy(update={"val_images": 4, "test_images": 3}), tmp_path / "cache")


def test_medmnist_keeps_its_official_split() -> None:
    with pytest.raises(ValidationError, match="keeps its official split"):
        KINDS["medmnist"](split="seeded")
