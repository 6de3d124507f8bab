"""The command line: a function a command. Errors are one sentence, status 2.

The steps of a cell (data, backbone, subset, pretrain, evaluate, diagnostics) are given a study's file and a cell by a
person, and by the workflow the JSON of `study.job_params`: exactly what the result depends on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lowdata_cpt.core.determinism import deterministic
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.options import PATH, POSITIVE, Json, compute, step, trains
from lowdata_cpt.language.commands import checked, language, shown
from lowdata_cpt.reproduce.commands import COMMANDS

if TYPE_CHECKING:
    from lowdata_cpt.study.grid import Cell
    from lowdata_cpt.study.paths import Paths

EXIT_ERROR = 2
CELL = "BACKBONE/DOMAIN/METHOD/nN/sSEED"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Continued pretraining on few images: run, check and move a study."""


def _given(study: Path | None, results: Path | None, params: Any, wanted: Callable[[Any], Any]) -> tuple[Any, Paths]:
    """Return a step's parameters and the study's paths, from the study's file or as the workflow gives them.

    Raises:
        UserError: neither is given, or the file is wrong.
    """
    from lowdata_cpt.study.paths import Paths

    if params is not None and results is not None:
        return params, Paths(results)
    if study is None:
        raise UserError("--study is missing; expected a study's file, for example config/quick.yaml")
    from lowdata_cpt.study.load import load

    resolved = load(study)
    return wanted(resolved), Paths(results or Path("results", resolved.study))


def _cell(text: str, study: Path | None) -> Cell:
    """Return the cell of a name; held against the study's grid where the study is given."""
    from lowdata_cpt.study.grid import cell_of, parse_cell
    from lowdata_cpt.study.load import load

    return parse_cell(text) if study is None else cell_of(text, load(study))


@cli.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
def validate(files: tuple[Path, ...]) -> None:
    """Check configuration files, and that their weights and images are here; print nothing but errors."""
    from lowdata_cpt.study.checks import check_machine
    from lowdata_cpt.study.load import load

    for file in files:
        if not checked(file):
            check_machine(load(file), str(file))


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, metavar="FILE", help="The configuration; config/<name of FOLDER>.yaml if not given.")
def init(folder: Path, out: Path | None) -> None:
    """Look at a FOLDER of images, say what it holds, and write a study of it that runs as it is."""
    from lowdata_cpt.jobs.init import init as look

    click.echo(look(folder, out))


@cli.command()
@step
@click.option("--domain", required=True)
def data(study: Path | None, results: Path | None, params: Any, domain: str) -> None:
    """Decode a domain once."""
    from lowdata_cpt.jobs import inputs
    from lowdata_cpt.study.job_params import data_params

    params, paths = _given(study, results, params, lambda s: data_params(s, _known(domain, s.domains, "domain")))
    inputs.data(params, paths.manifest(domain))


def _known(name: str, names: Any, kind: str) -> str:
    if name not in names:
        raise UserError(f"--{kind} {name}: the study has no such {kind}; it has {', '.join(names)}")
    return name


@cli.command()
@step
@click.option("--backbone", required=True)
def backbone(study: Path | None, results: Path | None, params: Any, backbone: str) -> None:
    """Fetch a released backbone."""
    from lowdata_cpt.jobs import pretrain
    from lowdata_cpt.study.job_params import backbone_params

    params, paths = _given(
        study, results, params, lambda s: backbone_params(s, _known(backbone, s.backbones, "backbone"))
    )
    pretrain.backbone(params, paths.backbone(backbone))


@cli.command()
@step
@click.option("--domain", required=True)
@click.option("--n", type=click.IntRange(1), required=True)
@click.option("--seed", type=click.IntRange(0), required=True)
def subset(study: Path | None, results: Path | None, params: Any, domain: str, n: int, seed: int) -> None:
    """Draw n images of a domain's pool."""
    from lowdata_cpt.jobs import inputs
    from lowdata_cpt.study.job_params import subset_params

    def wanted(of: Any) -> Any:
        _known(domain, of.domains, "domain")
        return subset_params(of, n, seed)

    params, paths = _given(study, results, params, wanted)
    inputs.subset(params, paths.manifest(domain), paths.subset(domain, n, seed))


@cli.command()
@step
@trains
@click.option("--cell", required=True, metavar=CELL)
def pretrain(
    study: Path | None,
    results: Path | None,
    params: Any,
    cell: str,
    device: str,
    threads: int,
    checkpoint_seconds: float,
) -> None:
    """Continue pretraining one cell and export it at each milestone; interrupted, it resumes from its checkpoint."""
    deterministic(threads)
    from lowdata_cpt.jobs import pretrain as job
    from lowdata_cpt.study.job_params import pretrain_params

    found = _cell(cell, study)
    params, paths = _given(study, results, params, lambda s: pretrain_params(s, found))
    job.pretrain(params, found, paths, device=device, checkpoint_seconds=checkpoint_seconds)


@cli.command()
@step
@compute
@click.option("--cell", required=True, metavar=CELL)
def evaluate(study: Path | None, results: Path | None, params: Any, cell: str, device: str, threads: int) -> None:
    """Evaluate one cell: at each milestone one backbone pass, then every probe that the domain's labels allow."""
    deterministic(threads)
    from lowdata_cpt.jobs import evaluate as job
    from lowdata_cpt.study.job_params import evaluate_params

    found = _cell(cell, study)
    params, paths = _given(study, results, params, lambda s: evaluate_params(s, found))
    job.evaluate(params, found, paths, device=device)


@cli.command()
@step
@compute
@click.option("--cell", required=True, metavar=CELL)
def diagnostics(study: Path | None, results: Path | None, params: Any, cell: str, device: str, threads: int) -> None:
    """Train a cell once more and look inside its method: masks over time, regions, what the value predicts."""
    deterministic(threads)
    from lowdata_cpt.jobs import diagnostics as job
    from lowdata_cpt.study.job_params import diagnostics_params

    found = _cell(cell, study)
    params, paths = _given(study, results, params, lambda s: diagnostics_params(s, found))
    job.diagnostics(params, found, paths, paths.diagnostics(found.backbone, found.domain, found.method), device)


@cli.command("trivial-baselines")
@click.argument("manifests", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True)
def trivial_baselines(manifests: tuple[Path, ...], out: Path) -> None:
    """Score predictors that never look at an image."""
    from lowdata_cpt.jobs import collect

    collect.trivial_baselines(list(manifests), out)


@cli.command(hidden=True)
@click.option("--params", type=Json(), required=True, help="The resolved configuration.")
@click.option("--not-run", type=Json(), required=True, help="Domain -> reason.")
@click.option("--results", type=PATH, required=True)
def collect(params: Any, not_run: Any, results: Path) -> None:
    """Gather the cells of a study into its tables."""
    from lowdata_cpt.jobs import collect as job
    from lowdata_cpt.study.load import validate as check
    from lowdata_cpt.study.paths import Paths

    job.collect(check(params, "--params"), not_run, Paths(results))


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--backbone", required=True)
@click.option("--domain", required=True)
def examples(folder: Path, backbone: str, domain: str) -> None:
    """Gather example predictions of every method on a domain."""
    from lowdata_cpt.jobs import collect as job
    from lowdata_cpt.study.paths import Paths

    paths = Paths(folder)
    job.examples(paths, backbone, domain, paths.examples(backbone, domain))


@cli.command()
@click.argument("folder", type=PATH)
def statistics(folder: Path) -> None:
    """Write intervals, tests and ranks from FOLDER's tables."""
    from lowdata_cpt.jobs import report as job

    job.statistics(folder)


@cli.command()
@click.argument("folder", type=PATH)
def claims(folder: Path) -> None:
    """Write verdicts on the papers' claims from FOLDER's tables."""
    from lowdata_cpt.jobs import report as job

    job.claims(folder)


@cli.command()
@click.argument("folder", type=PATH)
@click.argument("names", nargs=-1)
@click.option("--pdf", is_flag=True, help="Write each as PDF too.")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes that draw.")
def figures(folder: Path, names: tuple[str, ...], pdf: bool, workers: int) -> None:
    """Draw the figures NAMES of FOLDER from its tables; without a name all of the study's."""
    from lowdata_cpt.jobs import report as job

    job.figures(folder, names, pdf=pdf, workers=workers)


@cli.command()
@click.argument("folder", type=PATH)
def tables(folder: Path) -> None:
    """Write FOLDER's tables in Markdown."""
    from lowdata_cpt.jobs import report as job

    job.tables(folder)


@cli.command()
@click.argument("folder", type=PATH)
def report(folder: Path) -> None:
    """Build FOLDER's offline HTML report."""
    from lowdata_cpt.jobs import report as job

    job.report(folder)


@cli.command()
@click.argument("folder", type=PATH)
def headline(folder: Path) -> None:
    """Print FOLDER's answer and its headline table."""
    if not shown(folder):
        from lowdata_cpt.jobs import report as job

        job.headline(folder)


@cli.command()
@click.option("--study", type=PATH, required=True, metavar="FILE")
@click.option("--tflops", type=POSITIVE, help="Sustained TFLOP/s of one device (default: 60 a GPU, .06 a core).")
@click.option("--gbytes", type=POSITIVE, help="Memory traffic of one device, GB/s (default: 800 or 5).")
@click.option("--startup", type=POSITIVE, help="Seconds before a job computes (default: 20 or 5).")
@click.option("--measured", type=PATH, metavar="FILE", help="What training sustained on a card: benchmarks/gpu.json.")
def forecast(
    study: Path, tflops: float | None, gbytes: float | None, startup: float | None, measured: Path | None
) -> None:
    """Print jobs, device-hours and disk of a study that has not run."""
    from lowdata_cpt.jobs import forecast as of_images
    from lowdata_cpt.jobs import forecast_language as of_language
    from lowdata_cpt.language import config, plan
    from lowdata_cpt.study.load import load, read
    from lowdata_cpt.study.paths import Paths

    if config.is_language(read(study)):
        texts = config.load(study)  # what was measured is of the other studies' methods
        assumptions = of_images.Assumptions.of(texts.resources, tflops, gbytes, startup)
        found = of_language.forecast(texts, plan.Paths(f"results/{texts.study}"), assumptions)
    else:
        images = load(study)
        assumptions = of_images.Assumptions.of(images.resources, tflops, gbytes, startup, measured)
        found = of_images.forecast(images, Paths(f"results/{images.study}"), assumptions)
    click.echo(of_images.render(found, assumptions))


@cli.command("scale-down")
@click.option("--study", type=PATH, required=True, metavar="FILE")
@click.option("--only", metavar="TEXT", help="Cell types whose name contains this.")
def scale_down(study: Path, only: str | None) -> None:
    """Run two steps of every distinct cell type of a study on fixtures."""
    from lowdata_cpt.dev import scale_down as of_images
    from lowdata_cpt.dev import scale_down_language as of_language
    from lowdata_cpt.language import config
    from lowdata_cpt.study.load import load, read

    if config.is_language(read(study)):
        of_language.run(config.load(study), only)
    else:
        of_images.run(load(study), only=only)


for _command in (*COMMANDS, language):
    cli.add_command(_command)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the process's exit status (2 for bad input, 75 when interrupted and resumable)."""
    try:
        return int(cli.main(argv, prog_name="lowdata-cpt", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return EXIT_ERROR
    except click.Abort:
        return 130
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'the file system'}: {error.strerror or error}"
    except Exception as error:
        if (status := _known_end(error)) is None:
            raise
        return status
    click.echo(f"error: {message}", err=True)
    return EXIT_ERROR


def _known_end(error: Exception) -> int | None:
    """Return the status of an end that only code with torch can have: out of memory, or interrupted."""
    torch, loop = sys.modules.get("torch"), sys.modules.get("lowdata_cpt.training.loop")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        click.echo(
            f"error: the device has not enough memory ({str(error).splitlines()[0]}); expected a smaller "
            "training.batch_size, or a larger training.accumulation",
            err=True,
        )
        return EXIT_ERROR
    if loop is not None and isinstance(error, loop.InterruptedRunError):
        click.echo(f"interrupted: {error}", err=True)
        return int(loop.EXIT_INTERRUPTED)
    return None


if __name__ == "__main__":
    sys.exit(main())
