"""The commands that check and move a finished study; `cli` adds them to its own."""

from __future__ import annotations

import re
from pathlib import Path

import click

from lowdata_cpt.core import options
from lowdata_cpt.core.errors import UserError


def _name(context: click.Context, parameter: click.Parameter, given: str) -> str:
    from lowdata_cpt.study.config import NAME

    stem = Path(given).stem
    if stem != given and re.fullmatch(NAME, stem):
        raise UserError(f"--study {given[:400]}: is a file; expected a study's name, here {stem[:80]}")
    # Also nothing, . and .., which would be folders above results/<study>.
    if not re.fullmatch(NAME, given) or len(given) > 64:
        raise UserError(
            f"--study {given[:80]!r}: expected a study's name, of lower-case letters, digits and _, like quick"
        )
    return given


_of_study = click.option("--study", default="quick", show_default=True, callback=_name, help="Name of the study.")


@click.command()
@_of_study
@click.option("--force", is_flag=True, help="Replace files that differ from dvc.lock.")
def pull(study: str, force: bool) -> None:
    """Get a study's results by DVC and tell Snakemake that they are up to date."""
    from lowdata_cpt.reproduce import dvc

    dvc.pull(study, force=force)


@click.command()
@_of_study
def push(study: str) -> None:
    """Send a study's results to the DVC remote."""
    from lowdata_cpt.reproduce import dvc

    dvc.push(study)


@click.command("dvc-commit")
@_of_study
def dvc_commit(study: str) -> None:
    """Write dvc.lock from a complete run."""
    from lowdata_cpt.reproduce import dvc

    dvc.commit(study)


@click.command()
@_of_study
def publish(study: str) -> None:
    """Gather what git keeps of a finished study: provenance, benchmarks, subsets."""
    from lowdata_cpt.reproduce.publish import publish as gather

    for path in gather(study):
        click.echo(path)


@click.command()
@_of_study
def pack(study: str) -> None:
    """Pack a study's finished cells, so that git can keep them."""
    from lowdata_cpt.reproduce.packing import pack as put_in

    for path in put_in(study):
        click.echo(path)


@click.command()
@_of_study
def restore(study: str) -> None:
    """Put a study's packed cells in place, so that a run goes on from them."""
    from lowdata_cpt.reproduce.packing import restore as put_back

    found = put_back(study)
    for cell, why in found.refused.items():
        click.echo(f"not restored: {cell}: {why}")
    click.echo(f"{found.placed} of {found.cells} cells restored")


@click.command()
@_of_study
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes for figures.")
def partial(study: str, workers: int) -> None:
    """Write tables, verdicts, figures and report of the cells that are finished."""
    from lowdata_cpt.reproduce.partial import partial as so_far

    click.echo(f"study {study}: {so_far(study, workers)}")


@click.command()
@_of_study
@click.option("--cell", metavar="BACKBONE/DOMAIN/METHOD/nN/sSEED", help="Compute this cell again and compare.")
@options.device
def verify(study: str, cell: str | None, device: str) -> None:
    """Check a study's hashes, figures and claims; status 1 if anything fails."""
    from lowdata_cpt.reproduce.dvc import cache_folder
    from lowdata_cpt.reproduce.rows import print_table
    from lowdata_cpt.reproduce.verify import verify as check

    if not print_table(list(check(study, cell, device, cache_folder()))):
        raise click.exceptions.Exit(1)


@click.command()
@_of_study
def crate(study: str) -> None:
    """Write a study's Workflow Run RO-Crate."""
    from lowdata_cpt.reproduce.crate import write_crate

    click.echo(write_crate(study))


@click.command()
@click.argument("first", type=options.PATH)
@click.argument("second", type=options.PATH)
def compare(first: Path, second: Path) -> None:
    """Compare two scores.csv: equal but for measured seconds?"""
    from lowdata_cpt.jobs.collect import differences

    if found := differences(first, second):
        raise UserError(found)
    click.echo("equal")


COMMANDS = (pull, push, dvc_commit, publish, pack, restore, partial, verify, crate, compare)
