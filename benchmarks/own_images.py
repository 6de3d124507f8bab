"""From a folder of images to an answer, timed: `init`, the study that it writes, and the sentences printed.

python -m benchmarks.own_images [--images 167]

The folder is made of a published set (LOWDATA_DATA/neu_steel), as its owner would have it: class folders, no splits. Of
167 images `init` puts 100 into the pool that trains. Writes `benchmarks/own_images.json` and a block of
docs/data/own-images.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from benchmarks.harness import timed
from benchmarks.page import show
from lowdata_cpt.core.io import write_json
from lowdata_cpt.core.provenance import processor
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.domains.neu_steel import NEUSteel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "data" / "own-images.md"
NAME = "steel"


def folder_of(images: int, root: Path) -> Path:
    """Write that many images of the set, every class alike, as PNG files in class folders."""
    store = prepare(NEUSteel(), ROOT / ".cache" / "packages")
    rows, pixels = store.rows(store.meta.pool), store.images(store.meta.pool)
    labels, classes = store.labels(store.meta.pool), store.task("classification").classes
    for label, name in enumerate(classes):
        share = images // len(classes) + (label < images % len(classes))
        (root / name).mkdir(parents=True)
        for i in [i for i in range(len(rows)) if labels[i] == label][:share]:
            Image.fromarray(pixels[i]).save(root / name / f"{i:04d}.png")
    return root


def run(*command: str) -> str:
    """Run a command in the repository and return what it printed."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_page(row: dict[str, Any]) -> None:
    """Put what was measured between the page's markers."""
    text = (
        f"Measured on {row['images']} images of NEU steel in class folders: `init` {row['init_cpu_seconds']} s; the "
        f"run (DIET-CP on {row['trained_on']} of them at its recipe, one seed) {row['run_cpu_minutes']} CPU minutes, "
        f"which were {row['run_wall_minutes']:.0f} minutes of a machine that other work shared; the sentences "
        "count the latter. They were:\n\n" + "\n>\n".join(f"> {line}" for line in row["answer"])
    )
    show(PAGE, "benchmarks/own_images.json", text)


def main() -> None:
    """Time the three commands and write what they printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=167)
    images = parser.parse_args().images
    bin_ = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as work:
        folder, config = folder_of(images, Path(work) / NAME), Path(work) / f"{NAME}.yaml"
        init_cpu, _, said = timed(lambda: run(f"{bin_}/lowdata-cpt", "init", str(folder), "--out", str(config)))
        go = (f"{bin_}/snakemake", "--cores", "1", "--rerun-incomplete", "--quiet", "all", "--configfile", str(config))
        cpu, wall, _ = timed(lambda: run(*go))
        answer = run(f"{bin_}/lowdata-cpt", "headline", f"results/{NAME}")
        shutil.rmtree(ROOT / "results" / NAME)
        sizes = yaml.safe_load(config.read_text())["domains"]["imagefolder"]["sizes"]
    row = {
        "images": images,
        "trained_on": sizes[0],
        "init_cpu_seconds": round(init_cpu, 1),
        "run_cpu_minutes": round(cpu / 60, 1),
        "run_wall_minutes": round(wall / 60, 1),
        "load": round(os.getloadavg()[0], 1),
        "processor": processor(),
        "said": [line.replace(str(folder), f"/path/to/{NAME}") for line in said.splitlines()],
        "answer": [line for line in answer.splitlines() if re.search(r"points|%", line)],
    }
    write_json(HERE / "own_images.json", row)
    write_page(row)


if __name__ == "__main__":
    main()
