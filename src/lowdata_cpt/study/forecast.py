"""What a study will cost before anything is run: jobs per rule, device-hours, disk. No torch, no data needed.

A job's seconds come from recorded benchmarks where a comparable job has run in any study (scaled by images), else
from an estimate of floating-point operations. Each line says how many jobs are which.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, read_json
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.flops import features_flops, geometry, parameters, training_flops
from lowdata_cpt.study.grid import Cell, cells, illustrated, pairs, probes_of
from lowdata_cpt.study.load import validate

PUBLISHED: dict[str, tuple[int, ...]] = {
    "ade20k": (20210, 2000),
    "aircraft": (3334, 3333, 3333),
    "camvid": (367, 101, 233),
    "cifar10": (50000, 10000),
    "cityscapes": (2975, 500),
    "eurosat": (27000,),
    "food101": (75750, 25250),
    "galaxy10": (17736,),
    "loveda": (2522, 1669),
    "neu_steel": (1800,),
    "nuclei": (670,),
    "nyuv2": (795, 654),
    "pascal_context": (4996, 5104),
    "pathmnist": (89996, 10004, 7180),
    "dermamnist": (7007, 1003, 2005),
    "octmnist": (97477, 10832, 1000),
    "pneumoniamnist": (4708, 524, 624),
    "retinamnist": (1080, 120, 400),
    "breastmnist": (546, 78, 156),
    "bloodmnist": (11959, 1712, 3421),
    "tissuemnist": (165466, 23640, 47280),
    "organamnist": (34561, 6491, 17778),
    "organcmnist": (12975, 2392, 8216),
    "organsmnist": (13932, 2452, 8827),
}
"""Images of each published split. Your own images (`imagefolder`) are not known before they are decoded."""

CLASSES = {"ade20k": 150, "pascal_context": 59, "cityscapes": 19, "loveda": 7, "camvid": 11, "nuclei": 2, "nyuv2": 40}
DEVICE_RULES = ("pretrain", "features", "segmentation", "depth")
GIB = 1024.0**3


@dataclass(frozen=True)
class Assumptions:
    """What the estimates stand on.

    Attributes:
        tflops: sustained 10¹² operations a second of one device in bf16.
        fp32_slowdown: how many times slower fp32 runs.
        gbytes: memory traffic of one device, 10⁹ bytes a second (dense probes are bound by it).
        startup: seconds before a job computes: interpreter, imports, weights.
        unknown_images: images of a domain of which no count is known.
    """

    tflops: float = 60.0
    fp32_slowdown: float = 4.0
    gbytes: float = 800.0
    startup: float = 20.0
    unknown_images: int = 10_000

    @classmethod
    def of(cls, study: Study, tflops: float | None, gbytes: float | None, startup: float | None) -> Assumptions:
        """Fill in what is not given: a current GPU, or one CPU core where the study asks for no GPU."""
        gpu = study.resources.gpu > 0
        return cls(
            tflops=tflops or (60.0 if gpu else 0.06 * study.resources.threads),
            fp32_slowdown=4.0 if gpu else 1.0,
            gbytes=gbytes or (800.0 if gpu else 5.0),
            startup=startup or (20.0 if gpu else 5.0),
        )


@dataclass
class Line:
    """One rule: jobs, how many of them have a benchmark, and their seconds in sum."""

    rule: str
    jobs: int = 0
    recorded: int = 0
    seconds: float = 0.0


@dataclass
class Forecast:
    """A study's forecast; disk in bytes, `largest_features` is a temporary file."""

    study: str
    devices: int
    lines: dict[str, Line] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    largest_features: float = 0.0

    @property
    def jobs(self) -> int:
        """Number of jobs, `all` included, as `snakemake -n` counts them."""
        return sum(line.jobs for line in self.lines.values())

    def hours(self, on_device: bool) -> float:
        """Return the hours of the rules that compute with tensors (GPU-hours if GPUs are asked for), or of the rest."""
        seconds = sum(line.seconds for line in self.lines.values() if (line.rule in DEVICE_RULES) == on_device)
        return seconds / 3600 * (max(self.devices, 1) if on_device else 1)


class Job(NamedTuple):
    """A job's rule, what makes it comparable with others, and how much work it is."""

    rule: str
    key: str
    units: float


def labelled_images(domain: Domain, manifest: Path, assumptions: Assumptions) -> int:
    """Return the number of labelled images: of the decoded store if there is one, else as published."""
    if manifest.exists():
        facts = read_json(manifest)
        sets = {name for task in facts["tasks"].values() for name in task["sets"].values()}
        return int(sum(facts["images"][name] for name in sets))
    settings = domain.model_dump()
    if settings["kind"] == "tabletop":
        scenes: int = settings["train"] + settings["val"] + settings["test"]
        return scenes + 3 * int(settings["max_crops"] or scenes)
    published: tuple[int, ...] = PUBLISHED.get(settings.get("flag") or settings["kind"], (assumptions.unknown_images,))
    most: int | None = settings.get("max_images")
    return sum(min(count, most or count) for count in published)


def _job(study: Study, rule: str, cell: Cell, images: int) -> Job:
    """Return the job of a cell: comparable jobs have the same key, and cost in proportion to their units."""
    backbone, domain = study.backbones[cell.backbone], study.domains[cell.domain]
    where: dict[str, Any] = {"rule": rule, "model": backbone.model, "precision": study.training.precision}
    if rule == "pretrain":
        method = study.methods[cell.method]
        training = method.training or study.training
        where |= {"size": backbone.image_size, "method": method.model_dump(mode="json", exclude={"training"})}
        where |= {"batch": training.batch_size, "precision": training.precision} if cell.n else {}
        return Job(rule, identity(where), _images_seen(method, study, cell.n))
    where["size"] = study.probes.image_sizes.get(cell.domain, backbone.image_size)
    if rule == "features":
        return Job(rule, identity(where | {"dense": domain.tasks() != ("classification",)}), images)
    where |= {"probe": getattr(study.probes, rule).model_dump(mode="json")}
    where |= {"domain": domain.model_dump(mode="json", exclude={"sizes", "root"})}
    return Job(rule, identity(where), 1)


def _images_seen(method: MethodConfig, study: Study, n: int) -> float:
    if not n:
        return 1
    training = method.training or study.training
    epochs, steps = training.length(n)
    return min(epochs * n, (training.max_steps or epochs * steps) * training.batch_size)


def recorded_seconds(results: Path, assumptions: Assumptions) -> dict[str, float]:
    """Return seconds per unit of every kind of job that Snakemake has benchmarked under `results`.

    Studies whose resolved configuration this version cannot read are left out.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted(results.glob("*/study.json")):
        try:
            study = validate(read_json(path), str(path))
        except UserError:
            continue
        for cell in cells(study):
            manifest = path.parent / "data" / cell.domain / "manifest.json"
            images = labelled_images(study.domains[cell.domain], manifest, assumptions)
            for rule in ("pretrain", "features", *probes_of(study, cell.domain)):
                place = Path(rule, cell.backbone, cell.domain, cell.method, f"n{cell.n}", f"s{cell.seed}.tsv")
                job = _job(study, rule, cell, images)
                found[job.key] += [s / job.units for s in _seconds(path.parent / "benchmarks" / place)]
    return {key: mean(values) for key, values in found.items() if values}


def _seconds(path: Path) -> list[float]:
    """Return the column `s` of a benchmark; none where there is no file, or no number."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [float(row["s"]) for row in rows if re.fullmatch(r"[\d.]+", row.get("s") or "")]


def estimated_seconds(study: Study, rule: str, cell: Cell, images: int, assumptions: Assumptions) -> float:
    """Return seconds of one job from operations (training, features), memory traffic (dense probes) or experience."""
    backbone, domain = study.backbones[cell.backbone], study.domains[cell.domain]
    shape = geometry(backbone.model)
    probe_size = study.probes.image_sizes.get(cell.domain, backbone.image_size)
    if rule == "pretrain" and cell.n:
        method = study.methods[cell.method]
        training = method.training or study.training
        flops = training_flops(method, shape, backbone.image_size, training.batch_size)
        work = flops * _images_seen(method, study, cell.n) * _slow(training.precision, assumptions)
        return assumptions.startup + work / (assumptions.tflops * 1e12)
    if rule == "features":
        work = features_flops(shape, probe_size) * images * _slow(study.training.precision, assumptions)
        return assumptions.startup + work / (assumptions.tflops * 1e12)
    if rule in ("segmentation", "depth"):
        probe = getattr(study.probes, rule)
        outputs = CLASSES.get(domain.model_dump()["kind"], 20) if rule == "segmentation" else 1
        pixels = (domain.resolution / probe.train_stride) ** 2 * outputs * len(probe.lr_grid)
        tokens = (probe_size / shape.patch) ** 2 * shape.width * 3
        # About ten passes over the fp32 maps forward and backward, and over the tokens.
        read = probe.steps * probe.batch_size * (pixels + tokens) + images * domain.resolution**2 * outputs
        return assumptions.startup + 40 * float(read) / (assumptions.gbytes * 1e9)
    if rule == "linear":
        return assumptions.startup + 8e-7 * images * shape.width * len(study.probes.linear.c_grid)
    return assumptions.startup


def _slow(precision: str, assumptions: Assumptions) -> float:
    return assumptions.fp32_slowdown if precision == "fp32" else 1.0


def _jobs(study: Study) -> Iterator[tuple[str, Cell]]:
    """Yield every job of a cell. `base` is one model for all seeds, but is probed with each."""
    trained: set[Cell] = set()
    for cell in cells(study):
        if cell.model not in trained:
            trained.add(cell.model)
            yield "pretrain", cell.model
            yield "features", cell.model
        for probe in probes_of(study, cell.domain):
            yield probe, cell


def forecast(study: Study, results: Path, assumptions: Assumptions) -> Forecast:
    """Forecast a study that has not run; whatever is done already is counted too."""
    known = recorded_seconds(results, assumptions)
    images = {
        name: labelled_images(domain, results / study.study / "data" / name / "manifest.json", assumptions)
        for name, domain in study.domains.items()
    }
    found = Forecast(study.study, study.resources.gpu)
    estimates: dict[Cell | tuple[str, Cell], float] = {}

    def add(rule: str, seconds: float, recorded: bool = False) -> None:
        line = found.lines.setdefault(rule, Line(rule))
        line.jobs, line.seconds, line.recorded = line.jobs + 1, line.seconds + seconds, line.recorded + recorded

    add("study", assumptions.startup)
    for _ in study.backbones:
        add("backbone", 60)
    for name in study.domains:
        add("data", assumptions.startup + 0.02 * images[name])
    for _ in {(c.domain, c.n, c.seed) for c in cells(study) if c.n}:
        add("subset", assumptions.startup)
    for rule, cell in _jobs(study):
        job = _job(study, rule, cell, images[cell.domain])
        if job.key in known:
            add(rule, known[job.key] * job.units, recorded=True)
            continue
        alike = (rule, cell._replace(seed=0))
        if alike not in estimates:
            estimates[alike] = estimated_seconds(study, rule, cell, images[cell.domain], assumptions)
        add(rule, estimates[alike])
    for _ in pairs(study):
        add("qualitative", assumptions.startup)
    for cell in illustrated(study):
        add("illustration", 2 * estimated_seconds(study, "pretrain", cell, images[cell.domain], assumptions))
    for rule in ("floors", "scores", "statistics", "claims", "figures_drawn", "report", "all"):
        add(rule, assumptions.startup if rule != "all" else 0)
    _disk(study, images, found)
    return found


def _disk(study: Study, images: dict[str, int], found: Forecast) -> None:
    size = {name: 4.0 * parameters(geometry(b.model)) for name, b in study.backbones.items()}
    models = {cell.model for cell in cells(study)}
    found.disk["backbones"] = sum(size.values())
    found.disk["decoded data"] = sum(
        images[name] * domain.resolution**2 * (3 + ("segmentation" in domain.tasks()) + 4 * ("depth" in domain.tasks()))
        for name, domain in study.domains.items()
    )
    found.disk["models kept"] = sum(size[cell.backbone] for cell in models) if study.keep_models else 0.0
    found.disk["scores, logs, sidecars"] = 60e3 * len(list(cells(study)))
    for backbone, domain in pairs(study):
        shape = geometry(study.backbones[backbone].model)
        side = study.probes.image_sizes.get(domain, study.backbones[backbone].image_size) // shape.patch
        dense = study.domains[domain].tasks() != ("classification",)
        needed = images[domain] * shape.width * (4 + 2 * side**2 * dense)
        found.largest_features = max(found.largest_features, needed)


def render(found: Forecast, assumptions: Assumptions) -> str:
    """Return the forecast as text."""
    device = "GPU-hours" if found.devices else "core-hours of training, features and dense probes (no GPU asked for)"
    lines = [f"{'rule':<16}{'jobs':>8}{'recorded':>10}{'estimated':>11}{'hours':>10}"]
    for line in found.lines.values():
        known = f"{line.recorded:>10}{line.jobs - line.recorded:>11}"
        lines.append(f"{line.rule:<16}{line.jobs:>8}{known}{line.seconds / 3600:>10.2f}")
    lines += [
        f"{'total':<16}{found.jobs:>8}",
        "",
        f"{device}: {found.hours(True):,.1f}    other job-hours: {found.hours(False):,.1f}",
        "disk: " + ", ".join(f"{name} {size / GIB:,.1f} GiB" for name, size in found.disk.items()),
        f"temporary: a feature file is at most {found.largest_features / GIB:,.1f} GiB, one for each running job",
        "",
        f"estimates assume {assumptions.tflops:g} TFLOP/s a device, sustained (fp32 {assumptions.fp32_slowdown:g} "
        f"times slower), {assumptions.gbytes:g} GB/s of memory",
        f"traffic, {assumptions.startup:g} s of start-up a job; recorded seconds are those of the machine that "
        "recorded them",
    ]
    return "\n".join(lines)
