"""What the parts of a study must be to each other, and what must be on this machine before it starts.

Fields look after their own ranges. Every function returns all it finds: key, what was given, what is expected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from lowdata_cpt.backbones.flops import geometry
from lowdata_cpt.core.errors import UserError, several
from lowdata_cpt.core.paths import expanded
from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.tabletop.domain import Tabletop
from lowdata_cpt.study.config import Backbone, Block, Study
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.paths import Paths

DENSE = {"segmentation", "depth"}
MOST_SCENES = 1_000_000
EMBEDDED_MODEL = "vit_small_patch14_dinov2"  # what the weights `embedded:imgfocus` are of
HUB_SECONDS = 5.0


def inconsistencies(study: Study) -> list[str]:
    """Return where a study contradicts itself; nothing is read but timm's sources."""
    # What follows looks names up, so they have to be right first.
    names = [*_of_study(study), *_of_blocks(study)]
    return list(dict.fromkeys(names or [*_of_domains(study), *_of_cells(study)]))


def _of_study(study: Study) -> Iterator[str]:
    for name in study.methods:
        try:
            study.training_of(name)
        except ValidationError as error:
            said = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
            yield f"methods.{name}.training: {said}"
    if any(method.learner_path for method in study.methods.values()):
        empty = [name for name, domain in study.domains.items() if not domain.sizes]
        if empty:
            yield f"domains {empty} have no `sizes`, but there are methods to train"
    if "base" not in study.methods:
        yield "methods must have `base`: every gain is measured from it"
    for domain, methods in study.diagnostics.items():
        if domain not in study.domains or not set(methods) <= set(study.methods):
            yield f"diagnostics.{domain}: {list(methods)} must be of `domains` and `methods`"
        elif silent := [name for name in methods if not study.methods[name].has_diagnostics()]:
            yield f"diagnostics.{domain}: methods {silent} have nothing to show of their inside"
    if unknown := [name for name in study.probes.image_sizes if name not in study.domains]:
        yield f"probes.image_sizes: {unknown} are not in `domains`; there are {list(study.domains)}"


def _of_blocks(study: Study) -> Iterator[str]:
    """Hold the blocks of the grid to the names, seeds and sizes that the study has, and to having `base`."""
    if study.grid is None:
        return
    if not study.grid:
        yield "grid has no block; leave it out for the full product"
        return
    found = [line for i, block in enumerate(study.grid) for line in _of_block(study, f"grid.{i}", block)]
    yield from found
    if found:
        return
    for kind in ("backbones", "domains", "methods"):
        blocks = [getattr(block, kind) for block in study.grid]
        used = set(getattr(study, kind)) if None in blocks else {name for block in blocks for name in block}
        if idle := [name for name in getattr(study, kind) if name not in used]:
            yield f"{kind} {idle} are in no block of `grid`"


def _of_block(study: Study, key: str, block: Block) -> Iterator[str]:
    for kind in ("backbones", "domains", "methods"):
        known = list(getattr(study, kind))
        if unknown := [name for name in getattr(block, kind) or () if name not in known]:
            yield f"{key}.{kind}: {unknown} are not in `{kind}`; there are {known}"
    if strange := sorted(set(block.seeds or ()) - set(study.seeds)):
        yield f"{key}.seeds: {strange} are not in `seeds`; there are {list(study.seeds)}"
    if block.methods is not None and set(block.methods) <= set(study.methods) and "base" not in block.methods:
        yield f"{key}.methods must have `base`: every gain is measured from it"
    domains = {name: study.domains[name].sizes for name in block.domains or study.domains if name in study.domains}
    if block.sizes is None or not domains:
        return
    if lacking := [f"domain {n!r} has none of them, but {s}" for n, s in domains.items() if not {*block.sizes} & {*s}]:
        yield f"{key}.sizes {list(block.sizes)}: {'; '.join(lacking)}"
    elif unknown_sizes := sorted(set(block.sizes) - {n for sizes in domains.values() for n in sizes}):
        yield f"{key}.sizes: none of the block's domains has {unknown_sizes} in its `sizes`"


def _of_domains(study: Study) -> Iterator[str]:
    """Hold the sizes to the pools whose size the configuration limits."""
    for name, domain in study.domains.items():
        most = domain.max_images if isinstance(domain, FolderDomain) else None
        if most is not None and max(domain.sizes, default=0) > most:
            yield f"domains.{name}.sizes ask for {max(domain.sizes)} images; max_images is {most}"
        if isinstance(domain, Tabletop):
            scenes = domain.pool + domain.train + domain.val + domain.test
            if scenes > MOST_SCENES:
                yield f"domains.{name}: pool, train, val and test are {scenes} scenes; expected at most {MOST_SCENES}"


def _of_cells(study: Study) -> Iterator[str]:
    """Hold what meets in a cell to each other: method and backbone, probe images and patches, feedback and labels."""
    grid = list(cells(study))
    lone = {(c.domain, c.method) for c in grid if c.n == 1 and study.methods[c.method].method == "diet_cp"}
    for domain, method in sorted(lone):
        yield f"domains.{domain}.sizes has 1, but {method} learns to tell images apart; expected numbers from 2"
    met = {(cell.domain, cell.method) for cell in grid}
    for domain, shown in study.diagnostics.items():
        if absent := [method for method in shown if (domain, method) not in met]:
            yield f"diagnostics.{domain}: no block of `grid` has methods {absent} on that domain"
    for name, backbone in study.backbones.items():
        if backbone.weights == "embedded:imgfocus" and geometry(backbone.model) != geometry(EMBEDDED_MODEL):
            yield f"backbones.{name}.weights: embedded:imgfocus is a {EMBEDDED_MODEL}; model is {backbone.model}"
    for block in study.grid or (Block(),):
        methods, domains = block.methods or tuple(study.methods), block.domains or tuple(study.domains)
        for name in block.backbones or study.backbones:
            shape, side = geometry(study.backbones[name].model), study.backbones[name].image_size
            for method in methods:
                for line in study.methods[method].misfits(shape.width, shape.depth, side // shape.patch):
                    yield f"methods.{method}.{line} (backbone {name})"
            for domain in domains:
                size = study.probes.image_sizes.get(domain)
                if size and size % shape.patch:
                    yield (
                        f"probes.image_sizes.{domain}: {size} is not a multiple of {name}'s patch size {shape.patch}"
                    )
        needy = [name for name in methods if study.methods[name].needs_feedback]
        blind = [name for name in domains if not DENSE & set(study.domains[name].labelled)]
        if needy and blind:
            yield f"methods {needy} need segmentation or depth labels, which domains {blind} lack"


def absences(study: Study, results: Path | None = None) -> list[str]:
    """Return what a study needs and this machine does not have; what a run has fetched or decoded already is there.

    Args:
        study: the study.
        results: its folder, results/<study> if not given.
    """
    paths = Paths(results or Path("results", study.study))
    found = [
        f"backbones.{name}.weights: {reason}"
        for name, backbone in study.backbones.items()
        if not (paths.backbone(name) / "model.safetensors").exists() and (reason := _no_weights(backbone))
    ]
    for name, domain in study.domains.items():
        if not isinstance(domain, FolderDomain):
            continue
        try:
            domain.folder.exists() and domain.absent()
        except OSError as error:  # a name that no file system takes, or a folder that may not be looked into
            found.append(f"domains.{name}.root: {str(domain.folder)[:60]}… cannot be read ({error.strerror})")
            continue
        decoded = paths.manifest(name).exists()
        if domain.folder.exists() and not domain.folder.is_dir():
            found += [] if decoded else [f"domains.{name}.root: {domain.folder} is a file; expected a folder"]
        elif reason := domain.absent():
            if study.absent_data == "stop" and not decoded:
                found.append(
                    f"domains.{name}.root: {reason.partition(';')[0]}; expected what docs/data/cards.md says, or "
                    "`absent_data: skip` to leave such domains out"
                )
        elif isinstance(domain, ImageFolder) and domain.sizes:
            found += _beyond_the_pool(name, domain)
    return found


def _beyond_the_pool(name: str, domain: ImageFolder) -> Iterator[str]:
    """Hold the sizes to what is left to train on when validation and test images are split off."""
    try:
        pool = domain.pool_size()
    except UserError as error:
        yield f"domains.{name}: {str(error).removeprefix(f'domain {domain.kind!r}: ')}"
        return
    if max(domain.sizes) > pool:
        count = domain.count()
        rest = f", {pool} of them to train on" if count != pool else ""
        yield f"domains.{name}.sizes ask for {max(domain.sizes)} images; {domain.folder} has {count}{rest}"


def _no_weights(backbone: Backbone) -> str | None:
    """Return why a backbone's weights cannot be had, None where they can as far as a look tells."""
    kind, _, place = backbone.weights.partition(":")
    if kind == "file":
        path = expanded(place)
        try:
            there = path.is_file()
        except OSError as error:  # a name that no file system takes
            return f"{str(path)[:60]}… cannot be read ({error.strerror}); expected timm's state dict as safetensors"
        if not there:
            return f"{path} is no file; expected timm's state dict as safetensors"
        try:
            with safe_open(path, framework="numpy"):
                return None
        except (SafetensorError, OSError):
            return (
                f"{path} is not safetensors; expected timm's state dict, which whoever has it in another format writes "
                "by `safetensors.torch.save_file`"
            )
    tag = "" if "." in backbone.model else ".*"  # without one any that the cache has
    if kind == "timm" and not in_hub_cache(f"models--*--{backbone.model}{tag}") and (reason := no_hub()):
        return (
            f"{backbone.model} would have to come from the model hub, and {reason}; expected a network, "
            "`file:<safetensors>`, or `embedded:imgfocus`"
        )
    return None


def in_hub_cache(folders: str) -> bool:
    """Say whether the hub's cache holds weights in `folders` (the hub's rules: HF_HUB_CACHE, HF_HOME, ~/.cache)."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    return any(path.stat().st_size for path in cache.glob(f"{folders}/snapshots/*/*model*"))


def no_hub() -> str | None:
    """Return why the model hub cannot be asked, None where it answers, whatever it says."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    failure = [f"{address} does not answer within {HUB_SECONDS:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
                failure.clear()
        except urllib.error.HTTPError:
            failure.clear()
        except (OSError, ValueError) as error:
            failure[0] = f"{address} cannot be reached ({getattr(error, 'reason', None) or error})"

    # A thread, because no time-out ends the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return failure[0] if failure else None


HOLDERS = Path(".snakemake/holders")


def check_machine(study: Study, where: str = "config", results: Path | None = None) -> None:
    """Refuse a study whose weights or images are not here.

    Args:
        study: the study.
        where: how messages call it.
        results: its folder, results/<study> if not given.

    Raises:
        UserError: one message with a line for everything that is missing.
    """
    try:
        found = absences(study, results)
    except UserError as error:
        found = [str(error)]
    if found:
        raise several(where, found)


_holding: list[int] = []
"""Handles that keep this process the holder of its study, until it ends, however it ends."""


def hold(study: str) -> None:
    """Note that this process runs a study, for a second one that would; a kill ends the note too."""
    place = HOLDERS / study
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):  # another holds it: then Snakemake refuses, unless they share no file
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}".encode())
        _holding.append(handle)


def holder(study: str) -> str | None:
    """Return which living process runs a study in this folder; None if there is none."""
    try:
        with (HOLDERS / study).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (HOLDERS / study).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return None
