"""Getting a study's results and giving them away: DVC carries the files, Snakemake is told that they are up to date.

After a pull, modification times are random and Snakemake would make everything anew. `snakemake --touch` cures
that, but it would also bless results of another configuration or of other code, so it runs only when everything
is as dvc.lock says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from lowdata_cpt.core.code_versions import RECORDED
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.golden import unrecorded
from lowdata_cpt.language import config as language_config
from lowdata_cpt.reproduce import dvc_files as dvcfiles
from lowdata_cpt.study.load import load, read

SHOWN = 20
"""Files named in one message at most."""


def config_file(study: str) -> str:
    """Return a study's configuration file."""
    return f"config/{study}.yaml"


def check_config(study: str) -> None:
    """Read a study's configuration, so that what is wrong with it is said without Snakemake.

    Raises:
        UserError: it is missing or wrong.
    """
    file = Path(config_file(study))
    if language_config.is_language(read(file)):
        language_config.load(file)
    else:
        load(file)


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this interpreter's environment, output captured."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, env=environment
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[-600:]


def cache_folder() -> Path:
    """Return DVC's cache folder, wherever it is configured.

    Raises:
        UserError: this is no DVC repository.
    """
    done = _call("dvc", "cache", "dir")
    if done.returncode:
        raise UserError(f"dvc cache dir: {_said(done)}")
    return Path(done.stdout.strip())


def snakemake(study: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on a study, output captured; targets come after `--`.

    Raises:
        UserError: it fails.
    """
    done = _call("snakemake", "--cores", "1", "--configfile", config_file(study), *arguments)
    if done.returncode:
        raise UserError(f"snakemake {' '.join(arguments)}: {_said(done)}")
    return done


def _list(found: Iterable[object]) -> str:
    names = sorted(str(one) for one in found)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def in_git(study: str) -> set[Path]:
    """Return the outputs of a study's stages that git keeps: `cache: false` in dvc.yaml."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in stages.values() for out in stage.get("do", stage)["outs"]]
    return {
        Path(path.replace("${key}", study))
        for out in outs
        for path, flags in out.items()
        if flags.get("cache") is False
    }


def _carried(study: str) -> list[dvcfiles.Out]:
    """Return the outputs that DVC carries."""
    kept = in_git(study)
    return [out for out in dvcfiles.locked_outs(study) if out.path not in kept]


def _drop_damaged(outs: list[dvcfiles.Out], cache: Path) -> list[Path]:
    """Remove damaged objects from the cache, as DVC would take them for good; return the paths that they are."""
    damaged = dvcfiles.damaged_objects(outs, cache)
    for stored in damaged:
        stored.chmod(0o644)
        stored.unlink()
    return list(damaged.values())


def _fetch(study: str, cache: Path) -> None:
    """Fill the cache from the remote, throwing away what is damaged.

    Raises:
        UserError: the remote cannot be reached, or what it holds is damaged or missing.
    """
    outs = _carried(study)
    for path in _drop_damaged(outs, cache):
        print(f"{path}: damaged in the cache, removed from it; fetching it again")
    done = _call("dvc", "fetch", *dvcfiles.stage_names(study))
    damaged = _drop_damaged(outs, cache)
    wanted = dvcfiles.objects(outs, cache)
    lost = {path for md5, path in wanted.items() if not dvcfiles.object_path(cache, md5).is_file()} | set(damaged)
    objects = {path: dvcfiles.object_path(Path(), md5) for md5, path in wanted.items()}
    why = f" (dvc fetch: {_said(done)})" if done.returncode else ""
    if lost:
        named = _list(f"{path} ({objects[path]})" if path in objects else path for path in lost)
        raise UserError(
            f"{named}: damaged or missing in the remote, refused; delete what is damaged there and `make push` from a "
            f"good copy{why}"
        )
    if done.returncode:
        raise UserError(f"dvc fetch: {_said(done)}")


def pull(study: str, *, force: bool = False) -> None:
    """Get a study's results from the remote and tell Snakemake that they are up to date.

    Args:
        study: its name in dvc.yaml.
        force: replace files that differ from dvc.lock; else they are named and nothing is touched.

    Raises:
        UserError: something is damaged, differs, or the checkout's configuration or code is not the results'.
    """
    cache = cache_folder()
    _fetch(study, cache)
    found = [one for out in _carried(study) for one in dvcfiles.differences(out, cache)]
    for one in found:
        if one.path.name in dvcfiles.BUILT:  # built here meanwhile: nobody's work is lost with it
            one.path.unlink(missing_ok=True)
    wrong = [one for one in found if one.problem != "missing" and one.path.exists()]
    if wrong and not force:
        named = _list(f"{one.path} ({one.problem})" for one in wrong)
        raise UserError(f"{named}: not as dvc.lock says; `make pull FORCE=1` replaces them (changes are lost)")
    for one in wrong:
        one.path.unlink()
    done = _call("dvc", "checkout", *(["--force"] if force else []), *dvcfiles.stage_names(study))
    if done.returncode:
        raise UserError(f"dvc checkout: {_said(done)}")
    bless(study)
    print(f"study {study}: all files are as dvc.lock says, and `snakemake --dry-run` has nothing to do")


def bless(study: str) -> None:
    """Tell Snakemake that everything is up to date, if it is.

    Raises:
        UserError: DVC finds a change, or the code is not the one that made the results.
    """
    done = _call("dvc", "status", *dvcfiles.stage_names(study))
    if done.returncode or "up to date" not in done.stdout:
        changed = " ".join(done.stdout.split()) or _said(done)
        raise UserError(
            f"dvc status: {changed} — the results are not of this checkout's files, so Snakemake is not told that they "
            "are; run `snakemake`, or go back to the commit that made them"
        )
    if code := unrecorded():
        raise UserError(
            f"{RECORDED}: the code of {', '.join(code)} has changed since, so the results may not be of this code; "
            "run `make golden` and `snakemake`, or go back to the commit that made them"
        )
    # --forceall: without it jobs that have no inputs get no record, and a later change of theirs goes unnoticed.
    snakemake(study, "--touch", "--forceall", "--quiet", "all")


def push(study: str) -> None:
    """Send a study's models, predictions, example images and decoded data to the remote.

    Raises:
        UserError: an object of the cache is damaged, or the remote does not take them.
    """
    cache = cache_folder()
    damaged = dvcfiles.damaged_objects(_carried(study), cache)
    if damaged:
        raise UserError(f"{_list(damaged.values())}: damaged in the cache, nothing was pushed; `make pull` repairs it")
    done = _call("dvc", "push", *dvcfiles.stage_names(study))
    if done.returncode:
        raise UserError(f"dvc push: {_said(done)}")
    again = _send_lost(list(dvcfiles.objects(_carried(study), cache)), cache)
    print(done.stdout.strip().splitlines()[-1])
    if again:
        print(f"{again} more that the remote had lost")


def _send_lost(wanted: list[str], cache: Path) -> int:
    """Send the objects that the remote has not; return their number.

    DVC takes a folder's listing in the remote for a proof that all of its files are there too.
    """
    from dvc.fs import LocalFileSystem  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with Repo() as repo:
        remote = repo.cloud.get_remote_odb()
        lost = sorted(set(wanted) - set(remote.list_oids_exists(wanted)))
        absent = [md5 for md5 in lost if not dvcfiles.object_path(cache, md5).is_file()]
        if absent:
            raise UserError(f"{_list(absent)}: neither in the remote nor in the cache; run the study again")
        if lost:
            remote.add([str(dvcfiles.object_path(cache, md5)) for md5 in lost], LocalFileSystem(), lost)
    return len(lost)


def commit(study: str) -> None:
    """Write dvc.lock from a complete run of Snakemake, wherever it ran.

    Raises:
        UserError: there is no such study, or its run is not complete.
    """
    check_config(study)
    planned = snakemake(study, "--dry-run", "all").stdout
    if "Nothing to be done" not in planned:
        raise UserError(f"study {study} is not complete: `snakemake --dry-run` still has jobs; run them first")
    done = _call("dvc", "commit", "--force", *dvcfiles.stage_names(study))
    if done.returncode:
        raise UserError(f"dvc commit: {_said(done)}")
    print("dvc.lock is written; now: git add dvc.lock results && git commit, and make push")
