"""Which jobs run again when a key of a study or the code of a module changes: exactly those that depend on it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lowdata_cpt.core import code_versions
from lowdata_cpt.dev.golden import units
from lowdata_cpt.study import job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.load import validate

STUDY: dict[str, Any] = {
    "study": "s",
    "seeds": [0],
    "backbones": {"tiny": {"model": "vit_small_patch14_dinov2", "weights": "embedded:imgfocus", "image_size": 70}},
    "domains": {
        "camvid": {"resolution": 64, "sizes": [4]},
        "nyuv2": {"resolution": 64, "sizes": [4]},
        "neu_steel": {"resolution": 64, "sizes": [4]},
    },
    "methods": {name: {} for name in ("base", "base_domain_norm", "random", "diet_cp", "tec", "mae", "dino", "glare")},
    "training": {"epochs": 4, "batch_size": 4},
}
TRAINED = {"diet_cp", "tec", "mae", "dino", "glare"}
UNTRAINED = {"base", "base_domain_norm", "random"}
EVERY = TRAINED | UNTRAINED


def jobs(study: Study) -> dict[str, str]:
    """Return the parameters of every job of a study by its name."""
    found = {f"data {name}": job_params.data_params(study, name) for name in study.domains}
    found |= {f"backbone {name}": job_params.backbone_params(study, name) for name in study.backbones}
    for cell in cells(study):
        if cell.n:
            found[f"subset {cell.domain}"] = job_params.subset_params(study, cell.n, cell.seed)
        found[f"pretrain {cell.method}"] = job_params.pretrain_params(study, cell)
        found[f"evaluate {cell.domain}"] = job_params.evaluate_params(study, cell)
    return {name: json.dumps(params, sort_keys=True) for name, params in found.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the jobs whose parameters differ."""
    return {name for name in before | after if before.get(name) != after.get(name)}


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key of a study that is no mapping, with its value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    else:
        yield place, value


def candidates(value: Any, key: str) -> list[Any]:
    """Return other values to try for a key; at least one has to be valid."""
    named: dict[str, Any] = {"model": "vit_small_patch14_dinov2.lvd142m", "weights": "timm"}
    named |= {"training": {"epochs": 2}, "grid": [{"methods": list(EVERY)}], "diagnostics": {"camvid": ["glare"]}}
    named |= {
        "image_sizes": {"camvid": 84},
        "images_seen": 16,
        "milestones": [4],
        "decoder_width": 64,
        "region_sides": [1, 2],
    }
    if key in named:
        return [named[key]]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value - 1, value + 64]
    if isinstance(value, float):
        return [other for other in (value / 2, value + 0.25, value * 2, 1e-7) if other != value]
    if isinstance(value, list):
        return [
            value[:-1],
            [*value, 2 * (value[-1] if value else 1)],
            [v / 2 for v in value if isinstance(v, float)],
            [3],
        ]
    words = [
        "bf16",
        "cuda",
        "skip",
        "augmented",
        "student",
        "teacher",
        "epoch",
        "step",
        "zero",
        "first_batch",
        "random",
        "seeded",
    ]
    words += ["pretraining", "domain", "base", "squash", "stretch", "crop", "frozen", "other", "0" * 64, "elsewhere"]
    numbers: list[Any] = [1, 0.5, 100, 50, [1, 2]] if value is None else []
    return [word for word in words if word != value] + numbers


def expected(place: tuple[str, ...]) -> set[str]:
    """Return the jobs that a key decides: the table of this study."""
    top, *rest = place
    evaluated = {"evaluate camvid", "evaluate nyuv2", "evaluate neu_steel"}
    if top in ("resources", "absent_data", "keep_models", "diagnostics", "grid", "seeds"):
        return set()
    if top == "backbones":
        every = {"backbone tiny"} | {f"pretrain {name}" for name in EVERY}
        return {"backbone tiny"} if rest[-1] in ("weights", "sha256") else every | evaluated
    if top == "domains":
        if rest[1] == "segmentation":  # whether the set is probed on it
            return {"data nyuv2", "evaluate nyuv2"}
        return set() if rest[1] == "sizes" else {f"data {rest[0]}"}
    if top == "methods" and rest[1] == "training" and rest[0] in UNTRAINED:
        return set()  # what trains nothing does not depend on a length
    if top == "methods":
        return {f"pretrain {rest[0]}"}
    if top == "training":
        return {f"pretrain {name}" for name in TRAINED} | (evaluated if rest == ["precision"] else set())
    assert top == "probes", f"{'.'.join(place)}: a key that this table does not know"
    kind = rest[0]
    if kind == "image_sizes":
        return {"evaluate camvid"}
    of = {"linear": {"neu_steel"}, "segmentation": {"camvid", "nyuv2"}, "depth": {"nyuv2"}}
    return {f"evaluate {name}" for name in of[kind]} if kind in of else evaluated


RESOLVED = validate(STUDY)
KEYS = [
    (place, value)
    for place, value in leaves(RESOLVED.model_dump(mode="json"))
    if place[-1] not in ("study", "method", "kind") and place[:2] != ("methods", "base") and place[0] != "seeds"
]


@pytest.mark.parametrize(("place", "value"), KEYS, ids=[".".join(place) for place, _ in KEYS])
def test_a_key_decides_exactly_these_jobs(place: tuple[str, ...], value: Any) -> None:
    before, tried = jobs(RESOLVED), []
    for candidate in candidates(value, place[-1]):
        raw = copy.deepcopy(RESOLVED.model_dump(mode="json"))
        inner: Any = raw
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = candidate
        if place == ("training", "images_seen"):
            raw["training"]["epochs"] = None
        try:
            study = validate(raw)
        except Exception as error:
            tried.append(f"{candidate!r}: {error}")
            continue
        found = {name for name in changed(before, jobs(study)) if not name.startswith("subset")}
        assert found == expected(place), f"{'.'.join(place)}: {value!r} to {candidate!r}"
        return
    pytest.fail("no other value is valid: " + "; ".join(tried))


# Module -> jobs whose result its code decides.
MODULES = {
    "data.subsets": {"subset camvid", "subset nyuv2", "subset neu_steel"},
    "data.decode": {"data camvid", "data nyuv2", "data neu_steel"},
    "data.domains.nyuv2": {"data nyuv2"},
    "data.domains.galaxy10": set(),
    "methods.dino.learner": {"pretrain dino"},
    "methods.diet_cp.learner": {"pretrain diet_cp"},
    "training.loop": {f"pretrain {name}" for name in TRAINED},
    "training.sampling": {f"pretrain {name}" for name in TRAINED},
    "probes.linear": {"evaluate neu_steel"},
    "probes.depth": {"evaluate nyuv2"},
    "probes.segmentation": {"evaluate camvid", "evaluate nyuv2"},
    "probes.features": {"evaluate camvid", "evaluate nyuv2", "evaluate neu_steel"},
    "analysis.stats": set(),
    "core.errors": set(),
    "core.provenance": set(),
    "cli": set(),
    "jobs.collect": set(),
}


def changed_by(module: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The jobs that a change of a module's code changes."""
    before, read = jobs(RESOLVED), code_versions._read
    path = code_versions._file(module)
    assert path is not None, f"{module} is gone; it is named here"
    monkeypatch.setattr(
        code_versions, "_read", lambda found: (read(found)[0] + ("\nX = 1" if found == path else ""), read(found)[1])
    )
    job_params.code_of.cache_clear()
    after = jobs(RESOLVED)
    job_params.code_of.cache_clear()
    return changed(before, after)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_decides_exactly_these_jobs(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed_by(module, monkeypatch) == MODULES[module]


def test_the_embedded_backbone_and_vit_decide_what_passes_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = changed_by("backbones.vit", monkeypatch)
    assert {"backbone tiny", "pretrain dino", "evaluate camvid"} <= found
    assert not any(name.startswith(("data", "subset")) for name in found)


def test_every_version_of_a_job_is_one_that_a_golden_cell_can_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {code_versions.source_version(*unit.modules): f"kept {name}" for name, unit in units().items()}
    monkeypatch.setattr(code_versions, "_recorded", lambda: kept)
    job_params.code_of.cache_clear()
    found = {name: json.loads(params)["code"] for name, params in jobs(RESOLVED).items()}
    job_params.code_of.cache_clear()
    for name, code in found.items():
        versions = list(code.values()) if isinstance(code, dict) else [code]
        assert all(version.startswith("kept ") for version in versions), name


def test_the_parameters_of_every_job_by_name() -> None:
    """A job reads its parameters by these names, and their JSON is what Snakemake compares."""
    study = validate(STUDY)
    glare = next(cell for cell in cells(study) if (cell.domain, cell.method) == ("neu_steel", "glare"))
    base = next(cell for cell in cells(study) if cell.method == "base")
    version = code_versions.code_version
    domain, backbone = study.domains["neu_steel"], study.backbones["tiny"]
    plain = {name: getattr(study, name).model_dump(mode="json") for name in ("probes", "training")}
    of_model = {"model": backbone.model, "image_size": 70, "seed": 0}
    pretrain = of_model | {
        "method": study.methods["glare"].model_dump(mode="json", exclude={"training"}),
        "training": plain["training"],
        "code": version(*type(study.methods["glare"]).code_modules()),
    }
    expected = [
        (
            job_params.subset_params(study, "4", "0"),
            {"n": 4, "seed": 0, "code": version("data.subsets")},
        ),
        (
            job_params.backbone_params(study, "tiny"),
            {"backbone": backbone.model_dump(mode="json"), "code": version("backbones.weights")},
        ),
        (
            job_params.data_params(study, "neu_steel"),
            {
                "domain": domain.model_dump(mode="json", exclude={"sizes"}),
                "raw": domain.raw_fingerprint(),
                "code": version(*domain.code_modules()),
            },
        ),
        (job_params.pretrain_params(study, glare), pretrain),
        (
            job_params.diagnostics_params(study, glare),
            pretrain | {"diagnostics": version("jobs.diagnostics", "methods.glare.diagnostics")},
        ),
        (
            job_params.evaluate_params(study, glare),
            of_model
            | {
                "precision": study.training.precision,
                "probes": {name: plain["probes"][name] for name in ("features", "examples", "linear")},
                "code": {name: version(f"probes.{name}") for name in ("evaluate", "linear")},
            },
        ),
    ]
    for found, wanted in expected:
        assert found == wanted == json.loads(job_params.dump(found))
    assert job_params.pretrain_params(study, base)["training"] is None
    whole = job_params.study_params(study)
    assert "resources" not in whole
    assert json.loads(json.dumps(whole)) == whole == study.model_dump(mode="json", exclude={"resources"})


def test_parameters_are_models_or_plain_values() -> None:
    assert job_params.dump({"b": validate(STUDY).backbones["tiny"], "a": 1}).startswith(
        '{"a": 1, "b": {"image_size": 70'
    )
    with pytest.raises(AssertionError, match=r"^object is not a configuration$"):
        job_params.dump(object())
