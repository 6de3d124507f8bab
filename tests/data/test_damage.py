"""A damaged file of decoded images is found on the path that uses it, named, and made again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowdata_cpt.core import io
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.data import domain as domains
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import draw, read_manifest, write_manifest
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs import inputs

MANIFEST = Path("results/s/data/camvid/manifest.json")
STORE = MANIFEST.parent / "store"
PARAMS = {"domain": {"kind": "camvid", "root": "camvid", "resolution": 16}}


@pytest.fixture(autouse=True)
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOWDATA_DATA", ".")
    monkeypatch.setattr(io, "_held", {})
    MAKERS["camvid"](tmp_path / "camvid")
    inputs.data(PARAMS, MANIFEST)


def use(task: str = "segmentation") -> None:
    """Read everything that training and probes read."""
    io._held.clear()
    store = Store.open(MANIFEST)
    assert task in store.meta.tasks
    for name in store.meta.sets:
        store.rows(name)
        store.images(name)
        store.segmentation(name)


def flip(path: Path, place: float, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= bit
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first byte": lambda path: flip(path, 0),
    "header": lambda path: path.write_bytes(path.read_bytes()[:6] + b"\xff\xff" + path.read_bytes()[8:]),
    "middle": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1, 64),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}
FILES = ("pool.images.npy", "test.images.npy", "val.segmentation.npy", "index.csv", "meta.json")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_one_sentence_and_the_data_step_mends_it(name: str, damage: str) -> None:
    use()
    before = MANIFEST.read_bytes()
    DAMAGES[damage](STORE / name)
    with pytest.raises(UserError) as caught:
        use()
    said = str(caught.value)
    assert "\n" not in said
    assert name.removesuffix("meta.json") in said
    assert f"snakemake --cores 1 --force {MANIFEST}" in said
    inputs.data(PARAMS, MANIFEST)
    use()
    assert MANIFEST.read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff\xfe", b'{"content_sha256": 3}', b'{"content_sha256": "0"}'])
def test_a_damaged_manifest_is_one_sentence(text: bytes) -> None:
    MANIFEST.write_bytes(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        use()


def test_only_files_that_are_used_are_read() -> None:
    store = Store.open(MANIFEST)
    flip(STORE / "test.images.npy", 0.5)
    store.images("pool")
    with pytest.raises(UserError, match=r"test\.images\.npy: damaged"):
        store.images("test")


def refused(path: Path, store: Store) -> bool:
    try:
        read_manifest(path, store, 3)
    except UserError as error:
        return f"--force {path}" in str(error) and "\n" not in str(error)
    return False


def test_each_byte_of_a_subset_is_held_to_the_store(tmp_path: Path) -> None:
    store, path = Store.open(MANIFEST), tmp_path / "n3.csv"
    write_manifest(path, draw(store, 3, 0))
    whole, frame = path.read_bytes(), read_manifest(path, store, 3)
    for place in range(len(whole)):
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            assert refused(path, store) or read_manifest(path, store, 3).equals(frame), bytes(damaged)
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refused(path, store)


def test_what_a_killed_decode_left_is_swept_and_a_living_one_is_not() -> None:
    left, living, shards = (
        inputs.STORE_CACHE / name for name in (".0123456789abcdef.x", f".{'f' * 16}.y", ".shards-0")
    )
    for folder in (left, living, shards):
        folder.mkdir()
        (folder / "pool.images.npy").write_bytes(b"half")
    handle = os.open(living, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        inputs.data(PARAMS, MANIFEST)
    finally:
        os.close(handle)
    assert not left.exists()
    assert living.exists()
    assert shards.exists()


def test_other_code_that_decodes_the_same_writes_the_same_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = MANIFEST.read_bytes()
    monkeypatch.setattr(domains, "code_version", lambda *_: "another")
    inputs.data(PARAMS, MANIFEST)
    assert MANIFEST.read_bytes() == before
    assert len([path for path in inputs.STORE_CACHE.iterdir() if not path.name.startswith(".")]) == 2


def test_a_changed_image_changes_the_content(tmp_path: Path) -> None:
    before = read_json(MANIFEST)
    image = tmp_path / "camvid/train/0001TP_000000.png"
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    inputs.data(PARAMS, MANIFEST)
    assert read_json(MANIFEST)["content_sha256"] != before["content_sha256"]


def test_every_kind_names_the_modules_that_decide_its_content() -> None:
    from lowdata_cpt.core.code_versions import sources
    from lowdata_cpt.data.registry import DOMAINS

    for model in DOMAINS:
        found = set(sources(*model.code_modules()))
        assert {"data.store", "data.writer"} <= found, model
        assert "data.subsets" not in found, f"{model}: editing the draw would decode again"
        assert not {module for module in found if module.startswith("data.domains.")} - set(model.code_modules())
