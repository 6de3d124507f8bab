"""Gets one job into SLURM's queue: calls sbatch until SLURM answers, and finds the job whose answer was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from snakemake_executor_plugin_submitit import job_submission
from snakemake_executor_plugin_submitit.job_status_query import Complaints
from snakemake_executor_plugin_submitit.job_wrapper import Job
from snakemake_executor_plugin_submitit.reattach import PreviousRun
from snakemake_executor_plugin_submitit.records import Record

STOPPING = "Snakemake is stopping"


class Submitter:
    """Calls sbatch.

    Args:
        previous: finds a job by its name.
        complaints: says once that SLURM does not answer.
        patience: seconds to wait for a controller that does not answer.
        stopped: set when Snakemake is stopping and there must be no more waiting.
    """

    def __init__(
        self, previous: PreviousRun, complaints: Complaints, patience: float, stopped: threading.Event
    ) -> None:
        self.previous = previous
        self.complaints = complaints
        self.patience = patience
        self.stopped = stopped

    def submit(self, task: Job, record: Record, parameters: Mapping[str, Any]) -> str:
        """Call sbatch until SLURM answers, and note the job's id; return the error, or "".

        Raises WorkflowError when SLURM does not answer, FullError when the job is certainly not in SLURM's queue.
        """
        deadline = time.monotonic() + self.patience
        lost = False  # an answer: the job may be in the queue, and its record is needed until that is known
        while not self.stopped.is_set():
            try:
                record.job_id = job_submission.submit(task, record.name, parameters)
            except job_submission.RefusedError as refusal:
                return f"SLURM refuses the job: {refusal}"
            except job_submission.FullError:
                if not lost:
                    raise
                deadline = time.monotonic() + self.patience
            except job_submission.UnreachableError as error:
                # The job may have reached SLURM. A second copy would find the claim taken and end at once.
                lost = True
                self.complaints.report("SLURM", str(error))
            if record.job_id is None:
                if time.monotonic() > deadline:
                    return f"SLURM did not answer for {self.patience} s"
                self.stopped.wait(5)
                record.job_id = self.previous.find_id(record)
            if record.job_id is not None:
                self.complaints.report("SLURM", "")
                return ""
        return STOPPING
