"""The command line: one command a rule of the workflow, plus validation. Errors are one sentence, status 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from lowdata_cpt.core.errors import UserError

EXIT_ERROR = 2


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lowdata-cpt", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if config:
            sub.add_argument("--config", type=_json, required=True, metavar="JSON", help="the part it depends on")
            sub.add_argument("--out", type=Path, required=True)
        return sub

    def compute(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
        sub.add_argument("--threads", type=int, default=1)

    validate = command("validate", "check configuration files and print nothing but their errors", config=False)
    validate.add_argument("files", type=Path, nargs="+")
    study = command("study", "write the study's resolved configuration, and which domains are not run")
    study.add_argument("--not-run", type=_json, default={}, metavar="JSON", help="domain -> reason")
    command("data", "decode a domain once")
    command("backbone", "fetch a released backbone")
    subset = command("subset", "draw n images of the pool")
    subset.add_argument("--manifest", type=Path, required=True)
    pretrain = command("pretrain", "continue pretraining on a subset")
    pretrain.add_argument("--backbone", type=Path, required=True)
    pretrain.add_argument("--manifest", type=Path, required=True)
    pretrain.add_argument("--subset", type=Path)
    pretrain.add_argument("--seed", type=int, required=True)
    pretrain.add_argument("--checkpoints", type=Path, required=True)
    pretrain.add_argument("--checkpoint-seconds", type=float, default=300.0)
    compute(pretrain)
    pictures = command("illustrate", "train a cell once more and look inside the method")
    pictures.add_argument("--backbone", type=Path, required=True)
    pictures.add_argument("--manifest", type=Path, required=True)
    pictures.add_argument("--subset", type=Path, required=True)
    pictures.add_argument("--seed", type=int, required=True)
    compute(pictures)
    features = command("features", "pass the labelled images through a model")
    features.add_argument("--model", type=Path, required=True)
    features.add_argument("--manifest", type=Path, required=True)
    compute(features)
    probe = command("probe", "train and score one probe")
    probe.add_argument("task", choices=["linear", "segmentation", "depth"])
    probe.add_argument("--features", type=Path, required=True)
    probe.add_argument("--manifest", type=Path, required=True)
    probe.add_argument("--seed", type=int, required=True)
    compute(probe)
    scores = command("scores", "collect scores, costs and curves of a study", config=False)
    scores.add_argument("--study", type=Path, required=True, help="the resolved configuration")
    scores.add_argument("--out", type=Path, required=True)
    floors = command("floors", "score predictors that never look at an image", config=False)
    floors.add_argument("--manifests", type=Path, nargs="+", required=True, metavar="MANIFEST")
    floors.add_argument("--out", type=Path, required=True)
    plan = command("forecast", "jobs, device-hours and disk of a study that has not run", config=False)
    plan.add_argument("--study", type=Path, required=True, help="configuration file")
    plan.add_argument("--tflops", type=float, help="sustained TFLOP/s of one device (default: 60 a GPU, .06 a core)")
    plan.add_argument("--gbytes", type=float, help="memory traffic of one device, GB/s (default: 800 or 5)")
    plan.add_argument("--startup", type=float, help="seconds before a job computes (default: 20 or 5)")
    small = command("scale-down", "run two steps of every distinct cell type of a study on fixtures", config=False)
    small.add_argument("--study", type=Path, required=True, help="configuration file")
    small.add_argument("--only", metavar="TEXT", help="cell types whose name contains this")
    qualitative = command("qualitative", "collect example predictions", config=False)
    qualitative.add_argument("--study", type=Path, required=True)
    qualitative.add_argument("--backbone", required=True)
    qualitative.add_argument("--domain", required=True)
    qualitative.add_argument("--manifest", type=Path, required=True)
    qualitative.add_argument("--out", type=Path, required=True)
    for name, text in (
        ("statistics", "intervals, tests and ranks from scores.csv"),
        ("claims", "verdicts on the papers' claims from scores.csv"),
        ("figures", "draw every figure from the study's tables"),
        ("report", "build the offline HTML report"),
        ("headline", "print the headline table"),
    ):
        sub = command(name, text, config=False)
        sub.add_argument("folder", type=Path, help="results/<study>")
        if name == "figures":
            sub.add_argument("--workers", type=int, default=1, help="processes that draw")
    for name, text in (
        ("pull", "get a study's results by DVC and tell Snakemake that they are up to date"),
        ("push", "send a study's results to the DVC remote"),
        ("dvc-commit", "write dvc.lock from a complete run"),
        ("verify", "hash, redraw, judge again; with --cell compute one cell again; status 1 if anything fails"),
        ("crate", "write results/<study>/ro-crate-metadata.json from the sidecars"),
    ):
        sub = command(name, text, config=False)
        sub.add_argument("--study", default="quick")
        if name == "pull":
            sub.add_argument("--force", action="store_true", help="replace files that differ from dvc.lock")
        elif name == "verify":
            sub.add_argument("--cell", metavar="BACKBONE/DOMAIN/METHOD/nN/sSEED")
            sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    compare = command("compare", "compare two scores.csv: equal but for measured seconds?", config=False)
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    return parser


def _prepare_compute(threads: int) -> None:
    """Fix what decides the last bit of a result: thread count and deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _exchange(arguments: argparse.Namespace) -> int:
    """Run what moves or checks a finished study's results."""
    command, study = arguments.command, arguments.study
    if command == "crate":
        from lowdata_cpt.reproduce.crate import write_crate

        print(write_crate(study))
        return 0
    from lowdata_cpt.reproduce import dvc as exchange

    if command == "verify":
        from lowdata_cpt.reproduce.verify import print_table, verify

        rows = list(verify(study, arguments.cell, arguments.device, exchange.cache_folder()))
        return 0 if print_table(rows) else 1
    if command == "pull":
        exchange.pull(study, force=arguments.force)
    elif command == "push":
        exchange.push(study)
    else:
        exchange.commit(study)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command
    if command in ("pull", "push", "dvc-commit", "verify", "crate"):
        return _exchange(arguments)
    if command in ("pretrain", "illustrate", "features") or (command == "probe" and arguments.task != "linear"):
        _prepare_compute(arguments.threads)
    if command == "validate":
        from lowdata_cpt.study.load import load

        for file in arguments.files:
            load(file)
    elif command in ("study", "data", "subset"):
        from lowdata_cpt.core.io import write_json
        from lowdata_cpt.jobs import inputs

        if command == "study":
            write_json(arguments.out, arguments.config)
            write_json(arguments.out.with_name("not_run.json"), arguments.not_run)
        elif command == "data":
            inputs.data(arguments.config, arguments.out)
        else:
            config = arguments.config
            inputs.subset(arguments.manifest, config["n"], config["seed"], arguments.out)
    elif command == "backbone":
        from lowdata_cpt.jobs import pretrain as train

        train.backbone(arguments.config, arguments.out)
    elif command in ("pretrain", "illustrate"):
        _train(arguments)
    elif command in ("features", "probe"):
        _evaluate(arguments)
    elif command in ("forecast", "scale-down"):
        _plan(arguments)
    else:
        _collect(arguments)
    return 0


def _train(arguments: argparse.Namespace) -> None:
    from lowdata_cpt.jobs.diagnostics import illustrate
    from lowdata_cpt.jobs.pretrain import pretrain

    common: dict[str, Any] = {
        "backbone_folder": arguments.backbone,
        "manifest": arguments.manifest,
        "subset_manifest": arguments.subset,
        "seed": arguments.seed,
        "target": arguments.out,
        "device": arguments.device,
    }
    if arguments.command == "illustrate":
        illustrate(arguments.config, **common)
    else:
        seconds = arguments.checkpoint_seconds
        pretrain(arguments.config, **common, checkpoints=arguments.checkpoints, checkpoint_seconds=seconds)


def _evaluate(arguments: argparse.Namespace) -> None:
    from lowdata_cpt.jobs import evaluate

    common = {"manifest": arguments.manifest, "target": arguments.out, "device": arguments.device}
    if arguments.command == "features":
        evaluate.features(arguments.config, model=arguments.model, **common)
    else:
        evaluate.probe(
            arguments.task, arguments.config, features_file=arguments.features, seed=arguments.seed, **common
        )


def _plan(arguments: argparse.Namespace) -> None:
    from lowdata_cpt.study.load import load

    study = load(arguments.study)
    if arguments.command == "scale-down":
        from lowdata_cpt.dev.scale_down import run

        run(study, only=arguments.only)
        return
    from lowdata_cpt.study.forecast import Assumptions, forecast, render

    assumptions = Assumptions.of(study, arguments.tflops, arguments.gbytes, arguments.startup)
    print(render(forecast(study, Path("results"), assumptions), assumptions))


def _collect(arguments: argparse.Namespace) -> None:
    command = arguments.command
    if command in ("scores", "qualitative", "floors"):
        from lowdata_cpt.jobs import collect

        if command == "scores":
            collect.scores(arguments.study, arguments.out)
        elif command == "floors":
            collect.floors(arguments.manifests, arguments.out)
        else:
            collect.qualitative(
                arguments.study, arguments.backbone, arguments.domain, arguments.manifest, arguments.out
            )
        return
    if command == "compare":
        from lowdata_cpt.jobs.collect import differences

        found = differences(arguments.first, arguments.second)
        if found:
            raise UserError(found)
        print("equal")
        return
    from lowdata_cpt.jobs import report as present

    if command == "figures":
        present.figures(arguments.folder, arguments.workers)
    else:
        getattr(present, command)(arguments.folder)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the process's exit status (2 for bad input, 75 when interrupted and resumable)."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        print(f"error: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_ERROR
    except Exception as error:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            print(
                f"error: the device has not enough memory ({str(error).splitlines()[0]}); expected a smaller "
                "training.batch_size, or a larger training.accumulation",
                file=sys.stderr,
            )
            return EXIT_ERROR
        # The loop's module is only loaded when something trained, so it is asked for by name here.
        loop = sys.modules.get("lowdata_cpt.training.loop")
        if loop is not None and isinstance(error, loop.InterruptedRunError):
            print(f"interrupted: {error}", file=sys.stderr)
            return int(loop.EXIT_INTERRUPTED)
        raise


if __name__ == "__main__":
    sys.exit(main())
