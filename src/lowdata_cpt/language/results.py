"""From the cells to tables, intervals and verdicts. No torch.

scores.csv has a row for each metric and milestone; outcomes.npz the outcome on each held-out problem or window of prose
(`<learner>/<arm>/s<seed>/<metric>`, at the end of the runs) and which problems end in the same step
(`<learner>/groups`); curves.csv what the runs logged; value.csv V and what came of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from lowdata_cpt.analysis.claims_file import Direction, Statement
from lowdata_cpt.analysis.outcomes import draws_of_images
from lowdata_cpt.analysis.preconditions import mostly_positive
from lowdata_cpt.analysis.stats import Interval, joint_interval, minimum_detectable_effect
from lowdata_cpt.analysis.table import read_table as table_of
from lowdata_cpt.analysis.verdicts import ANSWERS, Verdict, judge, why
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_arrays, read_json, write_arrays, write_json, write_text
from lowdata_cpt.core.paths import project_file
from lowdata_cpt.core.provenance import check, of_study, write_sidecar
from lowdata_cpt.core.stable import write_table
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.core.yaml_file import read_yaml
from lowdata_cpt.language.config import ARMS, BASE, Arm, LanguageStudy, is_language, validate
from lowdata_cpt.language.plan import Cell, Paths, base_of, cells
from lowdata_cpt.study.job_params import study_params
from lowdata_cpt.study.load import parsed

METRICS = {
    "pass_at_1": "Pass@1",
    "answer_accuracy": "accuracy on answers",
    "prose_accuracy": "accuracy on prose",
    "answer_nll": "NLL of answers",
    "prose_nll": "NLL of prose",
}
SHOWN = ("pass_at_1", "answer_accuracy", "prose_accuracy")
"""What the headline and the figure show; NLLs stay in the tables."""
LABELS = {
    BASE: "start",
    "next_token": "next token",
    "uniform_topk": "uniform top-K",
    "self_distillation": "self-distillation",
    "random_feedback": "random feedback",
    "v_pretraining_text": "V-pretraining",
}
TAUGHT: Arm = "v_pretraining_text"
"""The arm whose φ is taught by feedback: it acted where its V is mostly above that of the uniform control."""
DESIGNED: tuple[Arm, ...] = ("random_feedback", TAUGHT)
"""The arms with a φ: their seconds hold a pass over the feedback after each update, which the method does not need."""
SCOPE = """\
Gains in points (of NLL: nats), positive = better, at the end of the runs, with 95 % intervals. These cover batch order,
feedback draws, φ's start and test problems, not another start: all cells of a learner begin at one. Arms have equal
stream tokens, not equal compute or labels.
"""
CLAIMS = "config/language_claims.yaml"
CURVE_STEPS = 200
KEY = ["learner", "arm", "seed"]
TEXT = ("learner", "arm", "reference", "metric", "covers")
COLUMNS = {
    "scores.csv": (*KEY, "tokens_seen", "metric", "value", "train_seconds"),
    "curves.csv": (*KEY, "tokens_seen", "alpha", "entropy"),
    "value.csv": (
        *(*KEY, "step", "value", "value_one_hot", "value_uniform", "cosine", "alpha", "lr", "predicted", "realised"),
    ),
    "statistics.csv": ("learner", "arm", "reference", "metric", "gain", "low", "high", "seeds"),
}
"""What is read of each table."""


class LanguageClaim(Statement):
    """One claim: an arm's gain over another in a metric, in points (of NLL: nats), positive = better."""

    learner: str
    arm: Literal[ARMS]  # type: ignore[valid-type]
    reference: Literal[ARMS] = "next_token"  # type: ignore[valid-type]
    metric: Literal[*METRICS, "mmlu"]  # type: ignore[valid-type]
    direction: Direction = "better"


class LanguageClaims(Strict):
    """The file of claims."""

    claims: tuple[LanguageClaim, ...] = Field(min_length=1)


def collect(study: LanguageStudy, paths: Paths, target: Path | None = None) -> None:
    """Gather every cell into scores.csv, cost.csv, curves.csv, value.csv, outcomes.npz and study.json of `target`.

    Raises:
        UserError: a cell's file is missing or damaged.
    """
    target = target or paths.root
    write_json(target / "study.json", study_params(study))
    every = [*map(base_of, study.learners), *cells(study)]
    scores: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    values: list[pd.DataFrame] = []
    outcomes: dict[str, np.ndarray] = {}
    for cell in every:
        folder, key = paths.cell(cell), cell._asdict()
        cost = read_json(check(folder / "cost.json"))
        milestones = read_json(check(folder / "evaluation.json"))["milestones"]
        spent = {} if cell.arm == BASE else cost["milestones"]
        scores += [
            {"study": study.study, **key, "tokens_seen": int(seen), "metric": metric, "value": value,
             "train_seconds": spent.get(seen, 0.0)}
            for seen, found in milestones.items()
            for metric, value in found["metrics"].items()
        ]  # fmt: skip
        costs.append(key | {name: value for name, value in cost.items() if name != "milestones"})
        end = max(milestones, key=int)
        stored = read_arrays(check(folder / "outcomes.npz", folder / "evaluation.json"))
        outcomes |= {f"{cell.name}/{metric}": stored[f"t{end}/{metric}"] for metric in METRICS}
        outcomes[f"{cell.learner}/groups"] = stored["groups"]
        log = pd.read_csv(check(folder / "log.csv", folder / "cost.json"))
        if len(log):
            curves.append(_curve(log).assign(**key))
        if "value" in set(log["part"]):
            values.append(_values(log, study.designer.burn_in).assign(**key))
    write_arrays(target / "outcomes.npz", outcomes)
    curve_columns = [*KEY, "step", "tokens_seen", "loss", "alpha", "entropy"]
    value_columns = [*KEY, "step", "tokens_seen", "value", "value_one_hot", "value_uniform", "cosine", "meta_loss",
                     "alpha", "lr", "predicted", "realised"]  # fmt: skip
    tables = {
        "scores.csv": pd.DataFrame(scores),
        "cost.csv": pd.DataFrame(costs),
        "curves.csv": _rounded(curves, curve_columns),
        "value.csv": _rounded(values, value_columns),
    }
    for name, table in tables.items():
        write_table(target / name, table)
        made = [paths.cell(cell) / ("evaluation.json" if name == "scores.csv" else "cost.json") for cell in every]
        beside = [target / "study.json", target / "outcomes.npz"] if name == "scores.csv" else []
        write_sidecar(target / name, inputs=list(made), beside=beside, rows=len(table))


def _rounded(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Return tables under each other with the given columns, numbers of six digits as text."""
    table = pd.concat([pd.DataFrame(columns=columns), *frames]).reindex(columns=columns)
    for name in columns[5:]:
        table[name] = table[name].map(lambda x: "" if pd.isna(x) else f"{x:.6g}")
    return table


def _wide(log: pd.DataFrame) -> pd.DataFrame:
    return log.pivot(index=["step", "tokens_seen"], columns="part", values="value").reset_index()


def _curve(log: pd.DataFrame) -> pd.DataFrame:
    """Return a log with a row a step; of a long one every k-th step."""
    return _wide(log[log["step"] % (log["step"].max() // CURVE_STEPS + 1) == 0])


def _values(log: pd.DataFrame, burn_in: int) -> pd.DataFrame:
    """Return the steps at which φ was updated, with the predicted fall of L_down, rate · V, and the one that followed.

    V is that of the targets which θ got, in the burn-in one-hot ones. The fall is logged at the next update.
    """
    found = _wide(log)
    found = found[found["value"].notna()]
    realised = found["realised"].shift(-1) if "realised" in found else math.nan
    got = found["value"].where(found["step"] >= burn_in, found["value_one_hot"])
    return found.assign(predicted=found["lr"] * got, realised=realised)


def read_study(folder: Path) -> LanguageStudy:
    """Read the resolved configuration of a study's folder.

    Raises:
        UserError: it is none, or of another kind of study.
    """
    path = folder / "study.json"
    if not is_language(raw := read_json(of_study(path))):
        raise UserError(f"{path}: of a study of images; expected one of `kind: language`")
    return validate(raw, str(path))


def read_table(path: Path) -> pd.DataFrame:
    """Read one of a study's tables, which must have those of `COLUMNS` and arms that there are.

    Raises:
        UserError: it is damaged, or no such table.
    """
    table = table_of(path, COLUMNS[path.name], TEXT)
    if unknown := sorted(set(table["arm"].astype(str)) - set(LABELS)):
        raise UserError(f"{path}: unknown arm {unknown[0]!r}, expected one of {', '.join(LABELS)}")
    return table


def read_scores(folder: Path) -> pd.DataFrame:
    """Read a study's scores."""
    return read_table(folder / "scores.csv")


def gain(
    scores: pd.DataFrame, outcomes: dict[str, np.ndarray], learner: str, arm: str, reference: str, metric: str
) -> tuple[Interval, int]:
    """Return the gain of an arm at the end of the runs, paired by seed and problem, and the number of seeds.

    In points or, of NLL, in nats; positive = better. The interval covers seeds and held-out windows or problems, of
    which those that end in the same step are redrawn together.
    """
    seeds = sorted(set(scores.loc[(scores["learner"] == learner) & (scores["arm"] == arm), "seed"]))

    def of(name: str, seed: int) -> np.ndarray:
        cell = base_of(learner) if name == BASE else Cell(learner, name, seed)
        return entry(f"{cell.name}/{metric}").astype(float)

    def entry(name: str) -> np.ndarray:
        if name not in outcomes:
            raise UserError(f"outcomes.npz: has no {name}; expected the file that was collected with scores.csv")
        return outcomes[name]

    if not seeds:
        raise UserError(f"scores.csv: has no row of {learner}/{arm}, which study.json names")

    sign = -1.0 if metric.endswith("_nll") else 100.0
    rows = sign * np.stack([of(arm, seed) - of(reference, seed) for seed in seeds])
    groups = () if metric.startswith("prose_") else tuple(entry(f"{learner}/groups").tolist())
    weights = draws_of_images(rows.shape[1], groups)
    drawn = len(set(groups)) or rows.shape[1]
    return joint_interval(rows.mean(axis=1), rows @ weights.T / weights.sum(axis=1), drawn), len(seeds)


def statistics(folder: Path) -> None:
    """Write statistics.csv (each arm's gain over next-token prediction and over the start) and designer.csv."""
    study, scores = read_study(folder), read_scores(folder)
    outcomes, rows = read_arrays(of_study(folder / "outcomes.npz")), []
    for learner in study.learners:
        for arm in study.arms:
            for reference in (BASE, "next_token"):
                for metric in METRICS:
                    if arm == reference:
                        continue
                    interval, seeds = gain(scores, outcomes, learner, arm, reference, metric)
                    at_end = scores[
                        (scores["learner"] == learner) & (scores["arm"] == arm) & (scores["metric"] == metric)
                    ]
                    last = at_end["tokens_seen"].max()
                    rows.append({
                        "learner": learner, "arm": arm, "reference": reference, "metric": metric, "tokens_seen": last,
                        "mean": at_end.loc[at_end["tokens_seen"] == last, "value"].mean(), "gain": interval.estimate,
                        "low": interval.low, "high": interval.high, "p_value": interval.p_value,
                        "detectable": minimum_detectable_effect(interval.standard_error, interval.degrees_of_freedom),
                        "covers": interval.covers, "seeds": seeds,
                    })  # fmt: skip
    write_table(folder / "statistics.csv", pd.DataFrame(rows).round(6))
    write_table(folder / "designer.csv", designer_table(read_table(folder / "value.csv")))
    for name in ("statistics.csv", "designer.csv"):
        write_sidecar(folder / name, inputs=[folder / "scores.csv", folder / "value.csv"])


def within_seed(values: pd.DataFrame, *, ranks: bool = False) -> float:
    """Return Pearson's r of predicted and realised fall, both divided by the rate of their step, mean over seeds.

    Pooled and undivided, the schedule and differences between seeds would correlate by themselves. NaN if unknown.
    Of `ranks` (Spearman's r), the few large changes where θ first gets designed targets count as any other.
    """
    found = []
    for _, part in values[values["lr"] > 0].groupby("seed"):
        pairs = part[["predicted", "realised"]].div(part["lr"], axis=0).dropna()
        pairs = pairs.rank() if ranks else pairs
        if len(pairs) > 2 and (pairs.std() > 0).all():
            found.append(np.corrcoef(pairs["predicted"], pairs["realised"])[0, 1])
    return float(np.mean(found)) if found else math.nan


def designer_table(values: pd.DataFrame) -> pd.DataFrame:
    """Return per learner and arm: updates of φ, shares with V above 0 and the references, `within_seed`'s r.

    `late_…` are of the second half of the runs: a gate that closes makes q one-hot, and V that of one-hot.
    """
    rows = []
    for (learner, arm), part in values.groupby(["learner", "arm"], sort=False):
        late = part[part["step"] > part["step"].max() / 2]
        above = [(of["value"] > of["value_one_hot"]).mean() for of in (part, late)]
        worth = ((part["value"] > 0).mean(), (part["value"] > part["value_uniform"]).mean(), *above)
        fit = (within_seed(part), within_seed(part, ranks=True))
        rows.append((learner, arm, len(part), *worth, late["alpha"].mean(), part["cosine"].mean(), *fit))
    columns = ["learner", "arm", "updates", "share_positive", "share_above_uniform", "share_above_one_hot",
               "late_above_one_hot", "late_alpha", "mean_cosine", "pearson_r", "rank_r"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).round(6)


def acted(values: pd.DataFrame) -> list[str]:
    """Return a sentence per learner: how often its taught φ was worth more than its start, and than plain targets."""
    table = designer_table(values)
    return [
        f"{row['learner']}: V of the taught φ is above that of uniform top-K targets, where φ starts, on "
        f"{row['share_above_uniform']:.1%} of {row['updates']} updates, and above that of one-hot targets (worth more "
        f"than next-token targets) on {row['share_above_one_hot']:.1%}; in the second "
        f"half on {row['late_above_one_hot']:.1%}, at a mean α of {row['late_alpha']:.3f}."
        for row in table[table["arm"] == TAUGHT].to_dict("records")
    ]


def verdict(claim: LanguageClaim, study: LanguageStudy, folder: Path) -> dict[str, Any]:
    """Hold a claim against a study by the rule of `analysis.verdicts`."""
    lacking = [f"learner {claim.learner}"] if claim.learner not in study.learners else []
    lacking += [f"arm {arm}" for arm in (claim.arm, claim.reference) if arm not in study.arms]
    lacking += [f"metric {claim.metric}"] if claim.metric not in METRICS else []
    said = claim.model_dump(mode="json")
    if lacking:
        return said | {"verdict": "not run", "reason": f"study {study.study} has no {', no '.join(lacking)}"}
    outcomes = read_arrays(of_study(folder / "outcomes.npz"))
    interval, seeds = gain(read_scores(folder), outcomes, claim.learner, claim.arm, claim.reference, claim.metric)
    said |= {"measured": interval.estimate, "low": interval.low, "high": interval.high, "seeds": seeds}
    values = read_table(folder / "value.csv")
    values = values[(values["learner"] == claim.learner) & (values["arm"] == claim.arm)]
    above = values["value"] - values["value_uniform"]
    if claim.arm == TAUGHT and not mostly_positive(above):
        found: Verdict = "budget too small"
        reason = (
            f"V above that of uniform top-K targets, where φ starts, on {int((above > 0).sum())} of {len(above)} "
            "updates, not more than half beyond chance"
        )
    else:
        found = judge(claim, interval)
        reason = "one seed" if seeds < 2 else why(claim, interval, found)
    return said | {"verdict": found if claim.published else ANSWERS[found], "reason": reason}


def claims(folder: Path, file: Path | None = None) -> None:
    """Write claims.json and claims.md of a study's folder.

    Raises:
        UserError: the file of claims is missing or wrong.
    """
    path = file or project_file(CLAIMS)
    study = read_study(folder)
    found = [verdict(claim, study, folder) for claim in parsed(LanguageClaims, read_yaml(path), str(path)).claims]
    write_json(folder / "claims.json", found)
    lines = ["| claim | paper | measured | verdict |", "|---|---|---|---|"]
    for one in found:
        measured = f"{one['measured']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]" if "measured" in one else "–"
        paper = "–" if one["paper_value"] is None else f"{one['paper_value']:+.2f}"
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(f"| {one['statement']} | {paper} | {measured} | {one['verdict']}{reason} |")
    told = "".join(f"{one}\n" for one in acted(read_table(folder / "value.csv")))
    write_text(folder / "claims.md", f"{SCOPE}{told}\n" + "\n".join(lines) + "\n")
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv", folder / "value.csv", path])


def headline(folder: Path) -> str:
    """Return the table that a finished study prints.

    Raises:
        UserError: it is not finished.
    """
    if not (folder / "statistics.csv").exists():
        raise UserError(f"{folder}: no statistics.csv; expected the folder of a language study that has run")
    table = read_table(folder / "statistics.csv")
    seconds = read_scores(folder).groupby(KEY)["train_seconds"].max().groupby(level=[0, 1]).mean()
    lines = [SCOPE.rstrip("\n")]
    for row in table[(table["reference"] == "next_token") & table["metric"].isin(SHOWN)].to_dict("records"):
        lines.append(
            f"{row['learner']}: {LABELS[row['arm']]} against next token, {METRICS[row['metric']]}: "
            f"{row['gain']:+.3g} points [{row['low']:+.3g}, {row['high']:+.3g}], {row['seeds']} seeds"
        )
        if row["metric"] == SHOWN[-1]:
            ratio = seconds[row["learner"], row["arm"]] / seconds[row["learner"], "next_token"]
            also = ", the measurement of L_down's fall included" if row["arm"] in DESIGNED else ""
            lines.append(
                f"{row['learner']}: {LABELS[row['arm']]} trained {ratio:.2f} times as long as next token{also}"
            )
    return "\n".join([*lines, *acted(read_table(folder / "value.csv")), f"figures: {folder / 'figures'}"])
