"""The answer in three sentences: what to do, where else, where not. And how sure that is, and what is not known.

A study of one's own images is answered by a sentence a method and task instead: its reader chose the images already.
The report, the README's block and the `headline` command print the same sentences.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lowdata_cpt.analysis import measure
from lowdata_cpt.analysis.claims import signed
from lowdata_cpt.analysis.preconditions import Cell, cell_of
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import domain_label, ordered, style_of
from lowdata_cpt.analysis.summary import LIMITS, covers_text, seeds_text
from lowdata_cpt.analysis.table import HEADLINE, METRICS, OWN_BANK, UNTRAINED, held_out, label_in_text, records
from lowdata_cpt.analysis.tables import idle_cells

Row = dict[str, Any]
LISTED = 4  # so many uses in a sentence; the others are counted


@dataclass(frozen=True)
class Answer:
    """What a practitioner reads first.

    Attributes:
        sentences: what helps most surely; where else something helps; where nothing does, or harms. Of own images, what
            each method gained at each task.
        how_sure: what the intervals cover, how many gains stand after correction, what could have been seen.
        not_known: what the study does not say.
    """

    sentences: tuple[str, ...]
    how_sure: str = ""
    not_known: str = ""


UNSCORED = Answer(
    (
        "No domain of this study has labels, so nothing was scored.",
        "The trained models are the result.",
        "Labels of a few images per class, or dense labels, would tell whether they are better than the base.",
    )
)


def answer_of(files: StudyFiles) -> Answer:
    """Return the answer of a study's folder.

    Raises:
        UserError: a file is wrong.
    """
    idle = idle_cells(files.checks)
    if not (files.folder / "scores.csv").exists():
        return UNSCORED if files.geometry.empty else Answer((*_geometry(files, idle), *UNSCORED.sentences))
    if files.own and not files.gains.empty:
        first: tuple[str, ...] = own_sentences(files, idle)
    else:
        first = sentences(files.gains, files.spent, idle, own_bank_gains(files))
    return Answer(first, how_sure(files.gains, files.main, idle), not_known(files, idle))


def own_bank_gains(files: StudyFiles) -> dict[Cell, str]:
    """Return in words, by cell, the gain over the run's start when the n images are all that has labels."""
    rows = held_out(files.main)
    rows = rows[rows["metric"] == OWN_BANK]
    found: dict[Cell, str] = {}
    for method in ordered(rows["method"]):
        step_zero = files.before.get(method, "base")
        paired = measure.gains(rows[rows["method"] == method], step_zero, files.outcomes)
        for (backbone, domain, n), part in paired.groupby(["backbone", "domain", "n"]):
            words = gain_words({"metric": "knn_accuracy", **measure.domain_gain(part).row()})
            start = "the base normalised by the domain" if step_zero != "base" else "the base"
            found[str(backbone), str(domain), method, int(str(n))] = (
                f"with only these {n} images labelled {words} over {start}"
            )
    return found


def own_sentences(files: StudyFiles, idle: Collection[Cell]) -> tuple[str, ...]:
    """Return, for a study of own images, a sentence a method and task: gain, test images, time, and whether it is told.

    `DIET-CP: +11.9 points of kNN accuracy [+8.1, +15.7] on your 72 test images, 7 minutes on one CPU core (wall time).`

    Args:
        files: of a study with gains.
        idle: cells whose method did not act.
    """
    rows, several = records(files.gains), len(files.gains[["backbone", "domain"]].drop_duplicates()) > 1
    told = []
    for method in ordered(files.gains["method"]):
        own = [row for row in rows if row["method"] == method]
        for row in sorted(own, key=lambda row: HEADLINE.index(row["metric"])):
            count = files.outcomes.count(row["backbone"], row["domain"], row["metric"])
            place = f" of {row['domain']} ({row['backbone']})" if several else ""
            time = f", {files.spent[cell]}" if (cell := cell_of(row)) in files.spent else ""
            found = f"{gain_words(row)} on your {f'{count} ' if count else ''}test images{place}{time}"
            told.append(f"{style_of(method).label}: {found}{_told(row, cell in idle)}.")
    return tuple(told)


def _geometry(files: StudyFiles, idle: Collection[Cell]) -> Iterator[str]:
    """Yield, for a study without labels, a sentence a method: its features before and after, and whether it acted."""
    for (backbone, domain), part in files.geometry.groupby(["backbone", "domain"]):
        rows = {row["method"]: row for row in records(part)}
        for method in ordered(name for name in rows if name not in UNTRAINED and "base" in rows):
            before, after = rows["base"], rows[method]
            cell = (str(backbone), str(domain), method, int(after["n"]))
            ranks = f"{before['effective_rank']:.0f} to {after['effective_rank']:.0f} of {int(after['width'])}"
            spread = f"{before['uniformity']:.2f} to {after['uniformity']:.2f}".replace("-", "−")
            acted = f"by its own log it {'did not act' if cell in idle else 'acted'}"
            known = acted if len(files.checks) else "whether it acted is not known"
            yield (
                f"{style_of(method).label}: effective rank of the features from {ranks}, uniformity from {spread} "
                f"(lower is more even), on {int(after['images'])} of your images, {files.spent[cell]}; {known}."
            )


def _told(row: Row, idle: bool) -> str:
    """Say what keeps a gain on own images from being sure; nothing where it is."""
    if idle:
        return "; by its own log it did not act, so this says nothing about the method"
    if not math.isfinite(row["ci_low"]):
        return "; one run and no outcomes of images, so chance cannot be told"
    if row["ci_low"] <= 0 <= row["ci_high"]:
        unit = METRICS[row["metric"]].gain_unit
        size = f"{row['mde']:.1f} {unit}" if math.isfinite(row["mde"]) else "any size"
        more = "seeds or test images" if "seeds" in row["interval_covers"] else "test images"
        return f"; not told from chance: only a true gain of {size} or more would be found (80 % power), so more {more}"
    return "" if "seeds" in row["interval_covers"] else "; beyond chance for this run, and another seed may differ"


def helps(row: Row) -> bool:
    """Whether an interval over seeds lies above zero; one over test images alone says nothing of another run."""
    return "seeds" in row["interval_covers"] and row["ci_low"] > 0


def harms(row: Row) -> bool:
    """Whether an interval over seeds lies below zero."""
    return "seeds" in row["interval_covers"] and row["ci_high"] < 0


def sentences(
    gains: pd.DataFrame,
    spent: Mapping[Cell, str] | None = None,
    idle: Collection[Cell] = (),
    own_bank: Mapping[Cell, str] | None = None,
) -> tuple[str, str, str]:
    """Return the three sentences.

    On each domain and metric the method with the highest lower end of its interval is named, if that is above zero.

    Args:
        gains: rows of `by_domain` against base, one n per domain.
        spent: as `StudyFiles.spent`.
        idle: cells whose method did not act; what they gain is not the method's, they are never named as help.
        own_bank: as `own_bank_gains`.
    """
    rows = records(gains)
    if not rows:
        return (
            "Nothing was trained in this study: its table holds untrained backbones only.",
            "So no gain can be told.",
            "The scores of each backbone are in the tables.",
        )
    several = gains["backbone"].nunique() > 1
    spent = spent or {}
    if not any("seeds" in row["interval_covers"] for row in rows):
        return _one_seed(rows, spent, several)
    best: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row["backbone"], row["domain"], row["metric"])
        if helps(row) and cell_of(row) not in idle and (key not in best or row["ci_low"] > best[key]["ci_low"]):
            best[key] = row
    uses: dict[Cell, list[Row]] = {}
    for row in sorted(best.values(), key=lambda row: HEADLINE.index(row["metric"])):
        uses.setdefault(cell_of(row), []).append(row)
    # The surest first: how many half-widths of its interval a gain is away from zero.
    order = sorted(
        uses.values(), key=lambda found: -max(row["mean"] / max(row["ci_high"] - row["ci_low"], 1e-9) for row in found)
    )
    told = [
        _use(found, rows, spent, several)
        + (f"; {own_bank[cell]}" if own_bank and (cell := cell_of(found[0])) in own_bank else "")
        for found in order
    ]
    worse = [row for row in rows if harms(row) and cell_of(row) not in uses]
    bare = [row for row in rows if (row["backbone"], row["domain"], row["metric"]) not in best]
    nothing = f"No method{' that acted' * bool(idle)} helps beyond chance on"
    last = _where_not(bare, worse, several, nothing if told else "")
    if not told:
        everywhere = _listed(list(dict.fromkeys(_place(row, several) for row in rows)))
        return f"{nothing} {everywhere}.", _nearest(rows, spent, several), last
    more = "; ".join(told[1 : LISTED + 1]) + f"; and {len(told) - LISTED - 1} more" * (len(told) > LISTED + 1)
    return f"{told[0]}.", f"Also: {more}." if more else "Nothing else gained beyond chance.", last


def _place(row: Row, several: bool) -> str:
    return domain_label(row["domain"]) + (f" ({row['backbone']})" if several else "")


def gain_words(row: Row) -> str:
    """Return a gain as `+13.9 points of kNN accuracy [+12.1, +15.7]`."""
    unit = "% in" if METRICS[row["metric"]].relative else "points of"
    known = math.isfinite(row["ci_low"])
    span = f" [{signed(float(row['ci_low']), 1)}, {signed(float(row['ci_high']), 1)}]" if known else ""
    return f"{signed(float(row['mean']), 1)} {unit} {label_in_text(row['metric'])}{span}"


def _use(found: list[Row], rows: list[Row], spent: Mapping[Cell, str], several: bool) -> str:
    cell = cell_of(found[0])
    time = f", {spent[cell]}" if cell in spent else ""
    gained = " and ".join(gain_words(row) for row in found)
    loses = [gain_words(row) for row in rows if cell_of(row) == cell and harms(row)]
    but = f", but {' and '.join(loses)}" if loses else ""
    return f"{cell[3]} images of {_place(found[0], several)}: {style_of(cell[2]).label}{time}, {gained}{but}"


def _where_not(bare: list[Row], worse: list[Row], several: bool, nothing: str) -> str:
    """Say where `nothing` helps, if it is given, and what harms."""
    parts = []
    if nothing and bare:
        wanted: dict[str, list[str]] = {}
        for row in bare:
            wanted.setdefault(_place(row, several), []).append(label_in_text(row["metric"]))
        listed = [f"{place} ({', '.join(dict.fromkeys(names))})" for place, names in wanted.items()]
        parts.append(f"{nothing} {_listed(listed)}")
    if worse:
        worse = sorted(worse, key=lambda row: (HEADLINE.index(row["metric"]), row["mean"]))
        listed = [f"{style_of(row['method']).label} on {_place(row, several)}, {gain_words(row)}" for row in worse]
        parts.append(f"{'harmful' if parts else 'Harmful'} beyond chance: {_listed(listed, '; ')}")
    if not parts:
        return "Every domain and measure gained from some method." if nothing else "None harms beyond chance either."
    return "; ".join(parts) + "."


def _listed(items: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return between.join(items[:LISTED]) + more


def _nearest(rows: list[Row], spent: Mapping[Cell, str], several: bool) -> str:
    """Return the largest gain that is not told from chance."""
    row = max(rows, key=lambda row: float(row["mean"]))
    if row["mean"] <= 0:
        return "No mean gain is above zero."
    return f"Largest, but not told from chance: {_use([row], [], spent, several)}."


def _one_seed(rows: list[Row], spent: Mapping[Cell, str], several: bool) -> tuple[str, str, str]:
    """Return what a single seed shows: its largest gain, that it proves nothing, its largest loss."""
    order = sorted(rows, key=lambda row: float(row["mean"]))
    least, most = order[0], order[-1]
    over = " (interval over test images only)" if most["interval_covers"] else ""
    loss = f"{style_of(least['method']).label} on {_place(least, several)}, {gain_words(least)}"
    return (
        f"One seed, largest gain: {_use([most], [], spent, several)}{over}.",
        "No method helps beyond chance: with one seed none could, and whether another seed gains too is not known.",
        f"Largest loss: {loss}." if least["mean"] < 0 else "No mean gain is below zero.",
    )


def how_sure(gains: pd.DataFrame, scores: pd.DataFrame, idle: Collection[Cell] = ()) -> str:
    """Say what the intervals cover, how many gains stand, and what effect would have been found."""
    if gains.empty:
        return ""
    rows = records(gains)
    sure = [row for row in rows if helps(row) or harms(row)]
    corrected = [row for row in rows if row["p_holm"] < 0.05]
    text = (
        f"{seeds_text(scores[scores['n'] > 0])} per domain, method and n; gains over the untouched backbone at the end "
        "of each run, on test images, positive is better, also for depth error, whose gain is in %. "
        f"{covers_text(gains)} "
    )
    if not any("seeds" in row["interval_covers"] for row in rows):
        return text + "No gain can be told from chance with one seed."
    chance = f"chance alone: about {0.05 * len(rows):.0f}"
    text += f"Of {len(rows)} gains {len(sure)} have an interval that leaves out zero ({chance}), "
    text += f"{len(corrected)} stay significant after Holm's correction over all of them."
    silent, silent_corrected = (sum(cell_of(row) in idle for row in part) for part in (sure, corrected))
    if silent:
        text += f" {silent} of the {len(sure)}, and {silent_corrected} of the {len(corrected)}, are of methods that did"
        text += " not act."
    if gains["mde"].notna().any():
        text += (
            f" Half of the comparisons would find a true gain of {gains['mde'].median():.1f} points or % (80 % power)."
        )
    return text


def not_known(files: StudyFiles, idle: Collection[Cell]) -> str:
    """Say what the study does not answer: what did not act, what was not run, what no interval covers."""
    parts = []
    silent: dict[str, list[str]] = {}
    for _, domain, method, _ in sorted(idle):
        places = silent.setdefault(method, [])
        places += [] if domain_label(domain) in places else [domain_label(domain)]
    together: dict[str, list[str]] = {}
    for method in ordered(silent):
        together.setdefault(", ".join(silent[method]), []).append(style_of(method).label)
    for where, methods in together.items():
        parts.append(
            f"{', '.join(methods)} on {where}: did not act by {'their' if len(methods) > 1 else 'its'} own log "
            "(statistics/preconditions.csv), so the numbers say nothing about the method."
        )
    left_out: dict[str, list[str]] = {}
    for name, reason in files.absent.items():
        left_out.setdefault(reason, []).append(domain_label(name))
    parts += [f"Not run: {', '.join(names)} ({reason})." for reason, names in left_out.items()]
    trained = files.scores[files.scores["n"] > 0]
    if len(trained) and trained.groupby("domain")["n"].nunique().max() < 2:
        parts.append("Whether more or fewer images change it: each domain has one n.")
    return " ".join([*parts, LIMITS])
