"""Time of ∂V/∂φ by double backward and by finite differences, side by side in one run.

    python benchmarks/value_gradient.py --model vit_small_patch16_224 --size 64 --batch 8

Both start from the same weights, crops and g_down; their calls alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time

import numpy as np
import torch

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.v_pretraining.config import VPretraining
from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.training.learner import Context, Feedback, Progress

KINDS = ("double_backward", "finite_difference")


def labelled(size: int) -> Feedback:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    return Feedback(
        images=images,
        segmentation=random.integers(0, 4, (8, size, size), dtype=np.uint8),
        depth=random.uniform(1, 5, (8, size, size)).astype(np.float32),
        classes=4,
        ignore_index=255,
        depth_range=(0.1, 10.0),
        sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
    )


def learner(kind: str, options: argparse.Namespace) -> VPretrainingLearner:
    torch.manual_seed(0)
    config = VPretraining(value_gradient=kind, last_blocks=options.last_blocks, value_batch=options.batch)
    backbone = ViT(options.model, image_size=options.size)
    context = Context(
        n_images=options.batch,
        image_size=options.size,
        mean=backbone.mean,
        std=backbone.std,
        domain_mean=backbone.mean,
        domain_std=backbone.std,
        steps=100,
        steps_per_epoch=1,
        batch_size=options.batch,
        seed=0,
        device=torch.device(options.device),
        feedback=labelled(options.size),
    )
    return VPretrainingLearner(backbone, config, context).to(options.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--last-blocks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    learners = {kind: learner(kind, options) for kind in KINDS}
    exact = learners["double_backward"]
    images = torch.rand(options.batch, 3, options.size, options.size, device=options.device)
    views = exact.views(images, torch.Generator().manual_seed(0))
    g_down, _ = exact.downstream_gradient(exact.draw("meta", torch.Generator().manual_seed(0)))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    gradients = {}
    for repeat in range(options.repeats + 1):
        for kind in KINDS:
            begun = time.perf_counter()
            _, found = learners[kind].designer_gradient(views, g_down, Progress(0, 100, 0, 100))
            gradients[kind] = torch.cat([g.flatten() for g in found])
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat:  # the first call warms up
                seconds[kind].append(time.perf_counter() - begun)
    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    apart = (gradients[KINDS[0]] - gradients[KINDS[1]]).norm() / gradients[KINDS[0]].norm()
    for kind in KINDS:
        print(f"{kind:18s} {1000 * median[kind]:8.1f} ms (median of {options.repeats})")
    print(f"double_backward / finite_difference: {median[KINDS[0]] / median[KINDS[1]]:.2f} in time")
    print(f"relative difference of the gradients in float32: {float(apart):.1e}")


if __name__ == "__main__":
    main()
