"""Run the embedded study in parts, each with a table, claims and figures of its own: `python tools/waves.py [FIRST]`.

What one part has computed the next one keeps; killed, it goes on where it was, from part FIRST if given. Each part's
configuration is config/embedded.yaml with fewer domains and sizes, written to work/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ADDED: tuple[dict[str, list[int]], ...] = (
    {"tabletop": [100], "nyuv2": [100]},
    {"tabletop": [1000]},
    {"nyuv2": [795]},
    {"neu_steel": [100]},
    {"nuclei": [100]},
    {"camvid": [100]},
    {"cifar10": [100]},
    {"neu_steel": [720], "nuclei": [430]},
    {"camvid": [367], "cifar10": [600]},
    {"tabletop": [250, 500], "nyuv2": [250, 500]},
)
"""Domains and sizes that each part adds to the one before; together they are the whole study."""


def sizes_of(part: int) -> dict[str, list[int]]:
    """Return the domains and sizes of a part, counted from 1."""
    sizes: dict[str, list[int]] = {}
    for added in ADDED[:part]:
        for name, more in added.items():
            sizes[name] = sorted({*sizes.get(name, []), *more})
    return sizes


def part_of(study: dict[str, Any], sizes: dict[str, list[int]]) -> dict[str, Any]:
    """Return the study with these domains and sizes only."""
    domains = {name: study["domains"][name] | {"sizes": wanted} for name, wanted in sizes.items()}
    blocks = []
    for block in study["grid"]:
        names = [name for name in block["domains"] if name in sizes]
        offered = {n for name in names for n in sizes[name]}
        wanted = [n for n in block.get("sizes", offered) if n in offered]
        names = [name for name in names if set(wanted) & set(sizes[name])]
        if names:
            blocks.append(block | {"domains": names} | ({"sizes": wanted} if "sizes" in block else {}))
    return study | {"domains": domains, "grid": blocks}


def main() -> int:
    """Run the parts; the status is the first that is not 0."""
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    study = yaml.safe_load((ROOT / "config/embedded.yaml").read_text(encoding="utf-8"))
    (ROOT / "work").mkdir(exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CORES": "2"} | os.environ
    for number in range(first, len(ADDED) + 1):
        config = Path("work", f"embedded-{number}.yaml")
        (ROOT / config).write_text(yaml.safe_dump(part_of(study, sizes_of(number)), sort_keys=False), encoding="utf-8")
        command = ["snakemake", "--cores", environment["CORES"], "--rerun-incomplete", "--keep-going"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--configfile", str(config)], cwd=ROOT, env=environment, check=False
        )
        print(f"part {number} of {len(ADDED)}: {'complete' if done.returncode == 0 else 'failed'}", flush=True)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
