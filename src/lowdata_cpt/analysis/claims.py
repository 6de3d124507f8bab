"""The papers' claims, held against the tidy table: one verdict each, by one written rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.summary import strata_of
from lowdata_cpt.analysis.table import METRICS, UNTRAINED, held_out, paired_gain
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json, write_text

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not run"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "inconclusive", "not run")
# Two methods are compared at equal images seen; beyond this ratio the comparison supports nothing.
IMAGES_RATIO = 1.1
RULE = f"""\
Every effect is a difference method − reference on the test split, paired by seed, in the metric's own unit and turned
so that positive is better (also for RMSE and AbsRel). The measured value is the mean over the claim's domains of the
mean over seeds (a seed's sizes n averaged first); its 95 % interval is Student's, stratified by domain and backbone.

Let d be the direction (+1 better, −1 worse), and *need* the effect the claim asks for: max(0, d · paper value −
tolerance) where a tolerance is given, else 0 (direction only: the paper's value comes from other data or is unknown).
All in the claimed direction:

- **not run**: no cell of the claim is in the table; the reason says what is missing. (Of several domains or
  sizes those present are used, and the reason names the others.)
- **inconclusive**: a cell has one seed, so that there is no interval; or method and a trained reference saw numbers
  of images that differ by more than {100 * (IMAGES_RATIO - 1):.0f} %.
- **reproduced**: the whole interval is on the claimed side of zero and the measured value reaches *need*.
- **not reproduced**: the whole interval lies below *need*, or (need 0) on the other side of zero.
- **inconclusive**: anything else.

For the direction `not_worse` a loss within the tolerance is none: reproduced if the whole interval lies above
−tolerance, not reproduced if it lies below, else inconclusive. A larger effect than the paper's is no failure.
Intervals are not corrected for the number of claims: one claim in twenty without any effect is expected to show an
interval that leaves out zero. What is marked "not in a paper" is this study's own question, judged by the same rule.
"""


class Selector(BaseModel):
    """Which cells a claim speaks of. `any` takes whatever the table has; names may hold `*`.

    `n` is `any`, `largest` (per domain) or a list. With `n_minus` the claim is about the gain at `n` minus the gain
    at `n_minus`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["any"] | tuple[str, ...] = "any"
    domain: Literal["any"] | tuple[str, ...] = "any"
    method: str
    reference: str
    n: Literal["any", "largest"] | tuple[int, ...] = "any"
    n_minus: tuple[int, ...] | None = None


class Claim(BaseModel):
    """One claim of a paper, or, not `published`, a question that no paper answers.

    Values are differences in the metric's unit, positive = better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9_.-]+$")
    statement: str = Field(min_length=1)
    source: str = Field(min_length=1)
    cells: Selector
    metric: Literal[*METRICS]  # type: ignore[valid-type]
    direction: Literal["better", "worse", "not_worse"]
    paper_value: float | None = None
    tolerance: float | None = Field(default=None, ge=0)
    published: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if self.tolerance is not None and self.paper_value is None:
            raise ValueError("tolerance needs a paper_value")
        if self.direction == "not_worse" and self.tolerance is None:
            raise ValueError("direction not_worse needs a paper_value and a tolerance")
        sign = {"better": 1, "worse": -1, "not_worse": 0}[self.direction]
        if self.paper_value is not None and self.paper_value * sign < 0:
            raise ValueError("paper_value contradicts direction (positive means better, also for errors)")
        return self


class Claims(BaseModel):
    """The file of claims."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claims: tuple[Claim, ...] = Field(min_length=1)


class Result(BaseModel):
    """A claim with its measurement and verdict; NaNs never occur, an unknown value is null."""

    id: str
    statement: str
    source: str
    paper_value: float | None
    measured: float | None
    ci_low: float | None
    ci_high: float | None
    tolerance: float | None
    verdict: Verdict
    cells: str
    reason: str
    metric: str
    method: str
    reference: str
    direction: str
    published: bool

    @property
    def asked(self) -> str:
        """The statement, marked where no paper makes it."""
        return self.statement if self.published else f"{self.statement} (not in a paper)"


def read_claims(path: str | Path) -> tuple[Claim, ...]:
    """Read and validate the claims.

    Raises:
        UserError: missing file, not YAML, an unknown key, a wrong value (all of them in one message) or a repeated id.
    """
    path = Path(path)
    try:
        claims = Claims.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).claims
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected the claims in YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({error})") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(str(p) for p in one['loc']) or 'file'}: {one['msg']}" for one in error.errors())
        raise UserError(f"{path}: {wrong}") from None
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"{path}: claims.id: {name} occurs more than once")
    return claims


def judge(claim: Claim, interval: stats.Interval) -> Verdict:
    """Apply `RULE` to a measured interval (method − reference, positive = better)."""
    if not interval.known:
        return "inconclusive"
    if claim.direction == "not_worse":
        allowed = -(claim.tolerance or 0.0)
        if interval.low >= allowed:
            return "reproduced"
        return "not reproduced" if interval.high < allowed else "inconclusive"
    sign = 1.0 if claim.direction == "better" else -1.0
    low, high = sorted((sign * interval.low, sign * interval.high))
    need = 0.0
    if claim.paper_value is not None and claim.tolerance is not None:
        need = max(0.0, sign * claim.paper_value - claim.tolerance)
    if low > 0 and sign * interval.estimate >= need:
        return "reproduced"
    return "not reproduced" if high < need or high <= 0 else "inconclusive"


def evaluate(claim: Claim, scores: pd.DataFrame, absent: Mapping[str, str] | None = None) -> Result:
    """Measure one claim on the test rows of the table and give its verdict.

    `absent` names the domains whose data was not on the machine, with the reason.
    """
    test = held_out(scores)
    pick = claim.cells
    rows = _matching(test[test["metric"] == claim.metric], "backbone", pick.backbone)
    found = _matching(rows, "domain", pick.domain)
    gains = paired_gain(found[found["method"].isin([pick.method, pick.reference])], pick.reference)
    gains = gains[gains["method"] == pick.method]
    gains, earlier = _sizes(gains, pick), None
    if pick.n_minus is not None:
        earlier = paired_gain(found[found["method"].isin([pick.method, pick.reference])], pick.reference)
        earlier = earlier[earlier["n"].isin(pick.n_minus)]
        gains = _trend(gains, earlier)
    if gains.empty:
        return _result(claim, None, "not run", "", _missing(claim, test, rows, found, absent or {}))
    cells = "; ".join(
        f"{backbone}/{domain} n={','.join(str(n) for n in sorted(part['n'].unique()))} ×{part['seed'].nunique()} seeds"
        for (backbone, domain), part in gains.groupby(["backbone", "domain"])
    )
    interval = stats.t_interval(gains["gain"], strata_of(gains), gains["seed"].tolist())
    reasons = []
    if pick.domain != "any":
        lacking = [name for name in pick.domain if not any(fnmatchcase(d, name) for d in gains["domain"].unique())]
        reasons += [f"without {', '.join(lacking)} (absent)"] if lacking else []
    if isinstance(pick.n, tuple):
        fewer = [str(n) for n in pick.n if n not in set(gains["n"])]
        reasons += [f"without n = {', '.join(fewer)} (absent)"] if fewer else []
    if not interval.known:
        return _result(claim, interval, "inconclusive", cells, "; ".join([*reasons, "one seed gives no interval"]))
    if pick.reference not in UNTRAINED:
        ratio = gains["images_seen"] / gains["reference_images_seen"]
        if (ratio > IMAGES_RATIO).any() or (ratio < 1 / IMAGES_RATIO).any():
            reasons.append(f"images seen differ ({ratio.min():.2f}–{ratio.max():.2f} times the reference's)")
            return _result(claim, interval, "inconclusive", cells, "; ".join(reasons))
    verdict = judge(claim, interval)
    return _result(claim, interval, verdict, cells, "; ".join([*reasons, _why(claim, interval, verdict)]))


def _matching(rows: pd.DataFrame, column: str, wanted: str | tuple[str, ...]) -> pd.DataFrame:
    if wanted == "any":
        return rows
    return rows[rows[column].map(lambda name: any(fnmatchcase(name, pattern) for pattern in wanted)).astype(bool)]


def _sizes(gains: pd.DataFrame, pick: Selector) -> pd.DataFrame:
    if pick.n == "any":
        return gains
    if pick.n == "largest":
        return gains[gains["n"] == gains.groupby(["backbone", "domain"])["n"].transform("max")]
    return gains[gains["n"].isin(pick.n)]


def _trend(later: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    on = ["backbone", "domain", "method", "seed"]
    start = earlier.groupby(on)["gain"].mean().rename("start").reset_index()
    both = later.merge(start, on=on)
    both["gain"] = both["gain"] - both["start"]
    return both


def _missing(
    claim: Claim, test: pd.DataFrame, rows: pd.DataFrame, found: pd.DataFrame, absent: Mapping[str, str]
) -> str:
    pick = claim.cells
    if found.empty and pick.domain != "any":
        left_out = [name for name in absent if any(fnmatchcase(name, pattern) for pattern in pick.domain)]
        if left_out:
            return "; ".join(f"the data of {name} was not on the machine ({absent[name]})" for name in left_out)
    for name in (pick.method, pick.reference):
        if not (test["method"] == name).any():
            return f"method {name} is not in the study"
    if rows.empty:
        wanted = "" if pick.backbone == "any" else f" with backbone {', '.join(pick.backbone)}"
        return f"{claim.metric} was not measured{wanted}"
    if found.empty:
        return f"domain {', '.join(pick.domain)} is not in the study (or has no {claim.metric})"
    if pick.n not in ("any", "largest"):
        sizes = ", ".join(str(n) for n in (*pick.n, *(pick.n_minus or ())))
        return f"n = {sizes} of {pick.method} and {pick.reference} is not in the study"
    return f"{pick.method} and {pick.reference} share no seed of one cell"


def _why(claim: Claim, interval: stats.Interval, verdict: Verdict) -> str:
    if verdict == "reproduced":
        return ""
    if claim.direction == "not_worse":
        return "the interval leaves the tolerance" if verdict == "inconclusive" else "a loss beyond the tolerance"
    sign = -1.0 if claim.direction == "worse" else 1.0
    if verdict == "inconclusive":
        if interval.excludes_zero:
            return "same direction, smaller than the claim asks for, but the interval reaches it"
        return "the interval holds zero"
    if sign * interval.estimate > 0 and interval.excludes_zero:
        return "same direction, but smaller than the claim asks for"
    return "opposite direction" if interval.excludes_zero else "smaller than the claim asks for"


def _result(claim: Claim, interval: stats.Interval | None, verdict: Verdict, cells: str, reason: str) -> Result:
    def known(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    return Result(
        id=claim.id,
        statement=claim.statement,
        source=claim.source,
        paper_value=claim.paper_value,
        measured=known(interval.estimate) if interval else None,
        ci_low=known(interval.low) if interval else None,
        ci_high=known(interval.high) if interval else None,
        tolerance=claim.tolerance,
        verdict=verdict,
        cells=cells,
        reason=reason.removesuffix("; "),
        metric=str(claim.metric),
        method=claim.cells.method,
        reference=claim.cells.reference,
        direction=claim.direction,
        published=claim.published,
    )


def signed(value: float | None, digits: int = 4) -> str:
    """Format a difference with its sign; a dash for none."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def count_verdicts(results: list[Result]) -> str:
    """Count the papers' claims by verdict, and beside them this study's own questions."""

    def counted(part: list[Result]) -> str:
        found = {verdict: sum(r.verdict == verdict for r in part) for verdict in VERDICTS}
        return ", ".join(f"{count} {verdict}" for verdict, count in found.items() if count)

    papers = [result for result in results if result.published]
    own = [result for result in results if not result.published]
    text = f"{len(papers)} claims of the papers: {counted(papers)}"
    return f"{text}; {len(own)} statements that are in no paper: {counted(own)}" if own else text


def to_markdown(results: list[Result], study: str) -> str:
    """Return the claims as a Markdown page: counts, table, rule."""
    names = [
        "id",
        "statement",
        "source",
        "paper_value",
        "measured",
        "ci_low",
        "ci_high",
        "tolerance",
        "verdict",
        "cells",
    ]
    lines = [f"# Claims, study `{study}`", "", f"{count_verdicts(results)}.", ""]
    lines += ["| " + " | ".join(names) + " |", "|---|---|---|---:|---:|---:|---:|---:|---|---|"]
    for result in sorted(results, key=lambda r: VERDICTS.index(r.verdict) == 3):
        numbers = [signed(value) for value in (result.paper_value, result.measured, result.ci_low, result.ci_high)]
        tolerance = "direction only" if result.tolerance is None else f"{result.tolerance:.4f}"
        verdict = f"**{result.verdict}**" + (f" ({result.reason})" if result.reason else "")
        row = [result.id, result.asked, result.source, *numbers, tolerance, verdict]
        row.append(result.cells or "–")
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |")
    return "\n".join([*lines, "", "## The rule", "", RULE])


def verdicts_markdown(results: list[Result]) -> str:
    """Return the claims that could be judged as a short table, the decided ones first, and how many could not."""
    judged = sorted((r for r in results if r.verdict != "not run"), key=lambda r: VERDICTS.index(r.verdict))
    lines = ["| Claim | paper | measured here [95 % CI] | verdict |", "|---|---:|---:|---|"]
    for result in judged:
        span = "" if result.ci_low is None else f" [{signed(result.ci_low)}, {signed(result.ci_high)}]"
        measured = f"{signed(result.measured)}{span}"
        verdict = f"**{result.verdict}**" + (f" ({result.reason})" if result.reason else "")
        lines.append(f"| {result.asked} | {signed(result.paper_value)} | {measured} | {verdict} |")
    return "\n".join([*lines, "", f"{count_verdicts(results)}. `claims.md` gives the reason of each that was not run."])


def make_claims(
    scores: pd.DataFrame, claims: tuple[Claim, ...], out_dir: Path, study: str, absent: Mapping[str, str] | None = None
) -> list[Result]:
    """Judge every claim and write `claims.json` and `claims.md` into `out_dir`; `absent` as in `evaluate`."""
    results = [evaluate(claim, scores, absent) for claim in claims]
    write_json(out_dir / "claims.json", [result.model_dump() for result in results])
    write_text(out_dir / "claims.md", to_markdown(results, study))
    return results
