"""The tests in this folder need the real one-machine SLURM (`make slurm-up`)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.slurm.cluster import Workflow, environment, slurm, stopped_at_end

ARGUMENTS = (
    "--executor submitit --jobs 4 --cores 2 --seconds-between-status-checks 2 --latency-wait 8 --rerun-incomplete"
)


@pytest.fixture(scope="session")
def cluster() -> None:
    try:
        answer = subprocess.run(["scontrol", "ping"], env=environment(), capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        pytest.skip("no SLURM here: make slurm-up")
    if "is UP" not in answer.stdout:
        pytest.skip("SLURM is not running: make slurm-up")


@pytest.fixture
def submit_limit(cluster: None) -> Iterator[Path]:
    """The file whose number limits the jobs in the queue, through SLURM's job_submit plugin."""
    if not re.search(r"JobSubmitPlugins *= lua", slurm("scontrol show config")):
        pytest.skip("this SLURM has no job_submit plugin lua")
    path = Path(environment()["SLURM_CONF"]).parent / "submit_limit"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def workflow(cluster: None, tmp_path: Path) -> Iterator[Callable[[str], Workflow]]:
    """Make a toy workflow with the given `--config` values; everything is stopped at the end."""
    with ExitStack() as stack:

        def make(config: str, more: str = "") -> Workflow:
            return stack.enter_context(
                stopped_at_end(Workflow(tmp_path / "toy", f"{ARGUMENTS} {more} --config {config}"))
            )

        yield make
