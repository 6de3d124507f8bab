"""Tiny data sets in exactly the published layouts: one maker a domain, for tests and for `lowdata-cpt scale-down`.

A maker fills an empty folder and returns what the decoded store must hold. Pixels tell the label: the red channel of
an image is `red(raw value)` of the class or mask value at that place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image


@dataclass
class Expected:
    """What a store of the fixture holds.

    Attributes:
        counts: images of each set.
        classes: number of classes.
        labels: image id -> class id, for classification.
        quadrants: image id -> class ids of the four quadrants (255 ignored), for segmentation.
        raw: image id -> raw values of the quadrants, whose `red` the image shows.
        needed: a file without which the layout is wrong.
        settings: keys of the domain's configuration.
    """

    counts: dict[str, int]
    classes: int
    labels: dict[str, int] = field(default_factory=dict)
    quadrants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    raw: dict[str, tuple[int, ...]] = field(default_factory=dict)
    needed: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def red(raw: Any) -> Any:
    """Return the red level that stands for a raw label, or for each of an array."""
    return 20 + raw * 37 % 211


def quadrant_map(values: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """Return a map with one value a quadrant: upper left, upper right, lower left, lower right."""
    return np.kron(np.array(values, np.int64).reshape(2, 2), np.ones((height // 2, width // 2), np.int64))


def picture(raw: np.ndarray, seed: int) -> np.ndarray:
    """Return uint8 [H, W, 3]: red says the raw value, green and blue make images differ."""
    rng = np.random.default_rng(seed)
    tint = rng.integers(0, 255, 2)
    image = np.empty((*raw.shape, 3), np.uint8)
    image[..., 0] = red(raw)
    image[..., 1:] = tint
    return image


def save(path: Path, pixels: np.ndarray) -> None:
    """Write an image file of the kind its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **options)


def _mask_pair(image: Path, mask: Path, values: tuple[int, ...], seed: int) -> None:
    ids = quadrant_map(values, 24, 24)
    save(image, picture(ids, seed))
    save(mask, ids.astype(np.uint8))


def _masked(
    root: Path, plan: Sequence[tuple[str, str, str, tuple[int, ...]]], to_class: Callable[[int], int], **expected: Any
) -> Expected:
    """Write (split, image, mask, raw quadrants) and return what to expect."""
    found = Expected(counts={}, **expected)
    for seed, (_, image, mask, values) in enumerate(plan):
        _mask_pair(root / image, root / mask, values, seed)
        found.raw[image] = values
        found.quadrants[image] = tuple(to_class(value) for value in values)
    splits = [split for split, *_ in plan]
    train, test = splits.count("train"), splits.count("test")
    if "val" in splits:
        found.counts = {"pool": train, "train": train, "val": splits.count("val"), "test": test}
    else:
        cut = max(1, round(0.2 * train))
        found.counts = {"pool": train - cut, "train": train - cut, "val": cut, "test": test}
    return found


def _offset(value: int) -> int:
    return 255 if value == 0 else value - 1


def ade20k(root: Path) -> Expected:
    """Write seven images of ADE20K (SceneParse150)."""
    names = "\n".join(f"{i}\t0.1\t10\t5\tclass {i}" for i in range(1, 151))
    root.mkdir(parents=True, exist_ok=True)
    (root / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{names}\n")
    plan, scenes = [], []
    for split, folder, short, count in (("train", "training", "train", 5), ("test", "validation", "val", 2)):
        for i in range(1, count + 1):
            stem = f"ADE_{short}_{i:08d}"
            plan.append(
                (split, f"images/{folder}/{stem}.jpg", f"annotations/{folder}/{stem}.png", (0, i, 150 - i, 150))
            )
            scenes.append(f"{stem} {'street' if i % 2 else 'kitchen'}")
    (root / "sceneCategories.txt").write_text("\n".join(scenes) + "\n")
    return _masked(root, plan, _offset, classes=150, needed="objectInfo150.txt")


def pascal_context(root: Path) -> Expected:
    """Write seven images of Pascal Context, 59 classes."""
    plan = [
        (split, f"JPEGImages/2008_{i:06d}.jpg", f"SegmentationClassContext/2008_{i:06d}.png", (0, 1 + i, 59, 30))
        for i, split in enumerate(["train"] * 5 + ["test"] * 2)
    ]
    lists = root / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    for split, name in (("train", "train"), ("test", "val")):
        (lists / f"{name}.txt").write_text("".join(f"{Path(p[1]).stem}\n" for p in plan if p[0] == split))
    return _masked(root, plan, _offset, classes=59, needed="ImageSets/SegmentationContext/val.txt")


def cityscapes(root: Path) -> Expected:
    """Write seven frames of Cityscapes."""
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    plan = []
    for split, folder, city, count in (("train", "train", "aachen", 5), ("test", "val", "lindau", 2)):
        for i in range(count):
            stem = f"{city}_{i:06d}_000019"
            mask = f"gtFine/{folder}/{city}/{stem}_gtFine_labelIds.png"
            plan.append((split, f"leftImg8bit/{folder}/{city}/{stem}_leftImg8bit.png", mask, (0, ids[i], 33, 29)))

    def to_class(value: int) -> int:
        return ids.index(value) if value in ids else 255

    return _masked(
        root, plan, to_class, classes=19, needed="gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"
    )


def loveda(root: Path) -> Expected:
    """Write eight images of LoveDA."""
    plan = [
        (split, f"{folder}/{scene}/images_png/{i}.png", f"{folder}/{scene}/masks_png/{i}.png", (0, 1, 1 + i % 7, 7))
        for split, folder, count in (("train", "Train", 3), ("test", "Val", 1))
        for scene in ("Rural", "Urban")
        for i in range(count)
    ]
    return _masked(root, plan, _offset, classes=7, needed="Val/Urban/images_png")


def camvid(root: Path) -> Expected:
    """Write nine frames of CamVid."""
    plan = [
        (split, f"{split}/0001TP_{i:06d}.png", f"{split}annot/0001TP_{i:06d}.png", (0, i % 11, 10, 11))
        for split, numbers in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 9)))
        for i in numbers
    ]
    return _masked(root, plan, lambda value: 255 if value == 11 else value, classes=11, needed="testannot")


def nuclei(root: Path) -> Expected:
    """Write seven images of DSB 2018."""
    found = Expected({"pool": 5, "train": 5, "val": 1, "test": 1}, classes=2, needed="stage1_train")
    for i in range(7):
        name, values = f"{i:064x}", ((0, 1, 0, 2) if i % 2 else (1, 2, 3, 0))
        ids = quadrant_map(values, 24, 24)
        save(root / "stage1_train" / name / "images" / f"{name}.png", picture(ids, i))
        for instance in sorted(set(values) - {0}):
            mask = np.where(ids == instance, 255, 0).astype(np.uint8)
            save(root / "stage1_train" / name / "masks" / f"{instance:064x}.png", mask)
        found.raw[name] = values
        found.quadrants[name] = tuple(int(value > 0) for value in values)
    return found


def _classified(files: dict[str, int], root: Path, **expected: Any) -> Expected:
    for seed, (name, label) in enumerate(files.items()):
        save(root / name, picture(np.full((24, 24), label, np.int64), seed))
    return Expected(labels=files, **expected)


def eurosat(root: Path) -> Expected:
    """Write five images a class of EuroSAT."""
    from lowdata_cpt.data.domains.eurosat import CLASSES

    files = {f"2750/{name}/{name}_{i}.jpg": label for label, name in enumerate(CLASSES) for i in range(1, 6)}
    return _classified(
        files, root, counts={"pool": 30, "train": 30, "val": 10, "test": 10}, classes=10, needed="2750/Forest"
    )


def neu_steel(root: Path) -> Expected:
    """Write five images a class of NEU steel, flat."""
    prefixes = ("Cr", "In", "Pa", "PS", "RS", "Sc")
    files = {f"{prefix}_{i}.bmp": label for label, prefix in enumerate(prefixes) for i in range(1, 6)}
    counts = {"pool": 18, "train": 18, "val": 6, "test": 6}
    return _classified(files, root, counts=counts, classes=6)


def food101(root: Path) -> Expected:
    """Write seven images of three classes of Food101."""
    names = ("apple_pie", "baklava", "waffles")
    (root / "meta").mkdir(parents=True)
    for split, numbers in (("train", range(5)), ("test", range(5, 7))):
        listed = {name: [f"{name}/{i}" for i in numbers] for name in names}
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
    files = {f"images/{name}/{i}.jpg": label for label, name in enumerate(names) for i in range(7)}
    counts = {"pool": 12, "train": 12, "val": 3, "test": 6}
    return _classified(files, root, counts=counts, classes=3, needed="meta/test.json")


def aircraft(root: Path) -> Expected:
    """Write four images of three variants of FGVC-Aircraft."""
    names = ("707-320", "727-200", "A340-600")
    data = root / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("\n".join(names) + "\n")
    found = Expected({"pool": 6, "train": 6, "val": 3, "test": 3}, classes=3, needed="data/images_variant_test.txt")
    number = 0
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        lines = []
        for label, name in enumerate(names):
            for _ in range(count):
                number += 1
                pixels = picture(np.full((44, 24), label, np.int64), number)
                pixels[24:] = 255  # the banner: must not survive
                save(data / "images" / f"{number:07d}.jpg", pixels)
                lines.append(f"{number:07d} {name}")
                found.labels[f"data/images/{number:07d}.jpg"] = label
        (data / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    return found


def cifar10(root: Path) -> Expected:
    """Write thirty records of CIFAR-10, binary version."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    found = Expected(
        {"pool": 16, "train": 16, "val": 4, "test": 10}, classes=10, needed="cifar-10-batches-bin/data_batch_3.bin"
    )
    seed = 0
    for name, count in [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 10)]:
        records = b""
        for row in range(count):
            label, seed = seed % 10, seed + 1
            pixels = picture(np.full((32, 32), label, np.int64), seed)
            records += bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
            found.labels[f"{name}/{row:05d}"] = label
        (folder / f"{name}.bin").write_bytes(records)
    return found


def galaxy10(root: Path) -> Expected:
    """Write fifty images of Galaxy10 DECaLS."""
    root.mkdir(parents=True, exist_ok=True)
    labels = np.arange(50) % 10
    images = np.stack([picture(np.full((16, 16), label, np.int64), i) for i, label in enumerate(labels)])
    with h5py.File(root / "Galaxy10_DECals.h5", "w") as file:
        file["images"], file["ans"] = images, labels.astype(np.uint8)
    return Expected(
        {"pool": 30, "train": 30, "val": 10, "test": 10},
        classes=10,
        labels={f"{i:05d}": int(label) for i, label in enumerate(labels)},
        needed="Galaxy10_DECals.h5",
    )


def medmnist(root: Path) -> Expected:
    """Write eleven images of pathmnist at 28 pixels."""
    root.mkdir(parents=True, exist_ok=True)
    counts, seed = {"train": 6, "val": 2, "test": 3}, 0
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, int] = {}
    for split, count in counts.items():
        values = np.arange(count) % 2
        images = []
        for i, label in enumerate(values):
            seed += 1
            images.append(picture(np.full((28, 28), label, np.int64), seed))
            labels[f"{split}/{i:06d}"] = int(label)
        arrays |= {f"{split}_images": np.stack(images), f"{split}_labels": values[:, None].astype(np.uint8)}
    np.savez_compressed(root / "pathmnist.npz", allow_pickle=False, **arrays)
    return Expected(counts | {"pool": 6}, classes=2, labels=labels, needed="pathmnist.npz", settings={"pixels": 28})


def imagefolder(root: Path) -> Expected:
    """Write two class folders of five images."""
    files = {f"{name}/{i}.png": label for label, name in enumerate(("cat", "dog")) for i in range(5)}
    return _classified(files, root, counts={"pool": 6, "train": 6, "val": 2, "test": 2}, classes=2)


NYU_MAPPING = np.array([1 + raw % 40 for raw in range(894)])
NYU_SIZE = (160, 120)
"""Width and height of the frames: a quarter of 640×480."""


def nyuv2(root: Path) -> Expected:
    """Seven frames: 1, 3, 4, 6, 7 for training, 2 and 5 for testing; a white border of 8×6 pixels of 640×480."""
    root.mkdir(parents=True, exist_ok=True)
    width, height = NYU_SIZE
    found = Expected({"pool": 4, "train": 4, "val": 1, "test": 2}, classes=40, needed="splits.mat")
    images, depths, labels = [], [], []
    for i in range(7):
        values = (0, 1 + i, 300 + i, 894)
        ids = quadrant_map(values, height, width)
        pixels = picture(ids, i)
        pixels[:1], pixels[-1:], pixels[:, :2], pixels[:, -2:] = 255, 255, 255, 255
        images.append(pixels.transpose(2, 1, 0))
        depths.append(nyu_depth(i).T)
        labels.append(ids.astype(np.uint16).T)
        name = f"{i + 1:04d}"
        found.raw[name] = values
        found.quadrants[name] = tuple(int(NYU_MAPPING[v - 1]) - 1 if v else 255 for v in values)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"], file["labels"] = np.stack(images), np.stack(depths), np.stack(labels)
        scenes = file.create_dataset("sceneTypes", (1, 7), h5py.ref_dtype)
        for i in range(7):
            text = np.array([ord(c) for c in ("kitchen", "office")[i % 2]], np.uint16)[:, None]
            scenes[0, i] = file.create_dataset(f"#refs#/{i}", data=text).ref
    scipy.io.savemat(
        root / "splits.mat",
        {"trainNdxs": np.array([[1], [3], [4], [6], [7]], np.uint16), "testNdxs": np.array([[2], [5]], np.uint16)},
    )
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": NYU_MAPPING[None].astype(np.uint8)})
    return found


def nyu_depth(frame: int) -> np.ndarray:
    """Return the depth of a fixture frame in metres: a ramp to the right, from 1 + frame/10 to 4 + frame/10."""
    width, height = NYU_SIZE
    ramp = np.linspace(1, 4, width, dtype=np.float32) + frame / 10
    return np.repeat(ramp[None], height, 0).astype(np.float32)


MAKERS: dict[str, Callable[[Path], Expected]] = {
    maker.__name__: maker
    for maker in (
        *(ade20k, aircraft, camvid, cifar10, cityscapes, eurosat, food101, galaxy10),
        *(imagefolder, loveda, medmnist, neu_steel, nuclei, nyuv2, pascal_context),
    )
}
