"""What a study will cost before anything is run: jobs per rule, device-hours, disk. No torch, no data needed.

A job's seconds are estimated from floating-point operations (training, features) and memory traffic (dense probes); how
many operations a second a method's training sustains is assumed, or read from what was measured on a card.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lowdata_cpt.backbones.flops import features_flops, geometry, parameters
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.jobs.figures import figure_names
from lowdata_cpt.methods.registry import name_of
from lowdata_cpt.probes.config import DenseConfig
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.study.config import Resources, Study
from lowdata_cpt.study.flops import training_flops
from lowdata_cpt.study.grid import Cell, cells, diagnosed, pairs, probes_of
from lowdata_cpt.study.paths import Paths

DEVICE_RULES = ("pretrain", "evaluate", "diagnostics", "language_base", "language_continue", "language_evaluate")
REPORTING = ("trivial_baselines", "collect", "statistics", "claims", "tables", "report")
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
        measured: method -> operations of an image's features in a backbone, and the TFLOP/s its training sustained.
        card: what `measured` was measured on.
    """

    tflops: float = 60.0
    fp32_slowdown: float = 4.0
    gbytes: float = 800.0
    startup: float = 20.0
    unknown_images: int = 10_000
    measured: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    card: str = ""

    @classmethod
    def of(
        cls,
        resources: Resources,
        tflops: float | None,
        gbytes: float | None,
        startup: float | None,
        measured: Path | None = None,
    ) -> Assumptions:
        """Fill in what is not given: a current GPU, or one CPU core where the study asks for no GPU.

        Args:
            resources: what a job of the study asks for.
            tflops, gbytes, startup: see the class.
            measured: the table of `benchmarks/gpu.py`; not used where the study asks for no GPU.

        Raises:
            UserError: `measured` is no such table.
        """
        gpu = resources.gpu > 0
        rates, card = _rates(measured) if measured else ({}, "")
        return cls(
            tflops=tflops or (cls.tflops if gpu else 0.06 * resources.threads),
            fp32_slowdown=cls.fp32_slowdown if gpu else 1.0,
            gbytes=gbytes or (cls.gbytes if gpu else 5.0),
            startup=startup or (cls.startup if gpu else 5.0),
            measured=rates if gpu else {},
            card=card if gpu else "",
        )

    def sustained(self, method: str, image: float) -> float:
        """Return TFLOP/s of a method's training on a backbone of `image` operations: those of the one most alike."""
        rates = self.measured.get(method)
        return min(rates, key=lambda row: abs(math.log(row[0] / image)))[1] if rates else self.tflops


def _rates(file: Path) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """Return (method -> (operations of an image's features, TFLOP/s) of each backbone, card).

    Raises:
        UserError: the file is no such table, or has a row that no measurement gives.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    table = read_json(file)
    rows, card = (table.get("rows"), table.get("card")) if isinstance(table, dict) else (None, None)
    if not isinstance(rows, list) or not isinstance(card, str):
        raise UserError(f"{file}: not a table of benchmarks/gpu.py, expected card and rows")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{file}: rows.{number} is {reprlib.repr(row)}; expected a mapping of benchmarks/gpu.py")
        if row.get("precision") == "bf16" and "error" not in row:
            for key in ("method", "model"):
                if not isinstance(row.get(key), str):
                    raise UserError(f"{file}: rows.{number}.{key} is {reprlib.repr(row.get(key))}; expected a name")
            for key, most in (("size", 4096), ("share_of_peak", 1), ("peak_tflops", 1e6)):
                value = row.get(key)
                # Python takes True for 1, and NaN, which JSON readers let pass, is on no side of a bound.
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
                    raise UserError(
                        f"{file}: rows.{number}.{key} is {reprlib.repr(value)}; expected a number above 0, at most "
                        f"{most:g}"
                    )
            try:
                image = features_flops(geometry(row["model"]), row["size"])
            except UserError as error:
                raise UserError(f"{file}: rows.{number}.model: {error}") from None
            found.setdefault(row["method"], []).append((image, row["share_of_peak"] * row["peak_tflops"]))
    if not found:
        raise UserError(
            f"{file}: none of {len(rows)} rows is a measurement in bf16; expected a table of benchmarks/gpu.py"
        )
    return found, card


@dataclass
class Line:
    """One rule: jobs and their seconds in sum."""

    rule: str
    jobs: int = 0
    seconds: float = 0.0


@dataclass
class Forecast:
    """A study's forecast; disk in bytes, and in notes what it assumes beside its `Assumptions`."""

    study: str
    devices: int
    lines: dict[str, Line] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, rule: str, seconds: float) -> None:
        """Count one job."""
        line = self.lines.setdefault(rule, Line(rule))
        line.jobs, line.seconds = line.jobs + 1, line.seconds + seconds

    @property
    def jobs(self) -> int:
        """Number of jobs, `all` included, as `snakemake -n` counts them."""
        return sum(line.jobs for line in self.lines.values())

    def hours(self, on_device: bool) -> float:
        """Return the hours of the rules that compute with tensors (GPU-hours if GPUs are asked for), or of the rest."""
        seconds = sum(line.seconds for line in self.lines.values() if (line.rule in DEVICE_RULES) == on_device)
        return seconds / 3600 * (max(self.devices, 1) if on_device else 1)


def labelled_images(domain: Domain, manifest: Path, assumptions: Assumptions) -> int:
    """Return the number of labelled images: of the decoded store if there is one, else as the domain counts them."""
    if manifest.exists():
        facts = read_json(manifest)
        try:
            sets = {name for task in facts["tasks"].values() for name in task["sets"].values()}
            return int(sum(facts["images"][name] for name in sets))
        except (AttributeError, KeyError, TypeError):
            raise UserError(
                f"{manifest}: damaged, expected tasks and counts of images; delete it, and the run decodes again"
            ) from None
    counted = domain.count()
    return assumptions.unknown_images if counted is None else counted


def _slow(precision: str, assumptions: Assumptions) -> float:
    return assumptions.fp32_slowdown if precision == "fp32" else 1.0


def training_seconds(study: Study, cell: Cell, assumptions: Assumptions) -> float:
    """Return the seconds of a cell's training job."""
    if not cell.n:
        return assumptions.startup
    backbone, training = study.backbones[cell.backbone], study.training_of(cell.method)
    method, shape = study.methods[cell.method], geometry(backbone.model)
    flops = training_flops(method, shape, backbone.image_size, training.batch_size)
    work = flops * training.images_after(training.steps(cell.n), cell.n) * _slow(training.precision, assumptions)
    rate = assumptions.sustained(name_of(type(method)), features_flops(shape, backbone.image_size))
    return assumptions.startup + work / (rate * 1e12)


def evaluation_seconds(study: Study, cell: Cell, images: int, assumptions: Assumptions) -> float:
    """Return the seconds of a cell's evaluation: at each milestone a feature pass and the domain's probes."""
    backbone, domain = study.backbones[cell.backbone], study.domains[cell.domain]
    shape, side = geometry(backbone.model), study.probes.image_sizes.get(cell.domain, backbone.image_size)
    work = features_flops(shape, side) * images * _slow(study.training.precision, assumptions)
    seconds = work / (assumptions.tflops * 1e12)
    for name in probes_of(study, cell.domain):
        probe = getattr(study.probes, name)
        if not isinstance(probe, DenseConfig):
            seconds += 8e-7 * images * shape.width * len(getattr(probe, "c_grid", [1]))
            continue
        outputs = domain.segmentation_classes if PROBES[name].TASK == "segmentation" else 1
        pixels = (domain.resolution / probe.train_stride) ** 2 * outputs * len(probe.lr_grid)
        tokens = (side / shape.patch) ** 2 * shape.width * 3
        # About ten passes over the fp32 maps forward and backward, and over the tokens.
        read = probe.steps * probe.batch_size * (pixels + tokens) + images * domain.resolution**2 * outputs
        seconds += 40 * probe.probe_seeds * float(read) / (assumptions.gbytes * 1e9)
    milestones = len(study.training_of(cell.method).milestone_steps(cell.n)) if cell.n else 1
    return assumptions.startup + milestones * seconds


def _jobs(study: Study, images: dict[str, int], assumptions: Assumptions) -> Iterator[tuple[str, float]]:
    """Yield rule and seconds of every job, those of one kind estimated once."""
    grid = list(cells(study))
    yield from (("backbone", 60.0) for _ in study.backbones)
    yield from (("data", assumptions.startup + 0.02 * images[name]) for name in study.domains)
    yield from (("subset", assumptions.startup) for _ in {(c.domain, c.n, c.seed) for c in grid if c.n})
    known: dict[tuple[str, Cell], float] = {}
    for cell in dict.fromkeys(cell.trained for cell in grid):
        alike = ("pretrain", cell._replace(seed=0))
        if alike not in known:
            known[alike] = training_seconds(study, cell, assumptions)
        yield "pretrain", known[alike]
    for cell in grid:
        if probes_of(study, cell.domain):
            alike = ("evaluate", cell._replace(seed=0))
            if alike not in known:
                known[alike] = evaluation_seconds(study, cell, images[cell.domain], assumptions)
            yield "evaluate", known[alike]
    yield from (("examples", assumptions.startup) for _ in pairs(study))
    yield from (("diagnostics", 2 * training_seconds(study, cell, assumptions)) for cell in diagnosed(study))


def forecast(study: Study, paths: Paths, assumptions: Assumptions) -> Forecast:
    """Forecast a study that has not run; whatever is done already is counted too."""
    images = {
        name: labelled_images(domain, paths.manifest(name), assumptions) for name, domain in study.domains.items()
    }
    found = Forecast(study.study, study.resources.gpu)
    for rule, seconds in _jobs(study, images, assumptions):
        found.add(rule, seconds)
    for rule in (*REPORTING, *("figure" for _ in figure_names(study))):
        found.add(rule, assumptions.startup)
    found.add("all", 0.0)
    size = {name: 4.0 * parameters(geometry(b.model)) for name, b in study.backbones.items()}
    found.disk["backbones"] = sum(size.values())
    found.disk["decoded data"] = sum(
        images[name] * domain.resolution**2 * (3 + ("segmentation" in domain.tasks()) + 4 * ("depth" in domain.tasks()))
        for name, domain in study.domains.items()
    )
    models = dict.fromkeys(cell.trained for cell in cells(study))
    kept = [len(study.training_of(c.method).milestone_steps(c.n)) * size[c.backbone] if c.n else 0.0 for c in models]
    found.disk["models kept"] = sum(kept) if study.keep_models else 0.0
    found.disk["at work, one cell"] = max(kept, default=0.0)
    found.disk["scores, logs, sidecars"] = 60e3 * len(list(cells(study)))
    return found


def render(found: Forecast, assumptions: Assumptions) -> str:
    """Return the forecast as text."""
    device = "GPU-hours" if found.devices else "core-hours of training and evaluation (no GPU asked for)"
    lines = [f"{'rule':<20}{'jobs':>8}{'hours':>10}"]
    lines += [f"{line.rule:<20}{line.jobs:>8}{line.seconds / 3600:>10.2f}" for line in found.lines.values()]
    lines += [
        f"{'total':<20}{found.jobs:>8}",
        "",
        f"{device}: {found.hours(True):,.1f}    other job-hours: {found.hours(False):,.1f}",
        "disk: " + ", ".join(f"{name} {size / GIB:,.1f} GiB" for name, size in found.disk.items()),
        "",
        f"estimates assume {assumptions.tflops:g} TFLOP/s a device, sustained (fp32 {assumptions.fp32_slowdown:g} "
        f"times slower), {assumptions.gbytes:g} GB/s of memory",
        f"traffic, {assumptions.startup:g} s of start-up a job",
    ]
    if assumptions.card:
        lines.append(
            f"training: what each method sustained on {assumptions.card}, batch 32, on the backbone most alike"
        )
    return "\n".join([*lines, *found.notes])
