"""What methods say of themselves holds together, costs no torch, and speaks of what their learners log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lowdata_cpt.core.paths import PACKAGE
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.facts import Precondition, read_deviations
from lowdata_cpt.methods.registry import METHODS, by_name, facts, untrained
from lowdata_cpt.training.learner import Progress
from tests.methods.harness import make_backbone, make_images, make_learner
from tests.methods.v_pretraining_setup import make_feedback

TRAINED = [method for method in METHODS if method.learner_path is not None]


def test_facts_need_no_torch() -> None:
    script = "import sys, lowdata_cpt.methods.registry as r; r.METHODS[3].deviations(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_references_are_methods_of_their_kind() -> None:
    assert untrained() == ("random", "base", "base_domain_norm")
    for method in METHODS:
        of = method.facts
        assert (of.role == "untrained") == (method.learner_path is None)
        assert of.control is None or facts(of.control).role == "control"
        assert facts(of.step_zero).role == "untrained"
    looks = [(of.color, of.filled) for of in (method.facts for method in METHODS)]
    assert len(set(looks)) == len(looks)


def test_order_is_untrained_controls_methods() -> None:
    roles = [method.facts.role for method in METHODS]
    assert roles == sorted(roles, key=["untrained", "control", "method"].index)


@pytest.mark.parametrize("method", TRAINED, ids=lambda method: method.__name__)
def test_folder_has_the_same_file_names(method: type[MethodConfig]) -> None:
    folder = PACKAGE / "methods" / str(method.model_fields["method"].default)
    names = {path.name for path in folder.iterdir()}
    assert {"config.py", "learner.py", "cost.py", "deviations.yaml"} <= names
    assert method.module_beside("cost") is not None
    assert method.has_diagnostics() == ("diagnostics.py" in names)


@pytest.mark.parametrize("method", TRAINED, ids=lambda method: method.__name__)
def test_preconditions_are_about_what_is_logged(method: type[MethodConfig]) -> None:
    small = {"prototypes": 32, "head_hidden": 16, "local_crops": 1, "designer_channels": 4, "every": 1}
    config = method.model_validate({key: value for key, value in small.items() if key in method.model_fields})
    vit = make_backbone("vit_tiny_patch16_224", 64)
    learner = make_learner(config, vit, feedback=make_feedback(size=64) if config.needs_feedback else None)
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    _, parts = learner.step(views, torch.arange(4), Progress(0, 10, 0, 5))
    assert method.facts.acts
    assert {asked.part for asked in method.facts.acts} <= {"loss", *parts}


def test_levels_of_preconditions() -> None:
    assert Precondition("loss", "ln n", margin=0.1).level(100, 0) == pytest.approx(4.60517 - 0.1)
    assert Precondition("loss", "ln K").level(100, 2048) == pytest.approx(7.62462)
    assert Precondition("feature", 0.95).level(100, 0) == 0.95
    assert Precondition("value", positive=True).level(100, 0) == 0.5


def test_every_trained_method_has_a_ledger() -> None:
    for name, method in by_name().items():
        rows = method.deviations()
        assert bool(rows) == (method.learner_path is not None), name
        topics = [row.topic for row in rows]
        assert len(set(topics)) == len(topics)
        assert all(text == text.strip() and "\n" not in text for row in rows for text in row)


def test_a_row_without_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deviations.yaml"
    path.write_text("- {topic: a, source: b, ours: c}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected text under topic, source, ours, why"):
        read_deviations(path)
