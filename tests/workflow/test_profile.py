"""The SLURM profile, as it comes and as docs/slurm.md says to change it, plans a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow import tiny

PROFILE: dict[str, Any] = yaml.safe_load((tiny.ROOT / "workflow/profiles/slurm/config.yaml").read_text())
BLOCKS = re.findall(r"```yaml\n(.*?)```", (tiny.ROOT / "docs/slurm.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("changes", ["", *BLOCKS], ids=["as it comes", *(block.split("\n")[0] for block in BLOCKS)])
def test_a_profile_of_the_page_plans_a_study(changes: str, tmp_path: Path) -> None:
    folder = tiny.tiny_study(tmp_path / "checkout")
    mine = tmp_path / "profile"
    mine.mkdir()
    (mine / "config.yaml").write_text(yaml.safe_dump(PROFILE | (yaml.safe_load(changes) or {} if changes else {})))
    said = tiny.run(folder, "snakemake", "--profile", str(mine), "--dry-run").stdout
    assert tiny.job_stats(said)["pretrain"] == len(tiny.STUDY["methods"])
