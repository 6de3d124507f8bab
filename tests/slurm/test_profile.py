"""A whole study through `snakemake --profile`, as users start it: the scores are those of a local run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.jobs.collect import differences
from tests.slurm.cluster import environment
from tests.workflow import tiny

pytestmark = pytest.mark.slurm
SCORES = "results/quick/scores.csv"


def test_a_study_through_the_profile_gives_the_local_scores(cluster: None, tmp_path: Path) -> None:
    local, remote = tiny.tiny_study(tmp_path / "local"), tiny.tiny_study(tmp_path / "slurm")
    tiny.snakemake(local)
    profile = ("snakemake", "--profile", "workflow/profiles/slurm")
    slurm = {"SLURM_CONF": environment()["SLURM_CONF"]}
    tiny.run(remote, *profile, **slurm)
    assert differences(local / SCORES, remote / SCORES) is None
    spent = pd.read_csv(remote / "results/quick/ledger.csv")
    assert set(spent.loc[spent["rule"] == "pretrain", "method"]) == {"base", "diet_cp", "mae"}
    assert "Ledger of the cluster" in (remote / "results/quick/report.html").read_text()
    said = tiny.run(
        remote, *profile, "--dry-run", "--set-resources", "pretrain:mem_mb=900", "evaluate:runtime=3", **slurm
    )
    assert "Nothing to be done" in said.stdout
