"""What `pack` keeps of a cell that was computed again."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.reproduce import packing
from lowdata_cpt.reproduce.packed_cells import COST, OF_SCORES, OF_TRAINING, SCORES, Packed


@pytest.mark.parametrize(("code", "taken"), [("a", False), ("b", True)])
def test_a_cell_made_by_other_code_is_packed_anew_though_its_scores_are_equal(
    code: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, archive = tmp_path / "cell", tmp_path / "finished" / "x.zip"
    files = (*OF_TRAINING, *OF_SCORES)
    cell = Packed("c", archive, "s0/", folder, folder, files, (), dict)
    monkeypatch.setattr(packing, "config_file", lambda name: name)
    monkeypatch.setattr(packing, "packed_cells", lambda file, absent_too: [cell])

    def compute(code: str, seconds: float) -> None:
        write_json(folder / COST, {"train_seconds": seconds})
        write_json(folder / SCORES, {"miou": 0.5})
        (folder / "log.csv").write_text("step\n")
        (folder / "outcomes.npz").write_bytes(b"x")
        for name in (COST, SCORES):
            write_sidecar(folder / name, config={"code": code})

    compute("a", 1.0)
    packing.pack("study")
    before = archive.read_bytes()
    compute(code, 2.0)
    assert packing.pack("study") == [archive]
    assert (archive.read_bytes() != before) == taken
    with zipfile.ZipFile(archive) as stored:
        assert f'"{code}"'.encode() in stored.read(f"s0/{SCORES}.prov.json")


def test_a_training_that_is_here_stays_when_a_seed_that_shares_it_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base is trained once for all seeds; of seed 1 only the scores are missing."""
    archive, files = tmp_path / "finished" / "x.zip", (*OF_TRAINING, *OF_SCORES)
    trained = tmp_path / "s0"
    cells = [
        Packed(f"s{seed}", archive, f"s{seed}/", tmp_path / f"s{seed}", trained, files, (), dict) for seed in (0, 1)
    ]
    monkeypatch.setattr(packing, "config_file", lambda name: name)
    monkeypatch.setattr(packing, "packed_cells", lambda file, absent_too=False: cells)
    monkeypatch.setattr(packing, "snakemake", lambda *arguments: None)
    monkeypatch.setattr(packing, "_difference", lambda *arguments: None)

    def compute(folder: Path, seconds: float) -> None:
        for name in (COST, SCORES):
            write_json(folder / name, {"seconds": seconds})
            write_sidecar(folder / name, config={})
        (folder / "log.csv").write_text("step\n")
        (folder / "outcomes.npz").write_bytes(b"x")

    for cell in cells:
        compute(cell.folder, 1.0)
    packing.pack("study")
    compute(trained, 2.0)
    (tmp_path / "s1" / SCORES).unlink()
    assert packing.restore("study").placed == 1
    assert (tmp_path / "s1" / SCORES).exists()
    assert read_json(trained / COST) == read_json(trained / SCORES) == {"seconds": 2.0}


def test_a_large_archive_lies_in_files_that_git_may_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packing.LARGEST <= 2 * 2**20
    monkeypatch.setattr(packing, "LARGEST", 1000)
    archive, entries = tmp_path / "x.zip", {"s0/weights": np.random.default_rng(0).bytes(2500), "s0/a.json": b"{}"}
    packing._write(archive, entries)
    names = ["x.zip", "x.zip.01", "x.zip.02"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert max(path.stat().st_size for path in tmp_path.iterdir()) == 1000
    assert packing._read(archive) == entries
    last = (tmp_path / names[-1]).read_bytes()
    for damage in (b"", last[:-1], last[:-30] + b"x" + last[-29:]):
        (tmp_path / names[-1]).write_bytes(damage)
        with pytest.raises(UserError, match="damaged"):
            packing._read(archive)
    packing._write(archive, {"s0/a.json": b"{}"})
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_any_flipped_bit_of_an_archive_is_a_sentence_or_changes_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    entries = {"s0/a.json": b'{"a": 1}' * 4, "s0/b.csv": b"step\n"}
    packing._write(archive, entries)
    whole = archive.read_bytes()
    refused: list[str] = []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        archive.write_bytes(damaged)
        try:
            found = packing._read(archive)
        except UserError as error:
            refused.append(str(error))
        else:
            assert set(found.values()) <= set(entries.values())
    assert len(refused) > 400
    assert all("x.zip: damaged (" in line for line in refused)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("s0/../../../elsewhere", b"x", "would lie outside of a cell"),
        ("/elsewhere", b"x", "would lie outside of a cell"),
        *((f"s0/{SCORES}.prov.json", content, "") for content in (b"x", b"[]", b"{}", b"\xff")),
    ],
)
def test_an_archive_that_pack_did_not_write_is_refused(
    name: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, content)
    with pytest.raises(UserError, match=rf"x\.zip: damaged .*{expected}"):
        packing._read(tmp_path / "x.zip")
