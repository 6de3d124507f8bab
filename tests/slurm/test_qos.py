"""A QOS that limits the jobs in the queue, on a cluster with accounting (`bash tools/slurm/up --accounting`)."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator

import pytest

from tests.slurm.cluster import Workflow, queue, slurm, wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture
def qos(cluster: None) -> Iterator[str]:
    """A QOS with MaxSubmitJobsPerUser = 3."""
    if "limits" not in slurm("scontrol show config").partition("AccountingStorageEnforce")[2].splitlines()[0]:
        pytest.skip("this SLURM enforces no limits: bash tools/slurm/up --accounting")
    slurm("sacctmgr -i add qos few")
    slurm("sacctmgr -i modify qos few set MaxSubmitJobsPerUser=3", check=True)
    slurm(f"sacctmgr -i modify user {getpass.getuser()} set qos=normal,few")
    wait_until(lambda: "few" in slurm("scontrol show assoc_mgr flags=qos"), 30, "the QOS in the controller")
    return "few"


@pytest.mark.parametrize("array_size", [1, 100])
def test_five_jobs_under_a_limit_of_three_all_run(workflow: Callable[..., Workflow], qos: str, array_size: int) -> None:
    options = f"--jobs 5 --submitit-array-size {array_size} --default-resources qos={qos}"
    flow = workflow("runs=5", options)
    assert flow.run("--until", "subset") == 0, flow.text
    assert len(list((flow.directory / "data").glob("run*.txt"))) == 5
    assert flow.text.count("SLURM's queue is full for us (QOSMaxSubmitJobPerUserLimit)") == 1
    lines = flow.ledger()
    assert [line["state"] for line in lines] == ["finished"] * 5
    assert len({line["job_id"] for line in lines}) == 5
    assert any("_" in line["job_id"] for line in lines) == (array_size > 1)
    wait_until(lambda: not queue(), 30, "an empty queue")
    ended = slurm(f"sacct --noheader --allocations --parsable2 --format=JobID,State,QOS --qos={qos}").splitlines()
    assert {f"{line['job_id']}|COMPLETED|{qos}" for line in lines} <= set(ended)
