"""What a change re-runs: exactly what depends on it, counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lowdata_cpt.dev.fixtures import camvid
from tests.workflow import tiny

pytestmark = pytest.mark.slow
PRESENTED = {"examples": 1, "collect": 1, "statistics": 1, "claims": 1, "figure": 8, "tables": 1, "report": 1}
ONE_METHOD = {"pretrain": 1, "evaluate": 1} | PRESENTED


def test_nothing_to_do_after_a_run(study: Path) -> None:
    assert tiny.planned(study) == {}


def test_one_methods_configuration(study: Path) -> None:
    tiny.write_config(study, methods={"diet_cp": {"label_smoothing": 0.1}})
    assert tiny.planned(study) == ONE_METHOD
    said = tiny.snakemake(study, "--dry-run").stdout
    assert "pretrain diet_cp" in said
    assert "pretrain mae" not in said


def test_one_methods_code(study: Path, tmp_path: Path) -> None:
    package = tiny.edited_package(tmp_path / "src", "methods/diet_cp/learner.py", "class ", "CHANGED = 1\n\n\nclass ")
    assert tiny.planned(study, PYTHONPATH=package) == ONE_METHOD
    assert tiny.planned(study) == {}


def test_a_comment_re_runs_nothing(study: Path, tmp_path: Path) -> None:
    package = tiny.edited_package(tmp_path / "src", "methods/diet_cp/learner.py", "class ", "# why\nclass ")
    assert tiny.planned(study, PYTHONPATH=package) == {}


def test_one_probes_settings_train_nothing(study: Path) -> None:
    tiny.write_config(study, probes={"segmentation": {"steps": 3}})
    assert tiny.planned(study) == {"evaluate": 3} | PRESENTED


def test_another_profiles_resources_re_run_nothing(study: Path) -> None:
    resources = ["pretrain:mem_mb=9000", "pretrain:gpu=1", "pretrain:runtime=7", "evaluate:mem_mb=900"]
    defaults = ["--default-resources", "mem_mb=500", "slurm_partition='other'"]
    assert tiny.planned(study, "--set-resources", *resources, *defaults, "--set-threads", "pretrain=2") == {}


def test_resources_re_run_nothing(study: Path) -> None:
    tiny.write_config(study, resources={"mem_mb": 3000, "threads": 2})
    assert tiny.planned(study) == {}


def test_a_new_method_leaves_the_others_alone(study: Path) -> None:
    tiny.write_config(study, methods={"tec": {}})
    assert tiny.planned(study) == ONE_METHOD


def test_a_clone_without_records_takes_the_configuration_it_is_given(study: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    tiny.git(tmp_path, "clone", "--quiet", str(study), str(clone))
    camvid(clone / "data/camvid")
    tiny.write_config(clone, seeds=[0, 1])
    assert tiny.planned(clone)["collect"] == 1


def test_replaced_raw_images_re_run_what_depends_on_them(study: Path) -> None:
    """The same files with other content, and back again: content decides, not time."""
    path = next((study / "data/camvid").glob("train/*.png"))
    before = path.read_bytes()
    Image.new("RGB", Image.open(path).size, (1, 2, 3)).save(path)
    found = tiny.planned(study)
    assert found["data"] == 1
    assert found["pretrain"] == 3
    path.write_bytes(before)
    assert "data" not in tiny.planned(study)
