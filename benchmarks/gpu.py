"""Each method's training step on a GPU: images/s, share of the card's matmul peak, peak memory, time by part.

    python -m benchmarks.gpu [--models vit_small_patch14_dinov2 ...] [--batch 32] [--precision bf16] [--device cuda]

Prints one table, and writes `benchmarks/gpu.json`, with the card's name, and the table of docs/benchmarks.md; `--table`
only the latter. `--device cpu --small` runs the same code without a card and writes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import SIDE, matmuls
from benchmarks.page import markdown, show
from benchmarks.subjects import MIDDLE, SMALL_HEADS, TRAINED, configured, forget, images_of, make, views_of
from lowdata_cpt.backbones.flops import geometry
from lowdata_cpt.core.determinism import deterministic
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.study.flops import training_flops
from lowdata_cpt.training.learner import Progress

MODELS = {"vit_small_patch14_dinov2": 224, "vit_base_patch16_224": 224, "vit_large_patch16_224": 224}
WARMUP = 4
PARTS = ("views", "forward", "backward", "update")
HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "gpu.json", HERE.parent / "docs" / "benchmarks.md"


def clock(device: torch.device) -> float:
    """Return the time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return operations per second of plain matrix products, large enough that a card does not wait for the host."""
    side, repeats = (8192, 20) if device.type == "cuda" else (SIDE, 2)
    flops = 2.0 * side**3 * repeats
    work = matmuls(flops, device, dtype, side)
    work()
    begun = clock(device)
    work()
    return flops / (clock(device) - begun)


def measure(
    method: str, model: str, size: int, batch: int, precision: str, device: torch.device, steps: int, small: bool
) -> dict[str, Any]:
    """Return a row: means over `steps` steps after those that warm up; "error" where memory did not suffice."""
    row: dict[str, Any] = {"method": method, "model": model, "size": size, "batch": batch, "precision": precision}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        config = configured(method, **(SMALL_HEADS if small else {}))
        learner = make(config, model, size, batch, device.type)
        images, index = images_of(batch, size, device.type), torch.arange(batch, device=device)
        optimiser = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-6, fused=True)
        seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        for step in range(WARMUP + steps):
            found: dict[str, Any] = {}
            at = dataclasses.replace(MIDDLE, step=MIDDLE.steps // 2 - WARMUP + step)

            def views(step: int = step, found: dict[str, Any] = found) -> None:
                found["views"] = views_of(learner, images, step)

            def forward(found: dict[str, Any] = found, at: Progress = at) -> None:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    found["loss"], _ = learner.step(found["views"], index, at)

            def backward(found: dict[str, Any] = found) -> None:
                optimiser.zero_grad(set_to_none=True)
                found["loss"].backward()

            def update(at: Progress = at) -> None:
                optimiser.step()
                learner.after_step(at)

            work: dict[str, Callable[[], None]] = dict(zip(PARTS, (views, forward, backward, update), strict=True))
            for part, do in work.items():
                begun = clock(device)
                do()
                if step >= WARMUP:
                    seconds[part].append(clock(device) - begun)
        forget(learner)
    except torch.OutOfMemoryError:
        return row | {"error": "out of memory"}
    # Means: V-pretraining's meta step comes at every fourth.
    mean = {part: statistics.fmean(values) for part, values in seconds.items()}
    total = sum(mean.values())
    peak = peak_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    flops = batch * training_flops(config, geometry(model), size, batch)
    return row | {
        "images_per_s": round(batch / total, 2),
        "share_of_peak": round(flops / total / peak, 4),
        "peak_tflops": round(peak / 1e12, 3),
        "memory_gib": round(memory, 2),
        "seconds": {part: round(value, 5) for part, value in mean.items()},
    }


def line(row: dict[str, Any]) -> str:
    """Return a row of the printed table."""
    start = f"{row['method']:14s} {row['model']:26s} {row['batch']:5d} {row['precision']:5s}"
    if "error" in row:
        return f"{start} {row['error']}"
    parts = " ".join(f"{1000 * row['seconds'][part]:9.1f}" for part in PARTS)
    share = f"{100 * row['share_of_peak']:6.1f} %"
    return f"{start} {row['images_per_s']:9.1f} {share} {row['memory_gib']:8.1f} {parts}"


def write_page(found: dict[str, Any]) -> None:
    """Put the rows of `benchmarks/gpu.json` between the page's markers."""
    head = ["method", "backbone", "images/s", "of the peak", "GiB", *(f"{part}, ms" for part in PARTS)]
    rows = [
        [row["method"], row["model"], row["error"]]
        if "error" in row
        else [
            row["method"],
            row["model"],
            f"{row['images_per_s']:.0f}",
            f"{100 * row['share_of_peak']:.1f} %",
            f"{row['memory_gib']:.1f}",
            *(f"{1000 * row['seconds'][part]:.1f}" for part in PARTS),
        ]
        for row in found["rows"]
    ]
    peaks = {row["precision"]: row["peak_tflops"] for row in found["rows"] if "error" not in row}
    batches, sizes = (", ".join(map(str, sorted({row[key] for row in found["rows"]}))) for key in ("batch", "size"))
    said = ", ".join(f"{peak:.0f} TFLOP/s in {precision}" for precision, peak in peaks.items())
    where = f"{found['card']}, torch {found['torch']}; batches of {batches} at {sizes} px, blocks not compiled"
    peak = f"peak: {said}, of a product of two large matrices"
    show(PAGE, f"benchmarks/{RESULTS.name}", f"{where}; {peak}.\n\n{markdown(head, rows)}")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print, and write the rows where they are a card's; return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--methods", nargs="+", default=list(TRAINED), choices=list(TRAINED))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=8, help="a multiple of four")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="32 px and small heads, on a tiny ViT if none is named")
    parser.add_argument("--table", action="store_true", help="only write the page's table anew")
    options = parser.parse_args(arguments)
    if options.table:
        found = read_json(RESULTS)
        write_page(found)
        return list(found["rows"])
    device = pick_device(options.device)
    if device.type == "cuda":
        deterministic(torch.get_num_threads())  # as the workflow's jobs
    models = ["vit_tiny_patch16_224"] if options.small and options.models == list(MODELS) else options.models
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}; times of parts in ms")
    print(
        f"{'method':14s} {'backbone':26s} batch type  images/s  of peak  GiB      {' '.join(f'{p:>9s}' for p in PARTS)}"
    )
    rows = []
    for model in models:
        for precision in options.precision:
            for method in options.methods:
                size = 32 if options.small else MODELS.get(model, 224)
                rows.append(
                    measure(method, model, size, options.batch, precision, device, options.steps, options.small)
                )
                print(line(rows[-1]), flush=True)
    if device.type == "cuda" and not options.small:
        found = {"card": card, "torch": torch.__version__, "rows": rows}
        write_json(RESULTS, found)
        write_page(found)
    return rows


if __name__ == "__main__":
    main()
