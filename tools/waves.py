"""Run the embedded study in parts, each with a table, claims and figures of its own: `python tools/waves.py`.

What one part has computed the next one keeps; killed, it goes on where it was. Each part's configuration is
config/embedded.yaml with fewer domains and sizes, written to work/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"tabletop": [100], "nyuv2": [100]}
LARGE = {"tabletop": [100, 1000], "nyuv2": [100, 795]}
FAR = LARGE | {"neu_steel": [100]}
PARTS: tuple[dict[str, list[int]] | None, ...] = (SMALL, SMALL | {"tabletop": [100, 1000]}, LARGE, FAR, None)
"""Domains and sizes of each part; None: all."""


def part_of(study: dict[str, Any], sizes: dict[str, list[int]] | None) -> dict[str, Any]:
    """Return the study with these domains and sizes only."""
    if sizes is None:
        return study
    domains = {name: study["domains"][name] | {"sizes": wanted} for name, wanted in sizes.items()}
    blocks = [block | {"domains": [n for n in block["domains"] if n in sizes]} for block in study["grid"]]
    return study | {"domains": domains, "grid": [block for block in blocks if block["domains"]]}


def main() -> int:
    """Run the parts; the status is the first that is not 0."""
    study = yaml.safe_load((ROOT / "config/embedded.yaml").read_text(encoding="utf-8"))
    (ROOT / "work").mkdir(exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CORES": "2"} | os.environ
    for number, sizes in enumerate(PARTS, 1):
        config = Path("work", f"embedded-{number}.yaml")
        (ROOT / config).write_text(yaml.safe_dump(part_of(study, sizes), sort_keys=False), encoding="utf-8")
        command = ["snakemake", "--cores", environment["CORES"], "--rerun-incomplete", "--keep-going"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--configfile", str(config)], cwd=ROOT, env=environment, check=False
        )
        print(f"part {number} of {len(PARTS)}: {'complete' if done.returncode == 0 else 'failed'}", flush=True)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
