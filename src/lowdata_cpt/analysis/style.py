"""One visual language: a fixed colour and marker per method, sizes, and deterministic saving.

Colours are Okabe and Ito's colour-blind-safe palette: saturated for methods, grey and dashed for controls,
the parent's colour with an open marker for a variant.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lowdata_cpt.core.io import atomic_path, write_text
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.methods.registry import by_name

PAGE_WIDTH = 7.2  # inches: the text width of a two-column paper's full-width figure
INK = "#222222"
MUTED = "#767676"
GRID = "#e6e6e6"


@dataclass(frozen=True)
class MethodStyle:
    """How one method looks in every figure."""

    label: str
    color: str
    marker: str
    line: Literal["-", "--", ":"] = "-"
    filled: bool = True

    @property
    def face(self) -> str:
        """Marker face colour: white for variants."""
        return self.color if self.filled else "white"


FACTS = {name: method.facts for name, method in by_name().items()}
STYLES = {name: MethodStyle(of.label, of.color, of.marker, of.line, of.filled) for name, of in FACTS.items()}
# Rows of the main figures; open markers are variants, shown beside their parent.
MAIN = tuple(name for name, look in STYLES.items() if look.filled)
# The step 0 from which a method's own source measures its gain, where it is not `base`.
BEFORE_OF = {name: of.step_zero for name, of in FACTS.items() if of.step_zero != "base"}
BY_DOMAIN = "base_domain_norm"  # the step 0 of whatever normalises by the domain
# The control that a method is compared with at equal images seen.
CONTROL_OF = {name: of.control for name, of in FACTS.items() if of.control}
ACRONYMS = {"ema": "EMA", "lr": "LR", "tec": "TEC", "mae": "MAE", "dino": "DINO", "cls": "CLS"}
DOMAIN_LABELS = {domain.model_fields["kind"].default: domain.label for domain in DOMAINS}
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "figure.dpi": 100,
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Apply the figure settings, independent of the user's matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def step_zeros(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what each method of a study starts from, by its resolved settings: the backbone as it is, or normalised.

    A variant may normalise otherwise than the method that it is of.
    """
    return {name: BY_DOMAIN if of.get("normalisation") == "domain" else "base" for name, of in methods.items()}


def parent_of(method: str) -> str | None:
    """Return the method that `method` is a variant of (`glare` of `glare_no_regional`), if any."""
    parents = [name for name in MAIN if method.startswith(f"{name}_")]
    return max(parents, key=len) if parents else None


def style_of(method: str) -> MethodStyle:
    """Return the style of a method; a variant or unknown name gets one that depends on its name only."""
    if method in STYLES:
        return STYLES[method]
    pick = zlib.crc32(method.encode())
    parent = parent_of(method)
    if parent is None:
        color = ("#56B4E9", "#E69F00", "#882255", "#44AA99")[pick % 4]
        return MethodStyle(method.replace("_", " "), color, "pdh<"[pick % 4])
    words = method.removeprefix(f"{parent}_").split("_")
    label = f"{STYLES[parent].label}, {' '.join(ACRONYMS.get(word, word) for word in words)}"
    return MethodStyle(label, STYLES[parent].color, "hpv<>d"[pick % 6], ":", filled=False)


def short_label(method: str) -> str:
    """Return a method's label without what stands in brackets: `Base`, `DINO`."""
    return re.sub(r" \([^)]*\)", "", style_of(method).label)


def domain_label(domain: str) -> str:
    """Return the printed name of a domain."""
    if domain.startswith("medmnist_"):
        return f"{domain.removeprefix('medmnist_').capitalize()}MNIST"
    return DOMAIN_LABELS.get(domain, domain.replace("_", " "))


def ordered(methods: Iterable[str]) -> list[str]:
    """Sort methods into the fixed order: untrained, controls, methods, then variants and unknown by name."""
    rank = {name: index for index, name in enumerate(MAIN)}
    return sorted(set(methods), key=lambda name: (rank.get(name, len(rank)), name))


def is_variant(method: str) -> bool:
    """Whether a method stays out of the main figures (it is shown beside its parent instead)."""
    return method not in MAIN and parent_of(method) is not None


def without_variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the methods of the main figures."""
    return rows[~rows["method"].map(is_variant).astype(bool)]


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with `count` panels in rows of `columns`; sizes in inches, height per row."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def method_handles(methods: Iterable[str], *, line: bool = True) -> list[Line2D]:
    """Return legend handles of methods in the fixed order."""
    handles = []
    for method in ordered(methods):
        look = style_of(method)
        handles.append(
            Line2D(
                [],
                [],
                color=look.color,
                marker=look.marker,
                linestyle=look.line if line else "none",
                markerfacecolor=look.face,
                label=look.label,
            )
        )
    return handles


@dataclass(frozen=True)
class Drawing:
    """A figure with what is written beside it: its caption and the table that it draws."""

    figure: Figure
    caption: str
    source: pd.DataFrame


def nothing(reason: str) -> Drawing:
    """Return a figure that says why there is nothing to draw: a study's figures are named before its results exist."""
    figure, (axis,) = panels(1, 1, 4.0, 0.6)
    axis.set_axis_off()
    axis.text(0, 0.5, reason, va="center", color=MUTED)
    return Drawing(figure, reason, pd.DataFrame({"nothing": [reason]}))


def save(drawing: Drawing, out: Path, name: str, *, pdf: bool = False) -> list[Path]:
    """Write `<name>.png`, its caption `.md`, its source table `.csv` and on request `.pdf`; equal input, equal bytes.

    Returns:
        The paths.
    """
    figure, paths = drawing.figure, [out / f"{name}{suffix}" for suffix in (".png", ".md", ".csv")]
    # The layout is solved once and then kept. An engine, even the placeholder "none", makes each savefig draw twice.
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    with atomic_path(paths[0]) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    write_text(paths[1], drawing.caption.strip() + "\n")
    write_text(paths[2], drawing.source.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    if pdf:
        without = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
        paths.append(out / f"{name}.pdf")
        with atomic_path(paths[-1]) as temporary:
            figure.savefig(temporary, format="pdf", metadata=without)
    return paths
