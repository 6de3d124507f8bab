"""`lowdata-cpt init FOLDER`: look at a folder of images, say what it holds, and write a study that runs as it is."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_text
from lowdata_cpt.core.paths import REPOSITORY, expanded
from lowdata_cpt.data.decode import UndecodableError, read_bytes, read_ids, read_image
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.layouts.folders import images_in, subfolders
from lowdata_cpt.data.layouts.image_folder import FOUND, ImageFolder
from lowdata_cpt.data.layouts.label_files import NPY
from lowdata_cpt.data.layouts.layout import DEPTH_FOLDERS, MASK_FOLDERS, SPLIT_OF
from lowdata_cpt.data.layouts.listing import CLASS, Listing
from lowdata_cpt.data.layouts.survey import MOST_UNNAMED
from lowdata_cpt.data.raw import printable
from lowdata_cpt.data.store import Store
from lowdata_cpt.jobs.forecast import Assumptions, forecast
from lowdata_cpt.jobs.inputs import STORE_CACHE
from lowdata_cpt.study.load import load
from lowdata_cpt.study.paths import Paths

LOOKED_AT = 1000
"""Label files that are looked at to guess what they mean; the run reads all."""

METHODS = ("random", "glare", "tec", "mae", "dino", "v_pretraining")
FEW = 100
"""Test images below which most differences are within the noise."""


def init(folder: Path, out: Path | None = None) -> str:
    """Write the configuration of a study of `folder`, and return what to tell its owner.

    The images are decoded as the run would do it, once: their store stays in the cache for the run.

    Args:
        folder: of the images, with labels or without.
        out: the configuration to write, whose name is the study's; config/<name of the folder>.yaml if not given.

    Raises:
        UserError: the folder or its labels cannot be used, or the configuration or results of that name exist.
    """
    folder, out = expanded(folder).resolve(), expanded(out) if out else None
    name = re.sub(r"[^a-z0-9]+", "_", (out.stem if out else folder.name).lower()).strip("_")[:64] or "mine"
    out = out or REPOSITORY / "config" / f"{name}.yaml"
    for taken in (out, Path("results", name)):
        if taken.exists():
            raise UserError(f"{taken}: exists; delete it, or name another file with --out")
    settings, comments = guess(folder)
    domain = ImageFolder(root=str(folder), **settings)
    store = prepare(domain, STORE_CACHE)
    pool = len(store.rows(store.meta.pool))
    if pool < 2:
        raise UserError(f"{folder}: {pool} image to train on; expected two or more, which training tells apart")
    settings = {"root": str(folder), "sizes": [min(100, pool)], **settings}
    write_text(out, _text(name, out, settings, comments))
    try:
        study = load(out)
    except UserError:
        out.unlink()
        raise
    plan = forecast(study, Paths(Path("results", study.study)), Assumptions.of(study.resources, None, None, None))
    minutes, cores = 60 * (plan.hours(True) + plan.hours(False)), os.cpu_count() or 1
    shown = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    lines = [
        *_said(folder, domain, store),
        f"wrote {shown}: DIET-CP at its recipe on {min(100, pool)} of {pool} images, and what it started from",
        f"forecast: {max(1, minutes):.0f} minutes of one core (an estimate; cells run side by side on several)",
        f"run it: snakemake --cores {cores} --configfile {shown}",
    ]
    return "\n".join(lines)


def guess(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return settings of `ImageFolder` that fit a folder, and a comment for each that was guessed.

    Raises:
        UserError: it is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one of images")
    settings: dict[str, Any] = {"resolution": 256}
    comments = {"resolution": "side in pixels of the decoded squares"}
    for key, names, meaning in (("masks", MASK_FOLDERS, _mask_settings), ("depth", DEPTH_FOLDERS, _depth_settings)):
        if (found := _label_folder(folder, names)) is not None:
            images, labels = found
            guessed = meaning(_files(labels)[:LOOKED_AT])
            if guessed is not None:
                settings[key] = _where(images, labels) | guessed[0]
                comments[key] = guessed[1]
    for path in sorted(folder.glob("*.csv")):
        if "labels" not in settings and not_labels(path) is None:
            settings["labels"] = path.name
            comments["labels"] = "a CSV file with the columns file,class"
    return settings, comments


def not_labels(path: Path) -> str | None:
    """Return why a CSV file is not taken for the classes of the images, None where it can be."""
    try:
        columns = Listing(path).columns
    except UserError as error:
        return str(error)
    return None if CLASS in columns else f"{path}: the columns are {list(columns)}; expected file,class"


def _label_folder(folder: Path, names: Sequence[str]) -> tuple[Path, Path] | None:
    """Return the folders of images and of labels, of the first split where there are splits."""
    splits = [path for path in subfolders(folder) if path.name.lower() in SPLIT_OF]
    for holder in (folder, *splits):
        inside = {path.name.lower(): path for path in subfolders(holder)}
        images = inside.get("images", holder)
        loose = any(path.parent == images for path in images_in(images).images)
        for name in names:
            if name in inside and (images != holder or loose) and _files(inside[name]):
                return images, inside[name]
    return None


def _files(folder: Path) -> list[Path]:
    found = images_in(folder)
    return sorted([*found.images, *(path for path in found.others if path.suffix.lower() == NPY)])


def _where(images: Path, labels: Path) -> dict[str, str]:
    """Return the label folder's name, and what the files' names have after the images'."""
    names = [path.stem for path in images_in(images).images if not path.is_relative_to(labels)]
    stems = {path.stem for path in _files(labels)}
    where = {"folder": labels.name}
    if not stems & set(names) and names:
        suffixes = Counter(stem.removeprefix(names[0]) for stem in stems if stem.startswith(names[0]))
        if suffixes:
            where["suffix"] = min(suffixes, key=len)
    return where


def _mask_settings(paths: list[Path]) -> tuple[dict[str, Any], str] | None:
    values, colours = Counter[int](), Counter[tuple[int, int, int]]()
    for path in paths:
        try:
            data = read_bytes(path)
            try:
                values.update(np.unique(read_ids(data)).tolist())
            except UserError:
                pixels = np.asarray(read_image(data, orient=False)).reshape(-1, 3)
                if (pixels == pixels[:, :1]).all():
                    values.update(np.unique(pixels[:, 0]).tolist())
                else:
                    colours.update({(int(r), int(g), int(b)) for r, g, b in np.unique(pixels, axis=0)})
        except UndecodableError:
            continue
    if max(len(values), len(colours)) > MOST_UNNAMED or (values and colours) or len(values) + len(colours) < 2:
        return None
    if colours:
        named = {f"class_{i}": list(colour) for i, colour in enumerate(sorted(colours))}
        return {"classes": named}, "name the colours; those that should not count go into `ignore: [[r, g, b]]`"
    if set(values) == {0, 255}:
        return {"classes": ["background", "foreground"]}, "two values, 0 and 255; name them"
    ignore = {"ignore": [255]} if 255 in values else {}
    left = [value for value in sorted(values) if value != 255]
    classes = {f"class_{value}": value for value in left}
    return (
        {"classes": classes} | ignore,
        "name the values; 255 is taken as not labelled" if ignore else "name the values",
    )


def _depth_settings(paths: list[Path]) -> tuple[dict[str, Any], str] | None:
    for path in paths:
        try:
            if path.suffix.lower() == NPY:
                kind = np.load(path, mmap_mode="r", allow_pickle=False).dtype.kind
            else:
                with Image.open(path) as image:
                    kind = "f" if image.mode == "F" else "i"
        except (OSError, ValueError):
            continue
        if kind == "f":
            return {}, "floats, taken as metres"
        return {"scale": 0.001}, "whole numbers, taken as millimetres: check it"
    return None


def _text(name: str, out: Path, settings: dict[str, Any], comments: dict[str, str]) -> str:
    base = REPOSITORY / "config" / "base.yaml"
    extends = base.name if out.resolve().parent == base.parent.resolve() else str(base)
    lines = [
        f"# Written by `lowdata-cpt init {settings['root']}`; all keys: docs/data/own-images.md",
        f"extends: {extends} # a ViT-S/14 that ships in a package, and the methods' recipes",
        f'study: "{name}"',
        "domains:",
        "  imagefolder:",
    ]
    for key, value in settings.items():
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True)
        text = text.removesuffix("...\n").strip()  # which ends a plain value that is a whole document
        lines.append(f"    {key}: {text}" + (f" # {comments[key]}" if key in comments else ""))
    if "masks" in settings or "depth" in settings:
        lines.append("    # group: {separator: _} # frames walk3_0007.png and walk3_0008.png on one side of the split")
    kept = ", ".join(f"{method}: null" for method in METHODS)
    lines.append(f"methods: {{{kept}}} # leaves DIET-CP and its references; delete an entry to run that method too")
    return "\n".join(lines) + "\n"


def _said(folder: Path, domain: ImageFolder, store: Store) -> Iterator[str]:
    """Yield what was found: images and their sizes, labels, splits, and what cannot be used."""
    sizes = set(_sizes(images_in(folder).images))
    if sizes:
        (small, large), more = (min(sizes), max(sizes)), len(sizes) > 1
        of = f"{small[0]}×{small[1]}" + (f" to {large[0]}×{large[1]}" if more else "") + " pixels"
        yield f"{folder}: {domain.count()} images, {of}"
    for path in sorted(folder.glob("*.csv")):
        if path.name != domain.labels:
            why = not_labels(path) or f"{path}: {domain.labels} was taken before it"
            yield f"no classes are read from {printable(why)}"
    counts = {name: len(store.rows(name)) for name in store.meta.sets}
    if store.meta.tasks:
        yield "splits: " + ", ".join(f"{split} {counts[split]}" for split in ("train", "val", "test"))
        if counts["test"] < FEW:
            yield f"{counts['test']} test images are few: only large differences can be told from chance"
    else:
        yield "no labels: the images are trained on and not scored; two or more subfolders would be classes"
    for task, info in store.meta.tasks.items():
        classes = f", {len(info.classes)} classes ({', '.join(info.classes[:8])})" if info.classes else ""
        yield f"{task}{classes}"
    if (store.root / FOUND).exists():
        yield (store.root / FOUND).read_text(encoding="utf-8").strip()
    with (store.root / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        listed = [(row["id"], row["reason"]) for row in csv.DictReader(stream)]
    kinds: dict[str, list[str]] = {}
    for name, reason in listed:
        kinds.setdefault("left out: an exact copy" if "same bytes" in reason else reason, []).append(name)
    for reason, names in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        yield f"{len(names)} × {reason} (for one, {names[0]})"


def _sizes(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            with Image.open(path) as image:
                yield image.size
        except Exception:  # decoding lists it
            continue
