"""Golden cells: one tiny computation per method, probe, draw and decoder, whose digest says whether results changed.

`python -m lowdata_cpt.dev.golden` (`make golden`) computes those whose source has changed. Equal digests record the new
source as the same version in config/code_versions.json, so that no job of any study runs again; others become a new
version. A changed module of which no function ran in the golden cell counts as different. `--check` only says what is
not recorded (`make lint`). Digests are exact, so they compare on one machine only: on another, those of the last commit
are computed first, in a worktree of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from lowdata_cpt.backbones.opening import CONFIG, README
from lowdata_cpt.core.code_versions import RECORDED, source_version, sources
from lowdata_cpt.core.determinism import deterministic
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, read_json, sha256_bytes, write_json
from lowdata_cpt.core.paths import PACKAGE, REPOSITORY
from lowdata_cpt.core.provenance import processor
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.dev.scale_down import SMALLER, fixtures_in
from lowdata_cpt.jobs.chain import run_cell, run_inputs
from lowdata_cpt.methods.registry import METHODS
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.study import job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

BACKBONE = {"model": "vit_tiny_patch16_224", "weights": "random", "image_size": 64}
IMAGES, SEED = 4, 1
TABLETOP = "tabletop"  # is rendered, and needs no fixture
TRAINING = {"epochs": 2, "batch_size": 3, "milestones": [5]}
DENSE = {"steps": 3, "batch_size": 2}
# Three fixtures that between them carry labels for every probe.
LABELLED = ("neu_steel", "camvid", "nyuv2")


LANGUAGE: dict[str, Any] = {
    "kind": "language",
    "study": "golden",
    "seeds": [SEED],
    "learners": {
        "tiny": {
            "model": {"kind": "bytes", "hidden": 16, "layers": 3, "heads": 2, "intermediate": 32},
            "lora": {"rank": 2},
            "window": 128,
            "whole": True,
            "pretraining": {"steps": 2, "batch_size": 2},
            "training": {"steps": 3, "batch_size": 2, "milestones": 2},
        }
    },
    "data": {
        "kind": "generated",
        "pretraining_tokens": 2000,
        "stream_tokens": 2000,
        "pretraining": {"prose": 0.5, "change": 0.5},
        "stream": {
            "prose": 0.2,
            **dict.fromkeys(("gain", "loss", "price", "total", "left", "earn", "change"), 0.8 / 7),
        },
    },
    "designer": {"candidates": 4, "hidden": 8, "heads": 2, "layers": 1, "every": 2, "feedback_batch": 2},
    "feedback": 8,
    "evaluation": {"problems": 4, "prose_windows": 2, "new_tokens": 4, "batch_size": 2},
}


class Unit(NamedTuple):
    """Modules whose version is recorded, and what computes their golden cell; returns anything that can be hashed."""

    modules: tuple[str, ...]
    compute: Callable[[], Any]


@dataclass
class Outcome:
    """A golden cell that was computed: the digest of its result, and the modules of which some function ran."""

    digest: str
    ran: set[str] = field(default_factory=set)


def study_of(kinds: tuple[str, ...], methods: dict[str, Any]) -> Study:
    """Return the study that golden cells belong to."""
    return validate(
        {
            "study": "golden",
            "seeds": [SEED],
            "backbones": {"tiny": BACKBONE},
            "domains": {kind: _domain(kind) for kind in kinds},
            "methods": {"base": {}} | methods,
            "training": TRAINING,
            "probes": {"segmentation": DENSE, "depth": DENSE, "linear": {"c_grid": [1.0, 10.0]}},
        },
        "golden cells",
    )


def _domain(kind: str) -> dict[str, Any]:
    if kind == TABLETOP:
        few = {"pool": IMAGES, "train": 2, "val": 2, "test": 2}
        return {"kind": kind, "resolution": 64, "crop_size": 32, "sizes": [IMAGES]} | few
    special = {"medmnist": {"flag": "pathmnist", "pixels": 28}}
    return {"root": kind, "resolution": 64, "sizes": [IMAGES], "kind": kind} | special.get(kind, {})


def _inputs(kind: str, method: str, settings: dict[str, Any] | None = None) -> tuple[Study, Cell, Paths]:
    """Make the inputs of one cell on the fixture of a kind of domain."""
    root = Path("data", kind)
    if kind != TABLETOP and not root.exists():
        MAKERS[kind](root)
    study, paths = study_of((kind,), {method: settings or {}}), Paths("results/golden")
    cell = Cell("tiny", kind, method, IMAGES if study.methods[method].learner_path else 0, SEED)
    run_inputs(study, cell, paths)
    return study, cell, paths


def _files(folder: Path) -> dict[str, str]:
    """Return the content of a folder's files but for what is a measurement, a place or a description."""
    skipped = {"cost.json", "manifest.json", CONFIG, README}
    return {
        path.relative_to(folder).as_posix(): sha256_bytes(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and not path.name.endswith(".prov.json")
    }


def _method(name: str) -> Callable[[], Any]:
    def compute() -> Any:
        from lowdata_cpt.jobs.pretrain import pretrain

        (config,) = (one for one in METHODS if one.model_fields["method"].default == name)
        small = {key: value for key, value in SMALLER.items() if key in config.model_fields}
        study, cell, paths = _inputs("nyuv2", name, small)
        pretrain(job_params.pretrain_params(study, cell), cell, paths, device="cpu")
        return _files(paths.cell(cell))

    return compute


def _evaluation(kind: str) -> Callable[[], Any]:
    def compute() -> Any:
        study, cell, paths = _inputs(kind, "base")
        run_cell(study, cell, paths, device="cpu")
        with np.load(paths.cell(cell) / "outcomes.npz", allow_pickle=False) as outcomes:
            arrays = {name: sha256_bytes(outcomes[name].tobytes()) for name in outcomes.files}
        return arrays, read_json(paths.cell(cell) / "evaluation.json")

    return compute


def _evaluated_with_augmented_bank() -> Any:
    """Return an evaluation, and the augmented views that a bank may be made of."""
    import torch

    from lowdata_cpt.probes.features import diet_view

    images = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))
    views = diet_view(images, 48, torch.Generator().manual_seed(SEED))
    return _evaluation("nyuv2")(), sha256_bytes(views.numpy().tobytes())


def _decoded(kind: str) -> Callable[[], Any]:
    def compute() -> Any:
        _, cell, paths = _inputs(kind, "base")
        return _files(paths.manifest(cell.domain).parent / "store")

    return compute


def _drawn() -> Any:
    study, cell, paths = _inputs("neu_steel", "dino")
    return paths.subset(cell.domain, cell.n, cell.seed).read_text(encoding="utf-8"), len(study.domains)


def _opened() -> Any:
    _, cell, paths = _inputs("neu_steel", "base")
    return _files(paths.backbone(cell.backbone))


def _language(part: str) -> Callable[[], Any]:
    """Compute a language study's splits, or its start and one run of each arm too, or the scores of these too."""

    def compute() -> Any:
        from lowdata_cpt.language import jobs, plan
        from lowdata_cpt.language.config import validate as of_language

        study, paths, learner = of_language(LANGUAGE), plan.Paths("results/golden"), "tiny"
        jobs.make_data(plan.data_params(study, learner), learner, paths)
        if part == "data":
            return _files(paths.data(learner))
        base = plan.base_of(learner)
        jobs.make_base(plan.base_params(study, learner), learner, paths, device="cpu", checkpoint_seconds=300.0)
        for cell in plan.cells(study):
            jobs.continue_cell(plan.continue_params(study, cell), cell, paths, device="cpu")
        if part == "runs":
            return _files(paths.root / "cells")
        for cell in (base, *plan.cells(study)):
            jobs.evaluate_cell(plan.evaluate_params(study, cell), cell, paths, device="cpu")
        return [read_json(paths.cell(cell) / "evaluation.json") for cell in (base, *plan.cells(study))]

    return compute


def units() -> dict[str, Unit]:
    """Return every golden cell by the name of what it is of."""
    kinds = {model.model_fields["kind"].default: model for model in DOMAINS}
    found = {
        f"methods.{model.model_fields['method'].default}": Unit(
            model.code_modules(), _method(model.model_fields["method"].default)
        )
        for model in METHODS
    }
    tasks = {kind: study_of((kind,), {}).domains[kind].tasks() for kind in LABELLED}
    for name, probe in PROBES.items():
        kind = next(kind for kind in LABELLED if probe.TASK in tasks[kind])
        found[f"probes.{name}"] = Unit((f"probes.{name}",), _evaluation(kind))
    found["probes.evaluate"] = Unit(("probes.evaluate",), _evaluated_with_augmented_bank)
    for kind in (*MAKERS, TABLETOP):
        found[f"data.{kind}"] = Unit(kinds[kind].code_modules(), _decoded(kind))
    for part in ("data", "runs", "evaluation"):
        found[f"language.{part}"] = Unit((f"language.{part}",), _language(part))
    found["data.subsets"] = Unit(("data.subsets",), _drawn)
    found["backbones.weights"] = Unit(("backbones.weights",), _opened)
    return found


@contextmanager
def _traced(ran: set[str]) -> Iterator[None]:
    """Collect the modules of this package of which a function is called."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            name = frame.f_code.co_filename
            if name.startswith(str(PACKAGE)):
                ran.add(
                    Path(name)
                    .relative_to(PACKAGE)
                    .with_suffix("")
                    .as_posix()
                    .replace("/", ".")
                    .removesuffix(".__init__")
                )

    threading.setprofile(note)  # images are decoded in threads
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def compute(names: list[str]) -> dict[str, Outcome]:
    """Compute golden cells, each in an empty folder, with one thread."""
    deterministic(1)
    found = {}
    for name, unit in units().items():
        if name in names:
            ran: set[str] = set()
            with tempfile.TemporaryDirectory() as folder, fixtures_in(Path(folder)), _traced(ran):
                result = unit.compute()
            found[name] = Outcome(identity(result), ran)
    return found


def machine() -> str:
    """Return what decides the last bit of a result besides the code."""
    import torch

    return f"{processor()}, torch {torch.__version__}"


def unrecorded() -> list[str]:
    """Return the units whose source is not the recorded one."""
    known = read_json(RECORDED)["units"] if RECORDED.exists() else {}
    return [
        name for name, unit in units().items() if known.get(name, {}).get("source") != source_version(*unit.modules)
    ]


def _hashes(unit: Unit) -> dict[str, str]:
    """Return a short hash of each module that a unit depends on."""
    return {module: sha256_bytes(text.encode())[:12] for module, text in sorted(sources(*unit.modules).items())}


def _without_functions(module: str) -> bool:
    """Say whether a module holds values and declarations only: importing it runs all of it."""
    return "def " not in sources(module).get(module, "def ")


def judge(known: dict[str, Any], unit: Unit, outcome: Outcome) -> dict[str, Any]:
    """Return a unit's new entry: the old version where the digest is equal and every changed module ran."""
    source, hashes = source_version(*unit.modules), _hashes(unit)
    changed = {m for m in hashes | known.get("modules", {}) if hashes.get(m) != known.get("modules", {}).get(m)}
    covered = all(m in outcome.ran or m not in hashes or _without_functions(m) for m in changed)
    same = bool(known) and known["digest"] == outcome.digest and covered
    return {
        "source": source,
        "version": known["version"] if same else source,
        "digest": outcome.digest,
        "machine": machine(),
        "modules": hashes,
    }


def _digests_of_commit(names: list[str]) -> dict[str, str]:
    """Return digests of the last commit's code on this machine, computed in a worktree of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = str(Path(folder, "tree"))
        subprocess.run(["git", "worktree", "add", "--detach", tree, "HEAD"], cwd=REPOSITORY, check=True)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "lowdata_cpt.dev.golden", "--digests", *names],
                cwd=tree,
                env=os.environ | {"PYTHONPATH": f"{tree}/src"},
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=REPOSITORY, check=True)
    if done.returncode:
        raise UserError(f"golden cells of the last commit: {done.stderr.strip().splitlines()[-1]}")
    digests: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return digests


def record() -> None:
    """Compute the golden cells of changed units and write config/code_versions.json."""
    names, every = unrecorded(), units()
    empty: dict[str, Any] = {"versions": {"images": {}, "language": {}}, "units": {}}
    stored: dict[str, Any] = read_json(RECORDED) if RECORDED.exists() else empty
    known: dict[str, Any] = {
        name: stored["units"][name] | {"version": version}
        for of_kind in stored["versions"].values()
        for name, version in of_kind.items()
    }
    if names:
        outcomes = compute(names)
        if elsewhere := [name for name in names if name in known and known[name]["machine"] != machine()]:
            for name, digest in _digests_of_commit(elsewhere).items():
                known[name] |= {"digest": digest}
        for name in names:
            old = known.get(name, {})
            known[name] = judge(old, every[name], outcomes[name])
            print(f"{name}: {'results unchanged' if known[name]['version'] == old.get('version') else 'new version'}")
    # Versions apart from what they were judged by, and by kind of study: DVC's stages depend on them alone.
    versions: dict[str, dict[str, str]] = {"images": {}, "language": {}}
    for name in every:
        versions["language" if name.startswith("language.") else "images"][name] = known[name].pop("version")
    write_json(RECORDED, {"versions": versions, "units": {name: known[name] for name in every}})


def main(arguments: list[str]) -> int:
    """Record, or with `--check` name what is not recorded, or with `--digests` print digests of the named units."""
    if arguments[:1] == ["--digests"]:
        print(json.dumps({name: outcome.digest for name, outcome in compute(arguments[1:]).items()}))
    elif arguments[:1] == ["--check"]:
        if missing := unrecorded():
            print(
                f"{RECORDED.name}: the source of {', '.join(missing)} has changed; run `make golden`", file=sys.stderr
            )
            return 1
    else:
        record()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
