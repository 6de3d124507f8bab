"""Times ours and a reference side by side: interleaved in one process, CPU seconds, medians, parity asserted.

The clock is the CPU time of this process and of the children it waited for, with one thread: a busy neighbour takes
turns, not CPU seconds (it still takes caches and clock rate, hence medians and quartiles). Wall time stands beside it.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SIDE = 768  # of the matrices whose product is the machine's peak


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: of the row.
        reference: what `other` is, in words.
        goal: smallest wanted ratio, reference's time / our time; None where both are only reported.
        ours, other: the two contenders; what they return is compared.
        parity: says in words that both did the same work, or raises AssertionError.
        reset: called before each timing, not timed.
        known: the reference's seconds, where they are a limit or follow from what `ours` returned; without `other`.
        wall: compare wall seconds, those of work in several processes at a time.
    """

    name: str
    reference: str
    goal: float | None
    ours: Callable[[], Any]
    other: Callable[[], Any]
    parity: Callable[[Any, Any], str]
    reset: Callable[[], Any] = lambda: None
    known: Callable[[Any], float] | None = None
    wall: bool = False


def cpu_seconds() -> float:
    """Return CPU seconds of this process and of its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return CPU seconds, wall seconds and result of one call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = work()
    return cpu_seconds() - cpu, time.perf_counter() - wall, result


def matmuls(
    flops: float, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, side: int = SIDE
) -> Callable[[], None]:
    """Return work of `flops` operations in products of matrices of side `side` and nothing else."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    whole, rest = divmod(flops, 2 * side**3)
    rows = round(side * rest / (2 * side**3))

    def work() -> None:
        for _ in range(int(whole)):
            a @ b
        if rows:
            a[:rows] @ b

    return work


class Flops(TorchDispatchMode):
    """Counts what matrix products cost while it is on, as PyTorch's counter does, which fails in `autograd.grad`."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add what it costs."""
        out = func(*args, **(kwargs or {}))
        if (cost := flop_registry.get(func._overloadpacket)) is not None:
            self.total += cost(*args, **(kwargs or {}), out_val=out)
        return out


def quartiles(values: list[float]) -> list[float]:
    """Return the first and third quartile."""
    if len(values) < 2:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def compare(case: Case, repeats: int) -> dict[str, Any]:
    """Time both sides `repeats` times after one untimed round, turn and turn about, and return the row.

    Raises:
        AssertionError: the two did not do the same.
    """
    parity = ""
    if case.known is None:
        case.reset()
        ours = case.ours()
        case.reset()
        parity = case.parity(ours, case.other())
    product, flops = matmuls(2.0 * 4 * SIDE**3), 2.0 * 4 * SIDE**3
    product()
    cpu: dict[str, list[float]] = {"ours": [], "reference": []}
    wall: dict[str, list[float]] = {"ours": [], "reference": []}
    peaks = []
    for repeat in range(repeats):
        sides = [("ours", case.ours)]
        if case.known is None:
            sides = [*sides, ("reference", case.other)][:: 1 if repeat % 2 == 0 else -1]
        for side, work in sides:
            case.reset()
            seconds, elapsed, made = timed(work)
            cpu[side].append(seconds)
            wall[side].append(elapsed)
        if case.known is not None:
            parity = case.parity(made, None)
            for clock in (cpu, wall):
                clock["reference"].append(case.known(made))
        peaks.append(flops / timed(product)[0])
    clock = wall if case.wall else cpu
    median = {side: statistics.median(values) for side, values in clock.items()}
    return {
        "name": case.name,
        "reference": case.reference,
        "ours_s": _rounded(median["ours"]),
        "reference_s": _rounded(median["reference"]),
        "ratio": _rounded(median["reference"] / median["ours"]),
        "goal": case.goal,
        "repeats": repeats,
        "parity": parity,
        "ours_quartiles_s": [_rounded(v) for v in quartiles(clock["ours"])],
        "reference_quartiles_s": [_rounded(v) for v in quartiles(clock["reference"])],
        "ours_wall_s": _rounded(statistics.median(wall["ours"])),
        "reference_wall_s": _rounded(statistics.median(wall["reference"])),
        "peak_gflops": _rounded(statistics.median(peaks) / 1e9),
        "load": _rounded(os.getloadavg()[0]),
    }


def _rounded(value: float) -> float:
    """Return three significant digits."""
    return round(value, 2 - math.floor(math.log10(abs(value)))) if value else 0.0


def near(ours: Any, other: Any, tolerance: float, what: str) -> str:
    """Return that two tensors or numbers are equal, relative to the larger norm.

    Raises:
        AssertionError: they are not.
    """
    a, b = (torch.as_tensor(value).detach().double().flatten() for value in (ours, other))
    apart = float((a - b).norm() / torch.maximum(a.norm(), b.norm()).clamp_min(1e-30))
    assert apart <= tolerance, f"{what}: {apart:.1e} apart, expected at most {tolerance:.0e}"
    return f"{what} equal to {apart:.0e}" if apart else f"{what} equal"
