"""The papers' claims and this study's questions, held against the tidy table: one verdict each, by one written rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel

from lowdata_cpt.analysis.claims_file import Claim, Claims
from lowdata_cpt.analysis.measure import Measured, change_with_n, gains, pooled_gain
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.preconditions import idle_text
from lowdata_cpt.analysis.style import domain_label, parent_of, style_of
from lowdata_cpt.analysis.table import METRICS, held_out
from lowdata_cpt.analysis.verdicts import ANSWERS, RULE, VERDICTS, Verdict, judge, paper_size, why
from lowdata_cpt.core.io import write_json, write_text


@dataclass(frozen=True)
class Evidence:
    """What a claim is held against.

    Attributes:
        scores: the tidy table.
        outcomes: of the test images; none: intervals cover seeds.
        checks: rows of `check_preconditions`; empty: nothing is known of whether methods acted.
        head_room: points (or %) by which base must beat random weights, where the table has both.
        absent: the domains that were not run, with the reason.
        waiting: the largest n that is not run yet, by domain and method, of the study that the table is a part of.
    """

    scores: pd.DataFrame
    outcomes: Outcomes | None = None
    checks: pd.DataFrame = field(default_factory=pd.DataFrame)
    head_room: float = 0.0
    absent: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[tuple[str, str], int] = field(default_factory=dict)


class Result(BaseModel):
    """A claim with its measurement and verdict; gains in `unit` (points or %); NaNs never occur, unknown is null."""

    id: str
    statement: str
    source: str
    paper_value: float | None
    measured: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    interval_covers: str = ""
    mde: float | None = None
    p: float | None = None
    p_sign_flip: float | None = None
    tolerance: float | None
    verdict: Verdict
    paper_size: Literal["excluded", "possible", "exceeded"] | None = None
    cells: str = ""
    reason: str
    metric: str
    unit: str
    method: str
    reference: str
    direction: str
    published: bool


def evaluate(claim: Claim, evidence: Evidence) -> Result:
    """Measure one claim on the test rows of the table and give its verdict."""
    test, pick = held_out(evidence.scores), claim.cells
    rows = _matching(test[test["metric"] == claim.metric], "backbone", pick.backbone)
    found = _matching(rows, "domain", pick.domain)
    paired = gains(found[found["method"].isin([pick.method, pick.reference])], pick.reference, evidence.outcomes)
    paired = paired[paired["method"] == pick.method]
    if pick.n_minus is not None:
        last = pick.n if isinstance(pick.n, tuple) else None
        used = change_with_n(paired, first=pick.n_minus, last=last)
    elif pick.n == "largest":
        there = paired.groupby(["backbone", "domain"])["n"].transform("max")
        to_come = [evidence.waiting.get((domain, pick.method), 0) for domain in paired["domain"]]
        used = paired[paired["n"].eq(there) & there.ge(to_come)]
    else:
        used = paired[paired["n"].isin(pick.n)] if isinstance(pick.n, tuple) else paired
    if used.empty:
        return _result(claim, "not run", _missing(claim, test, rows, found, evidence))
    if lacking := _lacking(claim, used):
        # A claim about several domains is not judged on some of them: those have claims of their own.
        return _result(claim, "not run", f"without {', '.join(lacking)} it is another claim")
    reasons = _without_sizes(claim, used)
    flat = _without_head_room(found, used, evidence.head_room)
    if flat:
        names = ", ".join(f"{domain_label(domain)} ({signed(room, 1)})" for (_, domain), room in flat.items())
        reasons.append(f"without {names}: the base hardly beats random weights there")
        kept = used[[key not in flat for key in zip(used["backbone"], used["domain"], strict=True)]]
        if kept.empty:
            return _result(claim, "inconclusive", "; ".join(reasons), used)
        used = kept
    idle = _idle(claim, used, evidence.checks)
    if not idle.empty:
        reasons.append(idle_text(idle))
        places = set(idle[["backbone", "domain", "n"]].itertuples(index=False, name=None))
        kept = used[[key not in places for key in zip(used["backbone"], used["domain"], used["n"], strict=True)]]
        if kept.empty:
            return _result(claim, "budget too small", "; ".join(reasons), used)
        used = kept
    seeds = used.groupby(["backbone", "domain"])["seed"].nunique()
    if (seeds < 2).any():
        return _result(claim, "inconclusive", "; ".join([*reasons, "one seed gives no verdict"]), used)
    measured = pooled_gain(used)
    verdict = judge(claim, measured.interval)
    reason = why(claim, measured.interval, verdict)
    return _result(claim, verdict, "; ".join([*reasons, *([reason] if reason else [])]), used, measured)


def _matching(rows: pd.DataFrame, column: str, wanted: str | tuple[str, ...]) -> pd.DataFrame:
    if wanted == "any":
        return rows
    return rows[rows[column].map(lambda name: any(fnmatchcase(name, pattern) for pattern in wanted)).astype(bool)]


def _lacking(claim: Claim, used: pd.DataFrame) -> list[str]:
    names = () if claim.cells.domain == "any" else claim.cells.domain
    return [name for name in names if not any(fnmatchcase(d, name) for d in used["domain"].unique())]


def _without_sizes(claim: Claim, used: pd.DataFrame) -> list[str]:
    wanted = claim.cells.n if isinstance(claim.cells.n, tuple) else ()
    fewer = [str(n) for n in wanted if n not in set(used["n"])]
    return [f"without n = {', '.join(fewer)} (absent)"] if fewer else []


def _without_head_room(rows: pd.DataFrame, used: pd.DataFrame, head_room: float) -> dict[tuple[str, str], float]:
    """Return the places where base beats random weights by less than `head_room`, and by how much."""
    metric = METRICS[str(used["metric"].iloc[0])]
    short = {}
    for key in sorted(set(zip(used["backbone"], used["domain"], strict=True))):
        place = rows[(rows["backbone"] == key[0]) & (rows["domain"] == key[1])]
        base, random = (place.loc[place["method"] == name, "value"].mean() for name in ("base", "random"))
        room = 100 * (base - random if metric.higher else random - base) / (base if metric.relative else 1.0)
        if room < head_room:  # NaN, where either is absent, is not
            short[key] = float(room)
    return short


def _idle(claim: Claim, used: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `checks` that say that the method, or the control it is compared with, did not act."""
    if checks.empty:
        return checks
    names = [claim.cells.method]
    # A variant that takes a part out (a random gradient, say) is not meant to act as its method does.
    names += [claim.cells.reference] if parent_of(claim.cells.reference) is None else []
    places = used[["backbone", "domain", "n"]].drop_duplicates()
    return checks[~checks["acted"].astype(bool) & checks["method"].isin(names)].merge(places)


def _missing(claim: Claim, test: pd.DataFrame, rows: pd.DataFrame, found: pd.DataFrame, evidence: Evidence) -> str:
    pick, absent = claim.cells, evidence.absent
    if found.empty and pick.domain != "any":
        left_out = [name for name in absent if any(fnmatchcase(name, pattern) for pattern in pick.domain)]
        if left_out:
            return "; ".join(f"{name} was not run ({absent[name]})" for name in left_out)
    for name in (pick.method, pick.reference):
        if not (test["method"] == name).any():
            return f"method {name} is not among the study's results"
    if rows.empty:
        wanted = "" if pick.backbone == "any" else f" with backbone {', '.join(pick.backbone)}"
        return f"{claim.metric} was not measured{wanted}"
    if found.empty:
        known = not _lacking(claim, test)
        return f"{', '.join(pick.domain)} {f'has no {claim.metric}' if known else 'is not in the study'}"
    if pick.n == "largest":
        waiting = {name: evidence.waiting.get((name, pick.method), 0) for name in sorted(set(found["domain"]))}
        if places := [f"n = {n} of {name}" for name, n in waiting.items() if n]:
            return f"{pick.method} was not run at {', '.join(places)}"
    if pick.n not in ("any", "largest"):
        sizes = ", ".join(str(n) for n in (*pick.n, *(pick.n_minus or ())))
        return f"n = {sizes} of {pick.method} and {pick.reference} is not in the study"
    for name in (pick.method, pick.reference):
        if not (found["method"] == name).any():
            return (
                f"none of {name}'s cells on {', '.join(sorted(set(found['domain'])))} is computed yet, or in the study"
            )
    return f"{pick.method} and {pick.reference} share no seed of one cell at equal images seen"


def _result(
    claim: Claim, verdict: Verdict, reason: str, used: pd.DataFrame | None = None, measured: Measured | None = None
) -> Result:
    def known(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    shown: dict[str, Any] = {}
    if used is not None:
        measured = measured or pooled_gain(used)
        found = measured.interval
        shown = {"measured": known(found.estimate), "ci_low": known(found.low), "ci_high": known(found.high)}
        shown |= {"p": known(found.p_value), "p_sign_flip": known(measured.p_sign_flip), "mde": known(measured.mde)}
        acted = verdict not in ("budget too small", "not run")
        shown |= {"interval_covers": found.covers, "paper_size": paper_size(claim, found) if acted else None}
        shown["cells"] = "; ".join(
            f"{backbone}/{domain} n={','.join(str(n) for n in sorted(part['n'].unique()))} "
            f"×{part['seed'].nunique()} seeds"
            for (backbone, domain), part in used.groupby(["backbone", "domain"])
        )
    stated = claim.model_dump(include={"id", "statement", "source", "paper_value", "tolerance", "direction"})
    about = {"method": claim.cells.method, "reference": claim.cells.reference, "metric": str(claim.metric)}
    about |= {"unit": METRICS[str(claim.metric)].gain_unit, "reason": reason}
    answer = verdict if claim.published else ANSWERS[verdict]
    return Result(**stated, **about, **shown, verdict=answer, published=claim.published)


def judge_all(claims: Claims, evidence: Evidence) -> list[Result]:
    """Return the verdict on every claim, in the file's order."""
    return [evaluate(claim, evidence) for claim in claims.claims]


def signed(value: float | None, digits: int = 2) -> str:
    """Format a difference with its sign; a dash for none."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def p_text(p: float | None) -> str:
    """Format a p-value, never as zero; a dash for none."""
    if p is None or math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 0.00005 else "< 0.0001"


def _counted(results: list[Result]) -> str:
    found = {verdict: sum(result.verdict == verdict for result in results) for verdict in VERDICTS}
    return ", ".join(f"{count} {verdict}" for verdict, count in found.items() if count)


def count_verdicts(results: list[Result]) -> str:
    """Count the papers' claims by verdict, and beside them this study's own questions."""
    papers = [result for result in results if result.published]
    own = [result for result in results if not result.published]
    text = f"{len(papers)} published claims: {_counted(papers)}"
    return f"{text}; {len(own)} questions of this study: {_counted(own)}" if own else text


def reproduced_line(results: list[Result]) -> str:
    """Say in one line what was reproduced of the papers and what was not tested: it belongs above every table.

    Empty where there is no claim of a paper.
    """
    papers = [result for result in results if result.published]
    tested = [result for result in papers if result.verdict != "not run"]
    missing = [result for result in papers if result.verdict == "not run"]
    parts = []
    for verdict in VERDICTS:
        names = [f"`{result.id}`" for result in tested if result.verdict == verdict]
        named = f" ({', '.join(names)})" if verdict in ("reproduced", "not reproduced") else ""
        parts += [f"{len(names)} {verdict}{named}"] if names else []
    text = f"Of {len(papers)} published claims {len(tested)} were tested here"
    text += f": {', '.join(parts)}." if parts else "."
    if missing:
        # A claim of DIET-CP is one of `diet_cp` or of a variant with the paper's settings.
        methods = [style_of(parent_of(result.method) or result.method).label for result in missing]
        counted = ", ".join(f"{name} {methods.count(name)}" for name in dict.fromkeys(methods))
        text += f" {len(missing)} were not tested ({counted}): their data, backbones or settings are not among this "
        text += "study's results; claims.md says which."
    return text if papers else ""


def _table(results: list[Result]) -> list[str]:
    lines = ["| Claim | Reported | Measured [95 % CI] | Detectable | p (sign-flip) | Verdict |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    for result in results:
        span = "" if result.ci_low is None else f" [{signed(result.ci_low)}, {signed(result.ci_high)}]"
        unit = "" if result.measured is None else f" {result.unit}"
        size = f"; the reported size is {result.paper_size}" if result.paper_size else ""
        verdict = f"**{result.verdict}**{size}" + (f" ({result.reason})" if result.reason else "")
        numbers = [signed(result.paper_value), f"{signed(result.measured)}{span}{unit}"]
        numbers += ["–" if result.mde is None else f"{result.mde:.2f}", p_text(result.p_sign_flip)]
        lines.append(
            "| " + " | ".join([f"`{result.id}`: {result.statement}", *numbers, verdict]).replace("\n", " ") + " |"
        )
    return lines


def to_markdown(results: list[Result], study: str) -> str:
    """Return the claims as a Markdown page: the line, counts, what was judged, what was not run, the rule."""
    lines = [f"# Claims, study `{study}`", "", reproduced_line(results), "", f"{count_verdicts(results)}.", ""]
    judged = [result for result in results if result.verdict != "not run"]
    for title, published in (("Published claims", True), ("Questions of this study", False)):
        part = [result for result in judged if result.published == published]
        lines += [f"## {title}", "", *_table(part), ""] if part else []
    lines += ["## Not run", ""]
    lines += [f"- `{one.id}`: {one.statement} {one.reason}. {one.source}." for one in results if one not in judged]
    lines += ["", "## Sources and cells", ""]
    lines += [
        f"- `{one.id}`: {one.source}. {one.cells}; interval covers {one.interval_covers or 'nothing'}."
        for one in judged
    ]
    return "\n".join([*lines, "", "## The rule", "", RULE])


def verdicts_markdown(results: list[Result]) -> str:
    """Return the claims that could be judged as a short table, the decided ones first, and how many could not."""
    judged = sorted((r for r in results if r.verdict != "not run"), key=lambda r: VERDICTS.index(r.verdict))
    text = [reproduced_line(results), "", *_table(judged), "", f"{count_verdicts(results)}."]
    return "\n".join([*text, "`claims.md` gives the reason of each that was not run."])


def write_claims(results: list[Result], out_dir: Path, study: str) -> list[Path]:
    """Write `claims.json` and `claims.md` into `out_dir`."""
    write_json(out_dir / "claims.json", [result.model_dump() for result in results])
    write_text(out_dir / "claims.md", to_markdown(results, study))
    return [out_dir / "claims.json", out_dir / "claims.md"]
