"""Does the value V foretell what one step does? On real batches: released weights, the study's images and labels.

    python benchmarks/predicted_vs_realised.py --study config/config.yaml --domain tabletop --count 40

Needs the study's data and backbone (`snakemake data_ready` and the backbone's file). Prints, and writes with --out, the
correlation between lr·V and the realised fall of the downstream loss after one step, with its n. The paper (arXiv
2601.22108) reports r ≈ .66.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from lowdata_cpt.backbones import weights
from lowdata_cpt.config.load import load
from lowdata_cpt.io import write_text
from lowdata_cpt.methods.learner import Context
from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.methods.v_pretraining.predict import predicted_vs_realised
from lowdata_cpt.stages.inputs import open_store
from lowdata_cpt.stages.train import feedback_of
from lowdata_cpt.training import sampling
from lowdata_cpt.training.loop import to_images

ARMS = (("sgd", "last_blocks", 1e-3), ("adamw", "last_blocks", 1e-5), ("sgd", "all", 1e-3), ("adamw", "all", 1e-5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--domain", default="tabletop")
    parser.add_argument("--images", type=int, default=64, help="unlabelled images to draw from")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--count", type=int, default=40, help="n, the number of pairs")
    parser.add_argument("--heads", type=int, default=100, help="head batches before the comparison")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    study = load(options.study)
    name, backbone = next(iter(study.backbones.items()))
    results = Path("results", study.study)
    store = open_store(results / "data" / options.domain / "manifest.json")
    vit = weights.open_export(results / "backbones" / name, backbone.image_size)
    pool = np.array(store.images(store.meta.pool)[: options.images])
    context = Context(
        n_images=len(pool),
        image_size=vit.image_size,
        mean=vit.mean,
        std=vit.std,
        domain_mean=vit.mean,
        domain_std=vit.std,
        steps=2,
        steps_per_epoch=1,
        batch_size=options.batch,
        seed=0,
        device=torch.device("cpu"),
        feedback=feedback_of(store),
    )
    torch.manual_seed(0)
    learner = VPretrainingLearner(vit, study.methods["v_pretraining"], context)
    learner.fit_heads(options.heads, sampling.generator(0, "heads"))
    rows = []
    for update, scope, lr in ARMS:
        predicted, realised = predicted_vs_realised(
            learner,
            to_images(pool, context.device),
            count=options.count,
            batch_size=options.batch,
            lr=lr,
            update=update,
            scope=scope,
        )
        pearson, spearman = stats.pearsonr(predicted, realised), stats.spearmanr(predicted, realised)
        low, high = pearson.confidence_interval(0.95)
        rows.append((update, scope, lr, options.count, pearson.statistic, low, high, spearman.statistic))
    columns = ["update", "moved", "lr", "n", "pearson_r", "ci_low", "ci_high", "spearman_r"]
    table = pd.DataFrame(rows, columns=columns).round(dict.fromkeys(columns[4:], 3))
    print(table.to_string(index=False))
    if options.out:
        write_text(options.out, table.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
