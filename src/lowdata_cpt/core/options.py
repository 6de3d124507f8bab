"""Options that commands share: a step of a cell takes a study's file, or what the workflow gives in its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., None]


class Place(click.Path):
    """A path; an empty one, which Python reads as the working directory, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the text."""
        if value == "":
            self.fail("it is empty; expected a path (. is the working directory)", param, ctx)
        return super().convert(value, param, ctx)


PATH = Place(path_type=Path)


class Json(click.ParamType[Any]):
    """An option whose value is JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the text."""
        try:
            return json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            self.fail(f"not JSON: {error}", param, ctx)


class Finite(click.FloatRange):
    """A number within a range; `nan`, which is on no side of a bound, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the text."""
        if not math.isfinite(found := super().convert(value, param, ctx)):
            self.fail(f"{value} is no finite number", param, ctx)
        return found


POSITIVE = Finite(0, 1e9, min_open=True)


def step(function: Command) -> Command:
    """Add the options of every step: the study and where its results lie."""
    for option in (
        click.option("--study", type=PATH, metavar="FILE", help="The study's configuration."),
        click.option(
            "--results", type=PATH, metavar="FOLDER", help="The study's results; results/<study> if not given."
        ),
        click.option("--params", type=Json(), hidden=True, help="What the result depends on, in place of --study."),
    ):
        function = option(function)
    return function


device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)


def compute(function: Command) -> Command:
    """Add the options of a step that computes with tensors."""
    return click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)(device(function))


def trains(function: Command) -> Command:
    """Add the options of a step that computes for so long that it writes checkpoints."""
    every = click.option("--checkpoint-seconds", type=Finite(0, 1e9), default=300.0, show_default=True)
    return compute(every(function))
