"""The importer's output is what the domains read: miniature archives in the copies' form go through both."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.domains.camvid import CamVid
from lowdata_cpt.data.domains.cifar10 import CIFAR10
from lowdata_cpt.data.domains.neu_steel import CLASSES, NEUSteel
from lowdata_cpt.data.domains.nuclei import Nuclei
from lowdata_cpt.data.domains.nyuv2 import NYUv2

TOOL = Path(__file__).parents[2] / "tools" / "import_copies.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_copies", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as stream:
        for name, data in files.items():
            stream.writestr(name, data)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_nyuv2(tool: ModuleType, tmp_path: Path) -> None:
    code = np.repeat((np.arange(320) // 2).astype(np.uint8)[None], 240, 0)
    label = np.full((240, 320), 5, np.uint8)
    label[:, 160:] = 39
    for split, numbers in (("train", (0, 2, 3)), ("test", (1,))):
        rows = "index0,split,scene_type_if_known,depth_scale_m\n" + "".join(f"{i},{split},,{4 + i}\n" for i in numbers)
        files = {f"nyuv2/{split}/index.csv": rows.encode()}
        for i in numbers:
            files |= {
                f"nyuv2/{split}/image/{i:04d}.jpg": encoded(np.full((240, 320, 3), 50 * i + 10, np.uint8), "JPEG"),
                f"nyuv2/{split}/depth/{i:04d}.png": encoded(code),
                f"nyuv2/{split}/label40/{i:04d}.png": encoded(label),
            }
        archive(tmp_path / f"nyuv2_{split}.zip", files)
    assert tool.import_all(tmp_path, tmp_path / "out") == {"nyuv2": "imported"}
    assert tool.import_all(tmp_path, tmp_path / "out") == {"nyuv2": "there already"}
    assert "half-resolution" in (tmp_path / "out" / "nyuv2" / "README.txt").read_text()
    store = prepare(NYUv2(root=str(tmp_path / "out" / "nyuv2"), resolution=16), tmp_path / "cache")
    assert store.rows("test")["id"].tolist() == ["0002"]
    assert len(store.rows("pool")) == 2
    assert abs(int(store.images("test")[0, 8, 8, 0]) - 60) < 3
    columns = np.floor(6 + (np.arange(16) + 0.5) / 16 * 308).astype(int)
    assert np.allclose(store.depth("test")[0, 0], (columns // 2 + 0.5) / 255 * 5)
    assert (store.segmentation("test")[0, :, :8] == 5).all()
    assert (store.segmentation("test")[0, :, 8:] == 255).all()


def test_cifar10(tool: ModuleType, tmp_path: Path) -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files = {
        f"cifar10/{split}/{name}/{i:04d}.jpg": encoded(noise(100 * label + 10 * i + len(split), 32, 32, 3), "JPEG")
        for split, count in (("train", 5), ("test", 2))
        for label, name in enumerate(names)
        for i in range(count)
    }
    archive(tmp_path / "cifar10_subset.zip", files)
    tool.import_all(tmp_path, tmp_path / "out")
    store = prepare(CIFAR10(root=str(tmp_path / "out" / "cifar10"), resolution=32), tmp_path / "cache")
    assert {name: len(store.rows(name)) for name in ("pool", "test")} == {"pool": 40, "test": 20}
    first = Image.open(io.BytesIO(files["cifar10/test/airplane/0000.jpg"]))
    assert np.array_equal(store.images("test")[0], np.asarray(first))
    assert np.bincount(store.labels("pool")).tolist() == [4] * 10


def test_nuclei(tool: ModuleType, tmp_path: Path) -> None:
    files, instances = {}, np.zeros((20, 20), np.uint16)
    instances[:10, :10], instances[12:, 12:] = 300, 2
    for i in range(5):
        files[f"nuclei/images/{i:016x}.png"] = encoded(noise(i, 20, 20, 3))
        files[f"nuclei/instances/{i:016x}.png"] = encoded(instances)
    archive(tmp_path / "nuclei.zip", files)
    tool.import_all(tmp_path, tmp_path / "out")
    masks = tmp_path / "out" / "nuclei" / "stage1_train" / f"{0:016x}" / "masks"
    assert len(list(masks.iterdir())) == 2
    store = prepare(Nuclei(root=str(tmp_path / "out" / "nuclei"), resolution=20), tmp_path / "cache")
    assert np.array_equal(store.segmentation("test")[0], instances > 0)


def test_camvid_and_steel_are_unpacked(tool: ModuleType, tmp_path: Path) -> None:
    camvid, steel = {}, {}
    for k, (split, count) in enumerate((("train", 3), ("val", 1), ("test", 1))):
        for i in range(count):
            camvid[f"camvid/{split}/0001TP_{i}.jpg"] = encoded(noise(10 * k + i, 12, 16, 3), "JPEG")
            camvid[f"camvid/{split}annot/0001TP_{i}.png"] = encoded(np.full((12, 16), 3, np.uint8))
    for split, count in (("train", 5), ("test", 1)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                steel[f"neu_steel/{split}/{name}/{name}_{i}.jpg"] = encoded(
                    noise(50 * label + i + len(split), 12, 12), "JPEG"
                )
    archive(tmp_path / "camvid.zip", camvid)
    archive(tmp_path / "neu_steel.zip", steel)
    tool.import_all(tmp_path, tmp_path / "out")
    store = prepare(CamVid(root=str(tmp_path / "out" / "camvid"), resolution=16), tmp_path / "cache")
    assert (store.segmentation("train") == 3).all()
    store = prepare(NEUSteel(root=str(tmp_path / "out" / "neu_steel"), resolution=16), tmp_path / "cache")
    assert len(store.rows("test")) == 6


def test_errors(tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of nyuv2_train\.zip"):
        tool.import_all(tmp_path, tmp_path / "out")
    archive(tmp_path / "nyuv2_train.zip", {})
    with pytest.raises(UserError, match=r"has nyuv2_train\.zip only"):
        tool.import_all(tmp_path, tmp_path / "out")
