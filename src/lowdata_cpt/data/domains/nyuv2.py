"""NYU Depth V2: 1449 labelled indoor frames with dense depth and 40 classes, in the authors' MATLAB files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes
from lowdata_cpt.data.decode import (
    Sample,
    check_depth,
    class_table,
    resize_image,
    resize_nearest,
    square_box,
    to_classes,
)
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat",
    "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain",
    "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure",
    "otherfurniture", "otherprop",
)  # fmt: skip
"""The 40 classes of Gupta, Arbeláez and Malik (CVPR 2013), in the order of `classMapping40.mat`."""

FRAMES, SPLITS, MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
WIDTH, HEIGHT = 640, 480
MARGIN_X, MARGIN_Y = 12, 9
"""Cut from each side, in pixels of 640×480: the undistorted colour images have a white frame of 8 × 6 pixels.
What is left, 616×462, still is 4:3."""

EIGEN_TOP, EIGEN_BOTTOM, EIGEN_LEFT, EIGEN_RIGHT = 45, 471, 41, 601
"""Evaluation crop of Eigen, Puhrsch and Fergus (NeurIPS 2014) in pixels of 640×480."""

EVAL_CROP = (
    (EIGEN_TOP - MARGIN_Y) / (HEIGHT - 2 * MARGIN_Y),
    (EIGEN_BOTTOM - MARGIN_Y) / (HEIGHT - 2 * MARGIN_Y),
    (EIGEN_LEFT - MARGIN_X) / (WIDTH - 2 * MARGIN_X),
    (EIGEN_RIGHT - MARGIN_X) / (WIDTH - 2 * MARGIN_X),
)
"""The same crop as top, bottom, left, right fractions of the stored square."""


class NYUv2(FolderDomain):
    """NYU Depth V2, official 795/654 split."""

    label: ClassVar[str] = "NYUv2"
    kind: Literal["nyuv2"] = "nyuv2"
    segmentation: bool = Field(default=True, description=f"Also the 40 classes, which need {MAPPING}.")

    labelled: ClassVar[tuple[Task, ...]] = ("segmentation", "depth")
    segmentation_classes: ClassVar[int] = len(CLASSES)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="NYU Depth V2, the labelled frames",
        images=(795, 654),
        source='Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD Images", ECCV '
        "2012: 1449 frames of a Kinect in 464 indoor scenes, 640×480.",
        licence="Research use; the authors' page states no licence text.",
        how_to_get=f"download the labelled dataset {FRAMES} (2.8 GB) and {SPLITS} from Silberman's and Fergus's page "
        f'"NYU Depth Dataset V2" at New York University, and {MAPPING} from the material of Gupta et al., "Perceptual '
        'Organization and Recognition of Indoor Scenes from RGB-D Images" (CVPR 2013), into that folder',
        split=f"Official (`{SPLITS}`): 795 training and 654 test frames, no scene in both. Val is a "
        "seeded part of the training frames (`val_fraction`, `val_images`), the pool the rest. Ids are the 1-based "
        "frame numbers. Strata: scene types, "
        "where the file has `sceneTypes`.",
        labels="Depth: metres, the in-filled `depths` (no holes), nearest-neighbour; 1e-3 to 10 m count, inside the "
        "Eigen crop (rows 45–471, columns 41–601 of 480×640), which is stored in fractions of the square. "
        "Segmentation: 40 "
        f"classes by `{MAPPING}`, 0-based; raw label 0 (unlabelled) is ignored (255); class 39, otherprop, is a class "
        f"of "
        "the official benchmark and counts.",
        limits="Depth edges are sensor-blurred; neighbouring frames of one scene make val optimistic. Scores are on "
        "the square at the store's resolution. A half-resolution import (`tools/import_copies.py`) has 320×240 "
        "frames, depth codes of 8 bits per frame (steps of 6–39 mm) and no otherprop: there otherprop and unlabelled "
        "were one label, which is ignored. Never set its figures beside full-resolution ones without saying so.",
        pixels="12 (left, right) and 9 (top, bottom) of 640×480 pixels are cut off, since undistortion left a white "
        "frame in the colour images; the remaining 616×462 are *stretched* to a square, so that all of the Eigen crop "
        "stays inside.",
    )

    def tasks(self) -> tuple[Task, ...]:
        """Return depth, and segmentation unless it is switched off."""
        return self.labelled if self.segmentation else ("depth",)

    def sources(self) -> Iterable[Path]:
        """Return the MATLAB files that are used."""
        if self.segmentation and (self.folder / FRAMES).exists() and not (self.folder / MAPPING).exists():
            self.wrong_layout(f"{self.folder / MAPPING} is missing (or set `segmentation: false`)")
        return [self.need(name) for name in ((FRAMES, SPLITS, MAPPING) if self.segmentation else (FRAMES, SPLITS))]

    def build(self, target: Path) -> None:
        """Decode all frames: the whole frame less its white border, stretched to a square."""
        table = self._mapping() if self.segmentation else None
        tasks: dict[Task, TaskInfo] = {"depth": TaskInfo(sets={}, depth_range=(1e-3, 10.0), eval_crop=EVAL_CROP)}
        if table is not None:
            tasks["segmentation"] = TaskInfo(sets={}, classes=CLASSES)
        with self._frames() as frames, self.writer(target) as writer:
            train, test = self._split(len(frames["images"]))
            strata = _scene_types(frames)

            def items(numbers: NDArray[np.int64]) -> list[Item]:
                return [
                    Item(f"{n:04d}", partial(_decode, frames, int(n) - 1, self.resolution, table), strata[n - 1])
                    for n in numbers
                ]

            splits = self.arrange({"train": items(train), "test": items(test)})
            write_splits(writer, self.kind, splits, tasks)

    @contextmanager
    def _frames(self) -> Iterator[Any]:
        """Open the frames and check their shapes: [N, 3, W, H] and [N, W, H], MATLAB's axes reversed."""
        path = self.need(FRAMES)
        try:
            file = h5py.File(path, "r")
        except OSError:
            self.wrong_layout(f"{path} is not a whole MATLAB 7.3 (HDF5) file")
        with file:
            for name in ("images", "depths", *(("labels",) if self.segmentation else ())):
                if name not in file:
                    self.wrong_layout(f"{path} has no variable `{name}`")
                count, *_, width, height = file["images"].shape
                expected = (count, 3, width, height) if name == "images" else (count, width, height)
                if file[name].shape != expected or 3 * width != 4 * height:
                    self.wrong_layout(f"{path}: `{name}` has the shape {file[name].shape}, expected {expected} and 4:3")
            yield file

    def _split(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the 1-based numbers of the training and test frames."""
        path = self.need(SPLITS)
        contents = _load_mat(path)
        parts = []
        for name in ("trainNdxs", "testNdxs"):
            if name not in contents:
                self.wrong_layout(f"{path} has no variable `{name}`")
            parts.append(np.sort(contents[name].ravel().astype(np.int64)))
        both = np.concatenate(parts)
        if len(np.unique(both)) != len(both) or both.min() < 1 or both.max() > count:
            raise UserError(f"{path}: expected disjoint 1-based frame numbers up to {count}")
        return parts[0], parts[1]

    def _mapping(self) -> NDArray[np.int16]:
        """Return the table from the 894 raw ids (1-based, 0 unlabelled) to the 40 classes (0-based, 255 ignored)."""
        path = self.need(MAPPING)
        contents = _load_mat(path)
        if "mapClass" not in contents:
            self.wrong_layout(f"{path} has no variable `mapClass`")
        mapped = contents["mapClass"].ravel().astype(np.int64)
        if mapped.min() < 1 or mapped.max() > len(CLASSES):
            raise UserError(
                f"{path}: `mapClass` goes from {mapped.min()} to {mapped.max()}, expected 1 to {len(CLASSES)}"
            )
        return class_table({raw: int(label) - 1 for raw, label in enumerate(mapped, start=1)}, ignored=(0,))


def _load_mat(path: Path) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = scipy.io.loadmat(path)
    except (OSError, ValueError, TypeError, RuntimeError, scipy.io.matlab.MatReadError) as error:
        raise UserError(f"{path}: not a readable MATLAB file ({error})") from None
    return contents


def _scene_types(frames: Any) -> list[str]:
    """Return the scene type of each frame, "" where the file does not say."""
    if "sceneTypes" not in frames:
        return [""] * len(frames["images"])
    return [
        "".join(map(chr, frames[reference][()].ravel())).strip("\0") for reference in frames["sceneTypes"][()].ravel()
    ]


def _decode(frames: Any, index: int, side: int, table: NDArray[np.int16] | None) -> Sample:
    """Decode one frame."""
    pixels = np.ascontiguousarray(frames["images"][index].transpose(2, 1, 0))
    height, width = pixels.shape[:2]
    scale = width / WIDTH
    x, y = MARGIN_X * scale, MARGIN_Y * scale
    left, upper, right, lower = square_box(width - 2 * x, height - 2 * y, "stretch")
    box = (left + x, upper + y, right + x, lower + y)
    where = f"{FRAMES}, frame {index + 1}"
    depth = check_depth(frames["depths"][index].T, where)
    segmentation = None
    if table is not None:
        labels = frames["labels"][index].T.astype(np.int64)
        segmentation = resize_nearest(to_classes(labels, table, where), box, side)
    return Sample(
        resize_image(Image.fromarray(pixels), box, side),
        sha256_bytes(pixels.tobytes()),
        segmentation=segmentation,
        depth=resize_nearest(depth, box, side),
    )
