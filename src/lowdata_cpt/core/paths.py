"""Where the project lies: its files are found from here, whatever the working directory."""

from __future__ import annotations

import os
from pathlib import Path

from lowdata_cpt.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
CLAIMS = "config/claims.yaml"
DATA_ROOT = "LOWDATA_DATA"
"""Environment variable naming the folder that data sets and local models are below (default: ./data)."""


def project_file(name: str) -> Path:
    """Return a file of the project by its name there: the working directory's own where it has one."""
    return Path(name) if Path(name).exists() else REPOSITORY / name


def expanded(path: str | Path) -> Path:
    """Return a path as a shell would read it: ~ and $NAME stand for what they name.

    Raises:
        UserError: ~ names a user whom this machine does not have.
    """
    try:
        return Path(os.path.expandvars(Path(path).expanduser()))
    except RuntimeError:
        raise UserError(f"{path}: this machine has no such user; expected a path") from None


def data_root() -> Path:
    """Return the folder that data sets and local models are below, read as a shell would.

    Raises:
        UserError: ~ names a user whom this machine does not have.
    """
    return expanded(os.environ.get(DATA_ROOT) or "data")
