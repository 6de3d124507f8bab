"""Time and memory of a training from n = 100 to 1000 images at equal epochs.

python -m benchmarks.scaling N          peak memory of a training over N images, in MiB
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import torch

from benchmarks.harness import Case
from benchmarks.subjects import configured, make, one_epoch, pixels

MODEL, SIZE, BATCH = "vit_tiny_patch16_224", 32, 25


def trained(n: int, times: int = 1) -> list[int]:
    """Train DIET-CP over `n` images for one epoch, `times` times over; return the images seen by each."""
    seen = []
    for _ in range(times):
        config = configured("diet_cp")
        learner = make(config, MODEL, SIZE, BATCH, n_images=n)
        with tempfile.TemporaryDirectory() as folder:
            run = one_epoch(learner, pixels(n, SIZE), config, BATCH, folder)
            for step in range(run.steps):
                run.take_step(step)
            seen.append(run.training.images_after(run.steps, n))
    return seen


def peak_mib(n: int) -> float:
    """Return the peak memory of a process that trains over `n` images."""
    command = [sys.executable, "-m", "benchmarks.scaling", str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cases(small: bool) -> Iterator[Case]:
    """Yield the row."""
    few, many = (20, 200) if small else (100, 1000)

    def parity(ours: list[int], other: list[int]) -> str:
        assert sum(ours) == sum(other), "not as many images seen"
        of_few, of_many = peak_mib(few), peak_mib(many)
        assert of_many <= 1.1 * of_few, f"memory grows from {of_few:.0f} to {of_many:.0f} MiB"
        return f"as many images seen; peak memory {of_few:.0f} MiB at n = {few}, {of_many:.0f} MiB at n = {many}"

    yield Case(
        f"training over {many} images, one epoch",
        f"ten trainings over {few} images, one epoch",
        round(10 / 10.5, 3),
        lambda: trained(many),
        lambda: trained(few, 10),
        parity,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained(int(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
