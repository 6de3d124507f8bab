"""Turn repacked copies of data sets into their original layouts, so that the domains read one layout only.

    python tools/import_copies.py SRC DST

SRC holds any of nyuv2_train.zip + nyuv2_test.zip, camvid.zip, cifar10_subset.zip, nuclei.zip and neu_steel.zip. Each
becomes DST/<domain>, ready for LOWDATA_DATA=DST. The README.txt written beside the data says what it is and is not.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import scipy.io
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domains.nyuv2 import CLASSES, FRAMES, MAPPING, SPLITS

RAW_IDS = 894
OTHERPROP = 39
NYU_README = """A half-resolution copy of NYU Depth V2 in the original file layout, written by tools/import_copies.py.

Not the authors' file. 320x240 instead of 640x480; colour went through JPEG; depth was coded with 8 bits per frame
(steps of 6 to 39 mm) and clipped at 10 m. Raw labels 1..40 stand for the 40 classes directly (classMapping40.mat maps
accordingly); otherprop and unlabelled were one label in the copy and both are 0 here. Scene types are known for test
frames only and are left out. Say "half resolution" beside every number.
"""


def import_nyuv2(sources: list[zipfile.ZipFile], target: Path) -> None:
    """Write nyu_depth_v2_labeled.mat (variables and axes of the original), splits.mat and classMapping40.mat."""
    numbers: dict[str, list[int]] = {"train": [], "test": []}
    frames: dict[int, tuple[zipfile.ZipFile, str, float]] = {}
    for source in sources:
        for name in (n for n in source.namelist() if n.endswith("/index.csv")):
            for row in csv.DictReader(io.TextIOWrapper(source.open(name), "utf-8")):
                index = int(row["index0"])
                frames[index] = (source, str(PurePosixPath(name).parent), float(row["depth_scale_m"]))
                numbers[row["split"]].append(index + 1)
    count = len(frames)
    if sorted(frames) != list(range(count)):
        raise UserError("nyuv2: the frames of nyuv2_train.zip and nyuv2_test.zip do not number 0 to N-1 without gaps")
    with h5py.File(target / FRAMES, "w") as file:
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        images = file.create_dataset("images", (count, 3, 320, 240), "u1", chunks=(1, 3, 320, 240), **packed)
        depths = file.create_dataset("depths", (count, 320, 240), "f4", chunks=(1, 320, 240), **packed)
        labels = file.create_dataset("labels", (count, 320, 240), "u2", chunks=(1, 320, 240), **packed)
        references = file.create_dataset("names", (1, RAW_IDS), h5py.ref_dtype)
        for raw in range(RAW_IDS):
            name = CLASSES[raw] if raw < len(CLASSES) else f"unused {raw + 1}"
            text = np.array([ord(letter) for letter in name], np.uint16)[:, None]
            references[0, raw] = file.create_dataset(f"#refs#/{raw}", data=text).ref
        for index, (source, folder, scale) in sorted(frames.items()):
            images[index] = _pixels(source, f"{folder}/image/{index:04d}.jpg").transpose(2, 1, 0)
            code = _pixels(source, f"{folder}/depth/{index:04d}.png").astype(np.float64)
            depths[index] = np.minimum((code + 0.5) / 255 * scale, 10).astype(np.float32).T
            label = _pixels(source, f"{folder}/label40/{index:04d}.png").astype(np.uint16)
            labels[index] = np.where(label == OTHERPROP, 0, label + 1).T
    splits = {f"{split}Ndxs": np.array(sorted(values), np.uint16)[:, None] for split, values in numbers.items()}
    scipy.io.savemat(target / SPLITS, splits)
    mapped = np.minimum(np.arange(1, RAW_IDS + 1), len(CLASSES)).astype(np.uint8)[None]
    scipy.io.savemat(target / MAPPING, {"mapClass": mapped, "className": np.array(CLASSES, object)[None]})
    (target / "README.txt").write_text(NYU_README, encoding="utf-8")


def import_camvid(sources: list[zipfile.ZipFile], target: Path) -> None:
    """Unpack: the copy has the SegNet layout already."""
    _unpack(sources[0], target)
    _readme(target, "CamVid, the 11-class version in the SegNet layout; images went through JPEG (quality 92).")


def import_cifar10(sources: list[zipfile.ZipFile], target: Path) -> None:
    """Write the binary version: records of one label byte and 3×32×32 pixels; five training batches, one of test."""
    folder = target / "cifar-10-batches-bin"
    folder.mkdir()
    names = sorted(name for name in sources[0].namelist() if name.endswith(".jpg"))
    classes = sorted({PurePosixPath(name).parent.name for name in names})
    batches: dict[str, list[bytes]] = {f"data_batch_{number}.bin": [] for number in range(1, 6)} | {
        "test_batch.bin": []
    }
    seen = 0
    for name in names:
        path = PurePosixPath(name)
        record = bytes([classes.index(path.parent.name)]) + _pixels(sources[0], name).transpose(2, 0, 1).tobytes()
        if path.parent.parent.name == "test":
            batches["test_batch.bin"].append(record)
        else:
            batches[f"data_batch_{seen % 5 + 1}.bin"].append(record)
            seen += 1
    for name, records in batches.items():
        (folder / name).write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    _readme(target, "A subset of CIFAR-10 (600 training and 200 test images a class) that went through JPEG.")


def import_nuclei(sources: list[zipfile.ZipFile], target: Path) -> None:
    """Write stage1_train/<id>/images/<id>.png and one binary mask file a nucleus."""
    for name in (n for n in sources[0].namelist() if "/images/" in n and n.endswith(".png")):
        stem = PurePosixPath(name).stem
        folder = target / "stage1_train" / stem
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        (folder / "images" / f"{stem}.png").write_bytes(sources[0].read(name))
        instances = _pixels(sources[0], name.replace("/images/", "/instances/"))
        for instance in np.unique(instances[instances > 0]):
            mask = Image.fromarray(np.where(instances == instance, np.uint8(255), np.uint8(0)))
            mask.save(folder / "masks" / f"{stem}_{instance}.png")
    _readme(
        target, "2018 Data Science Bowl stage 1 training images with corrected masks (BBBC038, CC0), shortened ids."
    )


def import_neu_steel(sources: list[zipfile.ZipFile], target: Path) -> None:
    """Unpack: train/ and test/ with a folder a class."""
    _unpack(sources[0], target)
    _readme(target, "NEU surface defects, images 1-240 of each class for training and 241-300 for testing.")


IMPORTS: dict[str, tuple[tuple[str, ...], Callable[[list[zipfile.ZipFile], Path], None]]] = {
    "nyuv2": (("nyuv2_train.zip", "nyuv2_test.zip"), import_nyuv2),
    "camvid": (("camvid.zip",), import_camvid),
    "cifar10": (("cifar10_subset.zip",), import_cifar10),
    "nuclei": (("nuclei.zip",), import_nuclei),
    "neu_steel": (("neu_steel.zip",), import_neu_steel),
}


def _pixels(source: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.read(name))))


def _unpack(source: zipfile.ZipFile, target: Path) -> None:
    """Extract without the archive's top folder."""
    for info in source.infolist():
        parts = PurePosixPath(info.filename).parts[1:]
        if info.is_dir() or not parts or ".." in parts:
            continue
        path = target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(info))


def _readme(target: Path, text: str) -> None:
    (target / "README.txt").write_text(f"{text}\nWritten by tools/import_copies.py; not the authors' files.\n", "utf-8")


def import_all(source: Path, target: Path) -> dict[str, str]:
    """Import every copy found in `source`; a domain that is in `target` already is left alone.

    Returns:
        domain -> "imported" or "there already".

    Raises:
        UserError: `source` has none of the copies, or one of a pair only.
    """
    done: dict[str, str] = {}
    target.mkdir(parents=True, exist_ok=True)
    for domain, (names, function) in IMPORTS.items():
        present = [source / name for name in names if (source / name).is_file()]
        if not present:
            continue
        if len(present) < len(names):
            raise UserError(f"{source}: has {present[0].name} only, expected {' and '.join(names)}")
        if (target / domain).exists():
            done[domain] = "there already"
            continue
        staging = Path(tempfile.mkdtemp(prefix=f".{domain}.", dir=target))
        try:
            archives = [zipfile.ZipFile(path) for path in present]
            function(archives, staging)
            staging.chmod(0o755)
            staging.rename(target / domain)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        done[domain] = "imported"
    if not done:
        raise UserError(f"{source}: none of {', '.join(name for names, _ in IMPORTS.values() for name in names)}")
    return done


def main() -> int:
    """Run the command line."""
    if len(sys.argv) != 3:
        print("usage: python tools/import_copies.py SRC DST", file=sys.stderr)
        return 2
    try:
        print(json.dumps(import_all(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
    except (UserError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
