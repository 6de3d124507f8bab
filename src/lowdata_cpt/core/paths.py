"""Where the project lies: its files are found from here, whatever the working directory."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
CLAIMS = "config/claims.yaml"


def project_file(name: str) -> Path:
    """Return a file of the project by its name there: the working directory's own where it has one."""
    return Path(name) if Path(name).exists() else REPOSITORY / name
