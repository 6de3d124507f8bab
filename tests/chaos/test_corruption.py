"""One flipped bit, or a cut, in any file that a path of the workflow reads: named, made again, or without effect.

Never another result, never a traceback. Each trial damages one file of a finished study and runs the step that reads
it; 500 of them in `make chaos`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lowdata_cpt.core import io
from lowdata_cpt.core.errors import UserError
from tests.chaos import study
from tests.chaos.conftest import Record, count
from tests.chaos.study import CELLS, PATHS

MAE, GLARE = (PATHS.cell(CELLS[name]) for name in ("mae", "glare"))
TABLES = tuple(PATHS.of_study(name) for name in ("scores.csv", "selected.csv", "curves.csv", "cost.csv"))
RESULTS = ("statistics", "tables", "claims.json", "claims.md")
GATHERED = (*TABLES, *(PATHS.of_study(name) for name in ("study.json", "outcomes", "qualitative")))
SCORES = ("evaluation.json", "outcomes.npz", "examples.npz")


class Step(NamedTuple):
    """A step of the workflow: which files it reads (patterns), what it does, and where its results lie."""

    reads: tuple[str, ...]
    work: Callable[[], None]
    results: tuple[Path, ...]
    stopped: bool = False


STORE = "results/s/data/camvid"
STEPS = {
    "train": Step(
        (
            "results/s/backbones/tiny/model.*",
            f"{STORE}/manifest.json",
            f"{STORE}/store/meta.json",
            f"{STORE}/store/index.csv",
            f"{STORE}/store/pool.images.npy",
            "results/s/subsets/camvid/s0/n4.csv",
        ),
        lambda: study.train(CELLS["mae"]),
        (MAE / "export",),
    ),
    "evaluate": Step(
        (
            f"{GLARE}/export/i8/model.*",
            f"{GLARE}/export/i8/adapter.*",
            f"{STORE}/store/*.npy",
            f"{STORE}/store/meta.json",
            f"{STORE}/store/index.csv",
        ),
        lambda: study.score(CELLS["glare"]),
        tuple(GLARE / name for name in SCORES),
    ),
    "collect": Step(
        (
            *(f"{MAE}/{name}*" for name in ("evaluation.json", "outcomes.npz", "cost.json")),
            *(f"{MAE}/{name}" for name in ("examples.npz", "log.csv")),
        ),
        study.gather,
        GATHERED,
    ),
    "analyse": Step(
        (*(f"{path}*" for path in TABLES), "results/s/study.json", "results/s/outcomes/*.npz"),
        study.analyse,
        tuple(PATHS.of_study(name) for name in RESULTS),
    ),
    "resume training": Step(
        ("work/**/state.safetensors", "work/**/steps.jsonl", "work/**/export/i4/model.*"),
        lambda: study.train(CELLS["mae"]),
        (MAE / "export",),
        stopped=True,
    ),
    "resume evaluation": Step(
        ("work/**/outcomes.npz", "work/**/examples.npz", "work/**/summary.json", "work/**/done.json"),
        lambda: study.score(CELLS["glare"]),
        tuple(GLARE / name for name in SCORES),
        stopped=True,
    ),
}


def damage(path: Path, generator: np.random.Generator) -> str:
    """Cut a file, or flip one bit: in its first 300 bytes, where headers are, or anywhere."""
    content, kind = bytearray(path.read_bytes()), generator.choice(["cut", "header", "anywhere"], p=[0.2, 0.3, 0.5])
    if kind == "cut":
        path.write_bytes(content[: generator.integers(len(content))])
        return str(kind)
    at = generator.integers(min(300, len(content)) if kind == "header" else len(content))
    content[at] ^= 1 << int(generator.integers(8))
    path.write_bytes(content)
    return f"a bit of byte {at}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return the study as it is finished, and as a kill of one method's training and evaluation leaves it."""
    made = {stopped: tmp_path_factory.mktemp("stopped" if stopped else "finished") for stopped in (False, True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWDATA_DATA", "data")
        patch.chdir(made[False])
        study.make(made[False])
        shutil.copytree(made[False], made[True], dirs_exist_ok=True)
        patch.chdir(made[True])
        study.stop(patch)
    return made


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_results_are_the_same_or_the_file_is_named(
    folders: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    monkeypatch.setenv("LOWDATA_DATA", "data")
    generator, trials, seen = np.random.default_rng(17), count(500, 60), Counter[str]()
    wrong: list[str] = []
    good: dict[str, str] = {}
    reads: dict[str, list[Path]] = {}
    names = list(STEPS)
    for trial in range(-len(names), trials):
        name = names[trial % len(names)]
        step, here = STEPS[name], tmp_path / "trial"
        shutil.copytree(folders[step.stopped], here)
        monkeypatch.chdir(here)
        io._held.clear()
        if trial < 0:  # undamaged: what the result should be, and that the step does read what it is said to
            reads[name] = sorted({path for pattern in step.reads for path in Path().glob(pattern)})
            assert len(reads[name]) >= len(step.reads), (name, reads[name])
            step.work()
            good[name] = study.digest(*step.results)
        else:
            file = reads[name][int(generator.integers(len(reads[name])))]
            what = f"{name}, {file}: {damage(file, generator)}"
            try:
                step.work()
                ended = "without effect" if study.digest(*step.results) == good[name] else "silent other results"
            except UserError as error:
                # A damaged record makes the file that it describes look damaged; a store's, the manifest's content.
                named = str(file) in str(error) or (file.suffix == ".json" and str(file.parent) in str(error))
                ended = "refused by name" if named and "\n" not in str(error) else "refused without a name"
                what = f"{what}: {error}"
            except Exception as error:
                ended = "tracebacks"
                what = f"{what}: {error!r}"
            seen[ended] += 1
            if ended not in ("without effect", "refused by name"):
                wrong.append(f"{ended}: {what}")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(here)
    kinds = ("refused by name", "without effect", "silent other results", "tracebacks")
    record("corruption", {"damages": trials} | {kind: seen[kind] for kind in kinds})
    assert not wrong, "\n".join(wrong)
    assert seen["refused by name"] > trials / 2
