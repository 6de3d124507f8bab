"""`config/claims.yaml`: what the papers claim, a row for each of a paper's numbers, expanded to one claim each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lowdata_cpt.analysis.style import domain_label, style_of
from lowdata_cpt.analysis.table import METRICS, SIGN_OF, label_in_text
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.core.yaml_file import read_yaml

Direction = Literal["better", "worse", "not_worse"]
MetricName = Literal[*METRICS]  # type: ignore[valid-type]
SIGN = {"better": 1.0, "worse": -1.0, "not_worse": 0.0}


class Selector(Strict):
    """Which cells a claim speaks of. `any` takes whatever the table has; names may hold `*`, one needs no list.

    `n` is `any`, `largest` (per domain) or sizes. With `n_minus` the claim is about the gain at `n` minus the gain at
    `n_minus`.
    """

    backbone: Literal["any"] | tuple[str, ...] = "any"
    domain: Literal["any"] | tuple[str, ...] = "any"
    method: str
    reference: str
    n: Literal["any", "largest"] | tuple[int, ...] = "any"
    n_minus: tuple[int, ...] | None = None

    @field_validator("backbone", "domain", "n", "n_minus", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, (str, int)) and given not in ("any", "largest") else given


class Statement(Strict):
    """What a paper claims of a gain, or, not `published`, what it does not say and this study asks.

    `paper_value` and `tolerance` are gains in points (% for RMSE and AbsRel, nats for NLL); positive = better.
    """

    id: str = Field(pattern=r"^[a-z0-9_.-]+$")
    statement: str = Field(min_length=1)
    source: str = Field(min_length=1)
    direction: Direction
    paper_value: float | None = None
    tolerance: float | None = Field(default=None, ge=0)
    published: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tolerance is not None and self.paper_value is None:
            raise ValueError("tolerance needs a paper_value")
        if self.direction == "not_worse" and self.tolerance is None:
            raise ValueError("direction not_worse needs a paper_value and a tolerance")
        if self.paper_value is not None and self.paper_value * SIGN[self.direction] < 0:
            raise ValueError("paper_value contradicts direction (positive means better, also for errors)")
        return self


class Claim(Statement):
    """A statement about cells of a study of images."""

    cells: Selector
    metric: MetricName


class Entry(Strict):
    """One entry of the file: a claim for each of `rows` and each of `metrics`.

    In `id` and `statement` `{row}` and `{metric}` are replaced by their names, in `statement` also `{label}` (the
    metric), `{domain}`, `{method}`, `{reference}`, `{raises}` (raises or lowers), `{before}`, `{after}` and `{paper}`.

    Attributes:
        metrics: name in the id → metric of the table.
        rows: name in the id → keys of `cells`, `direction`, `paper_value`, and by the names of `metrics` the paper's
            [before, after]. A row with such numbers is a claim for these metrics only, and its direction and paper
            value are theirs; a row with `metric` is one for that metric only.
        tolerance: points by which the effect may fall short; `half` of the paper's effect.
    """

    id: str
    statement: str
    source: str
    cells: dict[str, Any]
    metrics: dict[str, MetricName] = Field(min_length=1)
    rows: dict[str, dict[str, Any]] = Field(default={"": {}}, min_length=1)
    direction: Direction | None = None
    paper_value: float | None = None
    tolerance: Literal["half"] | float | None = None
    published: bool = True

    def expand(self) -> list[Claim]:
        """Return the claims, in the order of rows and metrics."""
        return [
            self._claim(name, row, short)
            for name, row in self.rows.items()
            for short in (
                [short for short in self.metrics if short in row or short == row.get("metric")] or self.metrics
            )
        ]

    def _claim(self, name: str, row: dict[str, Any], short: str) -> Claim:
        metric = METRICS[str(self.metrics[short])]
        own = {key: value for key, value in row.items() if key not in self.metrics and key != "metric"}
        paper, direction = own.pop("paper_value", self.paper_value), own.pop("direction", self.direction)
        before, after = row.get(short, (None, None))
        if before is not None:
            gain = 100 * (after - before) * SIGN_OF[metric.name]
            paper = round(gain / before if metric.relative else gain, 2)
            direction = direction or ("better" if paper > 0 else "worse")
        selected = self.cells | own
        domain = selected.get("domain", "any")
        shown = {
            "row": name,
            "metric": short,
            "label": label_in_text(metric.name),
            "method": style_of(str(selected.get("method"))).label,
            "reference": style_of(str(selected.get("reference"))).label,
            "paper": paper,
            "domain": domain_label(domain) if isinstance(domain, str) else ", ".join(map(domain_label, domain)),
            "raises": "raises" if (direction == "better") == metric.higher else "lowers",
            "before": _shown(before, metric.bounded),
            "after": _shown(after, metric.bounded),
        }
        tolerance = abs(paper) / 2 if self.tolerance == "half" and paper is not None else self.tolerance
        given = {"direction": direction, "paper_value": paper, "tolerance": tolerance, "published": self.published}
        texts = {"id": self.id.format(**shown), "statement": self.statement.format(**shown), "source": self.source}
        return Claim.model_validate({**texts, **given, "cells": selected, "metric": metric.name})


def _shown(value: float | None, fraction: bool) -> str:
    return "" if value is None else f"{100 * value:.4g}" if fraction else f"{value:.4g} m"


class Claims(Strict):
    """The file.

    Attributes:
        head_room: points (or %) by which the base must be better than random weights on a domain and metric; where it
            is not, nothing can be told there.
        entries: the claims.
    """

    head_room: float = Field(ge=0)
    entries: tuple[Entry, ...] = Field(min_length=1)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim."""
        return tuple(claim for entry in self.entries for claim in entry.expand())


def read_claims(path: str | Path) -> Claims:
    """Read and validate the claims.

    Raises:
        UserError: missing file, not YAML, an unknown key, a wrong value (all of them in one message) or a repeated id.
    """
    path = Path(path)
    try:
        found = Claims.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {_wrong(error)}") from None
    ids: set[str] = set()
    for entry in found.entries:
        try:
            claims = entry.expand()
        except ValidationError as error:
            raise UserError(f"{path}: {entry.id}: {_wrong(error)}") from None
        except (KeyError, IndexError, TypeError, ValueError) as error:
            what = "expected [before, after] for each metric of a row, and known {names} in the texts"
            raise UserError(f"{path}: {entry.id}: {what} ({error})") from None
        for claim in claims:
            if claim.id in ids:
                raise UserError(f"{path}: {claim.id} occurs more than once")
            ids.add(claim.id)
    return found


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(p) for p in one['loc']) or 'file'}: {one['msg']}" for one in error.errors())
