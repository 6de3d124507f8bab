"""The profile for SLURM follows the unfinished trainings where they lie: without progress a job is not requeued."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from lowdata_cpt.language import plan
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
RESUMES = {
    "pretrain": (Paths, Cell("vit", "nyuv2", "dino", 100, 2)),
    "language_base": (plan.Paths, plan.base_of("bytes")),
    "language_continue": (plan.Paths, plan.Cell("bytes", "next_token", 3)),
}


def test_every_rule_that_resumes_is_followed() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert rules.count("--checkpoint-seconds") == len(RESUMES)


@pytest.mark.parametrize("rule", RESUMES)
def test_the_progress_that_is_watched_is_the_trainings(rule: str) -> None:
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    pattern = profile["set-resources"][rule]["slurm_progress"].strip().removeprefix("f'").removesuffix("'")
    paths, cell = RESUMES[rule]
    watched = pattern.format(wildcards=SimpleNamespace(**cell._asdict()))
    state = paths("results/embedded").checkpoints(cell) / "0123456789ab" / "progress.json"
    assert fnmatch(state.as_posix(), watched.replace("**", "*"))
