"""The raw data's content is known at every start: changed files are noticed, unchanged ones are not read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lowdata_cpt.data import raw
from lowdata_cpt.data.domains.cifar10 import CIFAR10
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.dev.fixtures import imagefolder
from lowdata_cpt.language.config import HubModel
from lowdata_cpt.language.tokens import model_folder

IMAGE = "cat/1.png"


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageFolder:
    monkeypatch.chdir(tmp_path)
    imagefolder(tmp_path / "images")
    return ImageFolder(root=str(tmp_path / "images"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "SETTLED", -60.0)


def replace_keeping_size_and_time(path: Path) -> bytes:
    old, times = path.read_bytes(), path.stat()
    path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == len(old)
    return old


@pytest.mark.usefixtures("settled")
def test_an_image_of_the_same_size_and_time_is_noticed(domain: ImageFolder) -> None:
    before = domain.raw_fingerprint()
    old = replace_keeping_size_and_time(domain.folder / IMAGE)
    assert domain.raw_fingerprint() != before
    (domain.folder / IMAGE).write_bytes(old)
    assert domain.raw_fingerprint() == before


def test_added_removed_and_renamed_images_are_noticed(domain: ImageFolder) -> None:
    seen = [domain.raw_fingerprint()]
    (domain.folder / "cat/new.png").write_bytes((domain.folder / IMAGE).read_bytes())
    seen.append(domain.raw_fingerprint())
    (domain.folder / "cat/new.png").rename(domain.folder / "cat/newer.png")
    seen.append(domain.raw_fingerprint())
    (domain.folder / IMAGE).unlink()
    seen.append(domain.raw_fingerprint())
    assert len(set(seen)) == len(seen)


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(domain: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = domain.raw_fingerprint(), list[Path]()
    monkeypatch.setattr(raw, "sha256_file", lambda path: read.append(path) or "0")
    assert domain.raw_fingerprint() == before
    assert read == []
    (domain.folder / IMAGE).touch()
    domain.raw_fingerprint()
    assert read == [domain.folder / IMAGE]


def test_a_file_that_was_just_written_is_read_again(domain: ImageFolder) -> None:
    domain.raw_fingerprint()
    assert not raw.CACHE.exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"", b"[]", b"{\xff", b'{"cat/1.png": 3}'])
def test_a_damaged_cache_is_made_anew(damage: bytes, domain: ImageFolder) -> None:
    before = domain.raw_fingerprint()
    (cache,) = raw.CACHE.iterdir()
    cache.write_bytes(damage)
    assert domain.raw_fingerprint() == before


def test_moving_the_folder_and_settings_change_nothing(domain: ImageFolder, tmp_path: Path) -> None:
    before = domain.raw_fingerprint()
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = ImageFolder(root=str(tmp_path / "moved"), resolution=64, sizes=(3,))
    assert moved.raw_fingerprint() == before


@pytest.mark.parametrize("kind", [domain.model_fields["kind"].default for domain in DOMAINS])
def test_absent_data_have_a_fingerprint(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    (model,) = (domain for domain in DOMAINS if domain.model_fields["kind"].default == kind)
    fingerprint = model.model_validate({"root": "nowhere"} if kind == "imagefolder" else {}).raw_fingerprint()
    assert (fingerprint == raw.ABSENT) == (kind != "tabletop")


def test_home_and_variables_in_a_root_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    assert ImageFolder(root="~/images").folder == tmp_path / "images"
    assert ImageFolder(root="$SHELF/images").folder == tmp_path / "shelf/images"


@pytest.mark.parametrize("given", ["~/sets", "$HOME/sets"])
def test_home_and_variables_are_expanded_in_the_folder_of_all_sets(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scheduler's environment file or a quoted assignment passes them on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOWDATA_DATA", given)
    assert CIFAR10().folder == tmp_path / "sets/cifar10"
    assert model_folder(HubModel(name="Qwen/Qwen2.5-0.5B")) == tmp_path / "sets/models/Qwen2.5-0.5B"
