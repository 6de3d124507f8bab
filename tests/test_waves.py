"""The parts of the embedded study grow: what one part has computed belongs to the next."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path

import yaml

from lowdata_cpt.cells import cells
from lowdata_cpt.config.load import validate

ROOT = Path(__file__).resolve().parents[1]


def test_each_part_holds_the_one_before() -> None:
    waves = runpy.run_path(str(ROOT / "tools/waves.py"))
    study = yaml.safe_load((ROOT / "config/embedded.yaml").read_text())
    numbers = range(1, len(waves["ADDED"]) + 1)
    parts = [validate(waves["part_of"](study, waves["sizes_of"](n)), "embedded.yaml") for n in numbers]
    grids = [set(cells(part)) for part in parts]
    assert [len(grid) for grid in grids] == [60, 81, 102, 126, 153, 180, 204, 237, 270, 342]
    assert grids[-1] == set(cells(validate(study, "embedded.yaml")))
    for (before, small), (after, large) in pairwise(zip(parts, grids, strict=True)):
        assert small < large
        assert before.methods == after.methods
        for name, domain in before.domains.items():
            assert domain.model_dump(exclude={"sizes"}) == after.domains[name].model_dump(exclude={"sizes"})
