"""Run, push, clone, pull, verify; and what is damaged on the way is named and refused."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lowdata_cpt.reproduce import dvc_files as dvcfiles
from tests.workflow import tiny

pytestmark = pytest.mark.slow
MODEL = "results/quick/cells/tiny/camvid/mae/n4/s0/export/i4/model.safetensors"


@pytest.fixture
def pushed(study: Path) -> Path:
    """A study whose results are in the default remote: a folder beside the checkout."""
    tiny.lowdata(study, "push")
    return study


def clone(source: Path, name: str) -> Path:
    tiny.git(source, "clone", "--quiet", str(source), str(source.with_name(name)))
    return source.with_name(name)


def flip(path: Path, offset: int = 100) -> None:
    """Change one byte of a file, read-only or not, and nothing else about it."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[min(offset, len(content) - 1)] ^= 1
    path.write_bytes(bytes(content))
    path.chmod(mode)


def stored(folder: Path, path: str) -> Path:
    """Return where the object of a file lies in a cache or in a folder remote."""
    md5 = dvcfiles.file_md5(folder / path)
    return Path("files/md5", md5[:2], md5[2:])


def is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether every file is as dvc.lock says and Snakemake has nothing to do."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        wrong = [one for out in dvcfiles.locked_outs("quick") for one in dvcfiles.differences(out, None)]
    return not wrong and tiny.planned(folder) == {}


def test_lock_has_four_stages_and_our_hashes_are_dvcs(study: Path) -> None:
    stages = yaml.safe_load((study / "dvc.lock").read_text())["stages"]
    assert list(stages) == ["data@quick", "models@quick", "evaluate@quick", "figures@quick"]
    for out in (out for stage in stages.values() for out in stage["outs"]):
        path = study / out["path"]
        ours = dvcfiles.listing_md5(dvcfiles.listing(path)) if path.is_dir() else dvcfiles.file_md5(path)
        assert ours == out["md5"], out["path"]


def test_round_trip(pushed: Path) -> None:
    copy = clone(pushed, "clone")
    # The tables, verdicts and figures are readable without DVC; models are not there.
    assert (copy / "results/quick/claims.md").exists()
    assert (copy / "results/quick/scores.csv").read_bytes() == (pushed / "results/quick/scores.csv").read_bytes()
    assert list((copy / "results/quick/figures").glob("*.png"))
    assert not (copy / MODEL).exists()
    said = tiny.lowdata(copy, "verify").stdout
    assert " 0 failed" in said
    assert " 0 not here" not in said
    assert "make pull" in said
    tiny.lowdata(copy, "pull")
    assert tiny.planned(copy) == {}
    assert tiny.git(copy, "status", "--porcelain") == ""
    assert " 0 failed, 0 not here" in tiny.lowdata(copy, "verify").stdout
    # A report that was built again is no damage.
    (copy / "results/quick/report.html").write_text("built on another machine")
    assert " 0 failed, 0 not here" in tiny.lowdata(copy, "verify").stdout
    tiny.lowdata(copy, "pull")
    # Snakemake knows the state as if it had made it: a change re-runs what depends on it, inputless jobs included.
    tiny.write_config(copy, methods={"mae": {"mask_ratio": 0.5}})
    assert {k: v for k, v in tiny.planned(copy).items() if k in ("pretrain", "evaluate", "collect")} == {
        "pretrain": 1,
        "evaluate": 1,
        "collect": 1,
    }
    tiny.write_config(copy, domains={"camvid": {"resolution": 48}})
    shutil.copytree(pushed / "data/camvid", copy / "data/camvid")
    assert tiny.planned(copy)["data"] == 1


def test_a_run_in_a_fresh_clone_leaves_nothing_for_git(study: Path) -> None:
    copy = clone(study, "clone")
    shutil.copytree(study / "data/camvid", copy / "data/camvid")
    results = copy / "results/quick"
    before = {path: path.read_bytes() for path in (results / "scores.csv", results / "cost.csv")}
    tiny.snakemake(copy, "--quiet", "all")
    assert (results / "cells").is_dir()
    assert tiny.git(copy, "status", "--porcelain") == ""
    assert {path: path.read_bytes() for path in before} == before
    assert tiny.planned(copy) == {}


def test_another_result_is_seen_by_git(study: Path) -> None:
    copy = clone(study, "clone")
    shutil.copytree(study / "data/camvid", copy / "data/camvid")
    table = copy / "results/quick/scores.csv"
    published = table.read_text()
    row = next(line for line in published.splitlines() if ",mae," in line and ",miou,test," in line)
    table.write_text(published.replace(row, row.replace(row.split(",")[9], "0.9")))
    tiny.git(copy, "commit", "--quiet", "--all", "--message", "Publish another score")
    tiny.snakemake(copy, "--quiet", "all")
    assert "results/quick/scores.csv" in tiny.git(copy, "status", "--porcelain")


def test_cell_is_computed_again(study: Path) -> None:
    said = tiny.lowdata(study, "verify", "--cell", "tiny/camvid/diet_cp/n4/s0").stdout
    assert "segmentation miou test" in said
    assert said.count("bit-equal") == 5  # two metrics on two splits, and the weights
    assert "5 held, 0 failed, 0 not here" in said  # only the cell is judged
    table = study / "results/quick/scores.csv"
    rows = table.read_text().splitlines(keepends=True)
    wanted = next(i for i, row in enumerate(rows) if ",diet_cp," in row and ",miou,test," in row)
    cells = rows[wanted].split(",")
    cells[9] = "0.9"
    table.write_text("".join([*rows[:wanted], ",".join(cells), *rows[wanted + 1 :]]))
    said = tiny.lowdata(study, "verify", "--cell", "tiny/camvid/diet_cp/n4/s0", fails=True).stdout
    assert "stored 0.9" in said


def test_damage_in_the_checkout_is_named_refused_and_repaired(pushed: Path) -> None:
    flip(pushed / MODEL)
    assert MODEL in tiny.lowdata(pushed, "verify", fails=True).stdout.replace("\n", "")
    assert MODEL in tiny.lowdata(pushed, "pull", fails=True).stderr
    tiny.lowdata(pushed, "pull", "--force")
    tiny.lowdata(pushed, "verify")
    assert tiny.planned(pushed) == {}


def test_damage_in_the_cache_is_named_and_repaired(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(pushed / ".dvc/cache" / stored(pushed, MODEL))
    (pushed / MODEL).unlink()
    assert MODEL in tiny.lowdata(pushed, "push", fails=True).stderr
    assert MODEL in tiny.lowdata(pushed, "pull").stdout
    assert is_whole(pushed, monkeypatch)


def test_damage_in_the_remote_is_named_refused_and_repaired(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = clone(pushed, "clone")
    remote = pushed.parent / "lowdata-cpt-storage" / stored(pushed, MODEL)
    flip(remote)
    assert MODEL in tiny.lowdata(copy, "pull", fails=True).stderr
    assert not (copy / MODEL).exists()
    remote.chmod(0o644)
    remote.unlink()
    tiny.lowdata(pushed, "push")
    tiny.lowdata(copy, "pull")
    assert is_whole(copy, monkeypatch)


def test_pull_does_not_bless_results_of_another_configuration(pushed: Path) -> None:
    copy = clone(pushed, "clone")
    tiny.write_config(copy, methods={"mae": {"mask_ratio": 0.5}})
    said = tiny.lowdata(copy, "pull", fails=True).stderr
    assert "config/quick.yaml" in said
    assert tiny.planned(copy) != {}


def test_pull_does_not_bless_results_of_other_code(pushed: Path, tmp_path: Path) -> None:
    copy = clone(pushed, "clone")
    package = tiny.edited_package(tmp_path / "src", "methods/mae/learner.py", "class ", "CHANGED = 1\n\n\nclass ")
    said = tiny.lowdata(copy, "pull", fails=True, PYTHONPATH=package).stderr
    assert "methods.mae" in said
    assert "methods.diet_cp" not in said
    assert "has changed since" in said


@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
def test_cache_types(pushed: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = clone(pushed, f"clone-{kind}")
    tiny.dvc(copy, "config", "--local", "cache.type", kind)
    tiny.lowdata(copy, "pull")
    model = copy / MODEL
    assert model.is_symlink() == (kind == "symlink")
    assert (model.stat().st_nlink > 1) == (kind == "hardlink")
    assert is_whole(copy, monkeypatch)


def test_metrics_and_plots_are_readable(study: Path) -> None:
    assert "miou" in tiny.dvc(study, "metrics", "show").stdout
    metrics = study / "results/quick/statistics/metrics.json"
    text = metrics.read_text()
    number = next(part for part in text.replace(",", " ").split() if part.startswith("0."))
    metrics.write_text(text.replace(number, "0.75", 1))
    assert "0.75" in tiny.dvc(study, "metrics", "diff").stdout
    tiny.dvc(study, "plots", "show", "--out", "plots")
    assert (study / "plots/index.html").exists()


def test_repro_and_experiments_run_what_a_change_needs(study: Path) -> None:
    scores = study / "results/quick/scores.csv"
    before = scores.read_text()
    tiny.write_config(study, methods={"diet_cp": {"label_smoothing": 0.1}})
    assert "up to date" not in tiny.dvc(study, "status").stdout
    tiny.dvc(study, "repro")
    assert tiny.planned(study) == {}
    assert "up to date" in tiny.dvc(study, "status").stdout
    changed = {line.split(",")[3] for line in set(scores.read_text().splitlines()) - set(before.splitlines())}
    assert changed == {"diet_cp"}
    tiny.dvc(study, "plots", "diff", "HEAD", "--out", "difference")
    assert (study / "difference/index.html").exists()
    tiny.dvc(study, "exp", "run", "--set-param", "config/quick.yaml:probes.segmentation.steps=3")
    assert tiny.planned(study) == {}
    assert "probes.segmentation.steps" in tiny.dvc(study, "params", "diff").stdout


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A real sshd on the loopback, for this test's key only; gives the address of a remote for a checkout."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "authorized").chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE)

    def configure(checkout: Path) -> str:
        url = f"ssh://127.0.0.1:{port}{tmp_path}/far"
        for key, value in (("url", url), ("keyfile", str(folder / "user")), ("user", _user())):
            tiny.dvc(checkout, "remote", "modify", "--local", "storage", key, value)
        return url

    yield configure
    server.terminate()
    server.wait(timeout=10)


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def test_ssh_remote(study: Path, sshd: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd(study)
    tiny.lowdata(study, "push")
    assert (tmp_path / "far" / stored(study, MODEL)).exists()
    assert tiny.git(study, "status", "--porcelain") == "", "the address and key must stay out of git"
    copy = clone(study, "clone")
    sshd(copy)
    tiny.lowdata(copy, "pull")
    assert is_whole(copy, monkeypatch)
