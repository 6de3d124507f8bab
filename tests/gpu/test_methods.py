"""On a GPU: every method's step against the CPU's, a run that is resumed, features and dense probes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.subjects import backward

from tests.gpu import steps
from tests.probes import synthetic
from tests.probes.test_dense_probes import TASKS, run

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("method", steps.METHODS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", steps.BF16)])
def test_a_step_is_the_cpus(method: str, precision: str, tolerance: float, cuda: torch.device) -> None:
    steps.same_step(method, precision, tolerance, cuda)


@pytest.mark.parametrize("method", steps.METHODS)
def test_a_resumed_run_is_bit_equal(method: str, cuda: torch.device, tmp_path: Path) -> None:
    steps.resumed_is_equal(method, cuda, tmp_path)


def test_features_are_the_cpus(cuda: torch.device, tmp_path: Path) -> None:
    steps.same_features(cuda, tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_dense_probes_score_as_on_the_cpu(task: str, cuda: torch.device, tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    on_gpu, on_cpu = (run(task, store, features, device=where).metrics["test"] for where in (cuda, torch.device("cpu")))
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)


def test_a_step_does_not_wait_for_the_device(cuda: torch.device) -> None:
    """Forward and backward of DIET-CP, DINO, GLARE and TEC, with every wait an error."""
    for method in ("diet_cp", "dino", "glare", "tec"):
        learner = steps.learner_of(method, cuda)
        views = learner.views(steps.images().to(cuda), torch.Generator().manual_seed(0))
        index = torch.arange(steps.BATCH).to(cuda)
        backward(learner, views, index)  # what is made once
        torch.cuda.set_sync_debug_mode("error")
        try:
            backward(learner, views, index)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_out_of_memory_is_one_sentence(cuda: torch.device) -> None:
    from lowdata_cpt.cli import _known_end

    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2**50, dtype=torch.uint8, device=cuda)
    assert _known_end(error.value)
