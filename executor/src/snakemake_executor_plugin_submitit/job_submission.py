"""Turns Snakemake's resources into sbatch flags and submits a job to SLURM through submitit."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit import partitions, processes
from snakemake_executor_plugin_submitit.job_wrapper import Job
from snakemake_executor_plugin_submitit.records import (
    STATUS,
    Record,
    Records,
    job_name,
    key_of,
    log_name,
    new_uid,
    signature_of,
    single_jobs,
)

# Resources with a meaning of their own; every other `slurm_<flag>` becomes sbatch's `--<flag>`.
RESERVED = frozenset({"slurm_partition", "slurm_account", "slurm_extra", "slurm_progress"})
# Names shared with the published slurm plugin that are also names of sbatch flags.
SAME_NAME = ("constraint", "gres", "qos", "reservation")
# Flags of the plugin itself: without them it would not find its jobs, or not understand sbatch's answer.
OWN = frozenset({"job-name", "array", "cluster", "clusters", "parsable", "quiet", "test-only", "wait", "wrap"})
# The user's defaults that would override what each batch script says.
OVERRIDING = ("JOB_NAME", "ARRAY_INX", "OUTPUT", "OPEN_MODE", "WAIT", "CLUSTERS")
TRANSIENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "Resource temporarily unavailable",
    "Protocol authentication error",
)
# The queue has no room for another job of this user: MaxSubmitJobs, GrpSubmitJobs; MaxJobCount.
FULL = re.compile(r"\b(QOS|Assoc)\w*Submit\w*Limit\b|temporarily unable to accept job", re.IGNORECASE)
# Old versions of SLURM give this text without a reason, for a job that is too large or too long as well.
MAYBE_FULL = re.compile(r"job submit limit", re.IGNORECASE)
REASON = re.compile(r"\b(QOS|Assoc)\w*Limit\b")


_SUBMITTING = threading.Lock()


class FullError(Exception):
    """SLURM takes no further job of this user for now; it did not take this one.

    Attributes:
        certain: False if the job itself may be against the rules: then it must not wait for ever.
    """

    def __init__(self, message: str, certain: bool = True) -> None:
        super().__init__(message)
        self.certain = certain


class UnreachableError(Exception):
    """SLURM's controller could not be reached; the same submission may succeed later."""


class RefusedError(Exception):
    """SLURM rejected the job; the message is sbatch's own."""


def _number(resources: Mapping[str, Any], name: str) -> int | None:
    """Return a resource as a whole number ≥ 0, None if it is not given; raises WorkflowError for anything else."""
    value = resources.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]+(\.0+)?", str(value)):
        raise WorkflowError(f"resource {name} must be a whole number, not {value!r}")
    return int(float(value))


def cpus_of(resources: Mapping[str, Any], threads: int) -> int:
    """Return the total number of CPUs of all tasks; raises WorkflowError as `sbatch_parameters` does."""
    tasks = _number(resources, "tasks") or _number(resources, "nodes") or 1
    return tasks * (_number(resources, "cpus_per_task") or max(1, threads))


def gpus_of(resources: Mapping[str, Any]) -> int:
    """Return the total number of GPUs: `gpu`, or what a `gres` such as `gpu:a100:2` requests per node.

    Raises WorkflowError as `sbatch_parameters` does.
    """
    if gpus := _number(resources, "gpu"):
        return gpus
    gres = str(resources.get("gres") or resources.get("slurm_gres") or "")
    return _gres_gpus(gres) * (_number(resources, "nodes") or 1)


def _gres_gpus(gres: str) -> int:
    """Return the GPUs per node in a `gres` such as `gpu:a100:2`."""
    per_node = 0
    for part in gres.split(","):
        name, *rest = part.split(":")
        if name == "gpu":
            per_node += int(rest[-1]) if rest and rest[-1].isdecimal() else 1
    return per_node


def _account() -> str | None:
    """Return the account named by the environment: SBATCH_ACCOUNT, SLURM_ACCOUNT, that of a surrounding job."""
    names = ("SBATCH_ACCOUNT", "SLURM_ACCOUNT", "SLURM_JOB_ACCOUNT")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def sbatch_parameters(
    resources: Mapping[str, Any],
    threads: int,
    signal_delay: int,
    setup: str | None = None,
    table: list[partitions.Partition] | None = None,
) -> dict[str, Any]:
    """Return submitit's parameters for a job's resources.

    Args:
        resources: Snakemake's, named as in the published slurm plugin; memory in MB, runtime in minutes.
        threads: CPUs per task.
        signal_delay: seconds between the warning signal and the time limit.
        setup: shell lines to run in the batch script before the job, such as `module load cuda`.
        table: the partitions to choose from for a job that names none.

    Raises:
        WorkflowError: a resource has an invalid value, or no partition takes the job.
    """
    extra: dict[str, Any] = {"requeue": True}
    for name in SAME_NAME:
        if resources.get(name):
            extra[name] = resources[name]
    for name, value in resources.items():
        if name.startswith("slurm_") and name not in RESERVED and value not in (None, "", False):
            extra[name.removeprefix("slurm_").replace("_", "-")] = value
    try:
        words = shlex.split(str(resources.get("slurm_extra") or ""))
    except ValueError as error:
        raise WorkflowError(f"slurm_extra: {resources['slurm_extra']!r} is no shell words ({error})") from None
    for word in words:
        flag, has_value, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise WorkflowError(f"slurm_extra takes words such as --flag=value, not {word!r}")
        extra[flag] = value if has_value else True
    if own := sorted(OWN & extra.keys()):
        raise WorkflowError(
            f"sbatch's --{own[0]} cannot be given by slurm_extra or slurm_…: the executor needs it for itself"
            + ("; use submitit-clusters" if own[0].startswith("cluster") else "")
        )
    if resources.get("slurm_requeue") in (False, "False"):
        extra["no-requeue"] = True
    if "no-requeue" in extra:
        del extra["requeue"]

    nodes = _number(resources, "nodes") or 1
    tasks = _number(resources, "tasks")
    cpus = _number(resources, "cpus_per_task") or max(1, threads)
    runtime = _number(resources, "runtime")
    parameters: dict[str, Any] = {
        "nodes": nodes,
        "cpus_per_task": cpus,
        "partition": resources.get("slurm_partition") or None,
        "account": resources.get("slurm_account") or _account(),
        "time": runtime,
        "mem": None,
        # The warning must come after the start, and less than ten minutes before the limit: submitit takes
        # an earlier one for a preemption.
        "signal_delay_s": min(signal_delay, 599, max(1, (runtime or 60) * 60 // 2)),
        "stderr_to_stdout": True,
        # One inner Snakemake, on the first node, that sees the whole allocation. Since SLURM 22.05 a step without
        # --cpus-per-task gets one CPU.
        "srun_args": ["--nodes=1", "--ntasks=1", "--overlap", f"--cpus-per-task={cpus}"],
    }
    if tasks:
        extra["ntasks"] = tasks
    if per_cpu := _number(resources, "mem_mb_per_cpu"):
        parameters["mem_per_cpu"] = f"{per_cpu}M"
    elif memory := _number(resources, "mem_mb"):
        parameters["mem"] = f"{memory}M"
    gpus = _number(resources, "gpu")
    if gpus:
        if gpus % nodes:
            raise WorkflowError(f"resource gpu={gpus} does not divide over nodes={nodes}")
        model = f"{resources['gpu_model']}:" if resources.get("gpu_model") else ""
        parameters["gpus_per_node"] = f"{model}{gpus // nodes}"
    if setup:
        parameters["setup"] = setup.splitlines()
    if not parameters["partition"] and "partition" not in extra:
        parameters["partition"] = partitions.choose(
            table or [], parameters, resources, _gres_gpus(str(extra.get("gres") or ""))
        )
    parameters["additional_parameters"] = extra
    return parameters


def new_record(job: Any, records: Records) -> Record:
    """Return the record of a new submission of a Snakemake job; raises WorkflowError as `sbatch_parameters` does."""
    uid = new_uid()
    rule = str(job.groupid) if job.is_group() else str(job.rule.name)
    rule = "group" if job.is_group() and len(rule) == 36 else rule  # the id of an unnamed group is a UUID
    members = single_jobs(job)
    wildcards = {
        str(name): str(value)
        for single in reversed(members)
        for name, value in single.wildcards_dict.items()
        if all(other.wildcards_dict.get(name, value) == value for other in members)
    }
    outputs = [str(path) for single in members for path in single.output]
    resources = dict(job.resources.items())
    cpus, nodes = cpus_of(resources, job.threads), _number(resources, "nodes") or 1
    per_cpu, per_node = _number(resources, "mem_mb_per_cpu"), _number(resources, "mem_mb")
    return Record(
        key=key_of(outputs, f"{rule} {wildcards}"),
        uid=uid,
        name=job_name(rule, wildcards, uid),
        folder=str(records.new_folder(rule, wildcards, uid)),
        signature=signature_of(members),
        rule=rule,
        wildcards=wildcards,
        outputs=outputs,
        gpus=gpus_of(resources),
        cpus=cpus,
        mem_mb=per_cpu * cpus // nodes if per_cpu else per_node or 0,
        runtime=_number(resources, "runtime") or 0,
        nodes=nodes,
        checkpointable=bool(resources.get("slurm_progress")),
    )


def task_of(job: Any, record: Record, command: str, limit: int) -> Job:
    """Return what is to run on the node: a command under a record, failing after `limit` requeues without progress."""
    progress = str(dict(job.resources.items()).get("slurm_progress") or "")
    return Job(
        uid=record.uid,
        key=record.key,
        folder=record.folder,
        command=command,
        directory=str(Path.cwd()),
        progress=str(Path(glob.escape(str(Path.cwd())), progress)) if progress else "",
        limit=limit,
        logs=[str(Path(str(log)).absolute()) for single in single_jobs(job) for log in single.log],
        mem_mb=record.mem_mb,
    )


class _SlurmExecutor(submitit.SlurmExecutor):
    """submitit's executor: the partition's own time limit for jobs that request none, logs named like the job."""

    no_limit = False

    @property
    def _submitit_command_str(self) -> str:
        return f'{self.python} -u -m submitit.core._submit "$folder"'

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        text: str = super()._make_submission_file_text(command, uid)
        log = log_name(self.parameters.get("job_name", ""), "%j")
        for name in ("%j_0_log.out", "%j_%t_log.out"):  # submitit's own, of the batch script and of srun
            text = text.replace(f"/{name}", f"/{log}")
        # A pattern for the logs of a job array cannot name the folder of each task: its script does.
        text = text.replace(shlex.quote(str(self.folder / "%A_%a_%t_log.out")), '"$log"')
        if self.no_limit:
            text = "\n".join(line for line in text.split("\n") if not line.startswith("#SBATCH --time="))
        return text


@contextlib.contextmanager
def _clean_environment(given: Iterable[str] = ()) -> Iterator[None]:
    """Hide the variables of a surrounding SLURM job, which sbatch would pass on.

    SBATCH_PARTITION and similar variables are the user's own defaults. To sbatch they count more than the batch script:
    they are hidden too where a job has a flag of its own, one of `given`, or the plugin has (OVERRIDING).
    """
    other = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "signal_delay_s": "SIGNAL"}
    names = [*OVERRIDING, *(other.get(flag, flag.replace("-", "_").upper()) for flag in given)]
    hidden = {f"SBATCH_{name}" for name in names}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("SLURM_CONF", "SLURM_CLUSTERS") or (name.startswith("SBATCH_") and name not in hidden)
    }
    with submitit.helpers.clean_env(extra_names=[processes.KEY_VARIABLE, processes.JOB_VARIABLE]):
        os.environ.update(kept)
        try:
            yield
        finally:
            for name in kept:
                os.environ.pop(name, None)


def submit(jobs: Sequence[Job], name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Submit a job, or several as one job array, and return SLURM's ids in the same order.

    Raises:
        UnreachableError: SLURM did not answer; the jobs may or may not be in its queue.
        FullError: SLURM did not take the jobs, but will when others have ended.
        RefusedError: SLURM rejected the jobs.
    """
    # submitit is not to count time-outs: the wrapper counts requeues without progress.
    executor = _SlurmExecutor(folder=Path(jobs[0].folder), max_num_timeout=1_000_000_000)
    settings = {key: value for key, value in parameters.items() if value is not None}
    limited = "time" in settings
    of_task = [
        "id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        '[ -d "$folder" ] || exit 1',
        f"log=$folder/{log_name(name, '${id}')}",
        'exec >>"$log" 2>&1',
    ]
    settings["setup"] = [
        f"folders=({' '.join(shlex.quote(job.folder) for job in jobs)})",
        "folder=${folders[${SLURM_ARRAY_TASK_ID:-0}]}",
        *(["id=$SLURM_JOB_ID"] if len(jobs) == 1 else of_task),
        # The path where submitit looks for it. It needs the id: here, since sbatch's answer may be lost.
        '[ -e "$folder/${id}_submitted.pkl" ] || ln "$folder/job.pkl" "$folder/${id}_submitted.pkl"',
        *settings.get("setup", []),
    ]
    marker = processes.job_marker('"${folder##*/}"', '"$id"')  # the folder is named like the submission
    settings["teardown"] = [
        "status=$?",
        f'[ $status = 0 ] || echo $status > "$folder/{STATUS}-$id"',
        f"[ $status = 0 ] || {shlex.quote(sys.executable)} -c 'from {processes.__name__} import main; main()' {marker}",
        "exit $status",
    ]
    # The signal that the wrapper handles: SUBMITIT_PREEMPT_SIGNAL would name another, and does not reach the job.
    warning = {"signal": f"USR2@{settings['signal_delay_s']}"} if "signal_delay_s" in settings else {}
    settings["additional_parameters"] = warning | settings.get("additional_parameters", {})
    executor.update_parameters(job_name=name, **settings)
    if len(jobs) > 1:
        executor.parameters |= {"map_count": len(jobs), "array_parallelism": len(jobs)}
        executor.parameters["additional_parameters"] = {"output": "/dev/null"} | settings["additional_parameters"]
    if not limited:
        executor.parameters["time"] = 365 * 24 * 60  # for submitit's own time-out only
    executor.no_limit = not limited and "time" not in settings["additional_parameters"]
    for job in jobs:
        pickle = Path(job.folder) / "job.pkl"
        if not pickle.exists():  # a job of an earlier call may be reading it
            delayed = submitit.helpers.DelayedSubmission(job)
            delayed.set_timeout(executor.parameters["time"], executor.max_num_timeout)
            delayed.dump(pickle)
    try:
        # submitit prints sbatch's errors at each attempt. Environment and sys.stderr belong to all threads.
        flags = [*settings, *settings["additional_parameters"]]
        with _SUBMITTING, _clean_environment(flags), contextlib.redirect_stderr(io.StringIO()):
            job_id = str(executor._submit_command(executor._submitit_command_str).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        raise _classify(str(error)) from None
    return [job_id] if len(jobs) == 1 else [f"{job_id}_{task}" for task in range(len(jobs))]


def _classify(message: str) -> Exception:
    """Return the error that sbatch's message means."""
    text = _sbatch_error(message)
    # sbatch itself tries again for a while when the queue is full, and ends with "Resource temporarily unavailable".
    full = FULL.search(text)
    last = text.rpartition(";")[2]
    if any(sign in (last if full else message) for sign in TRANSIENT if not (full and sign.startswith("Resource"))):
        return UnreachableError(message)
    if full:
        return FullError(full[0])
    if MAYBE_FULL.search(text) and not REASON.search(text):
        return FullError(text, certain=False)
    return RefusedError(text)


def _sbatch_error(message: str) -> str:
    """Return sbatch's own error message from submitit's."""
    lines = [line.strip() for line in message.splitlines() if "error:" in line]
    return "; ".join(lines) or message.strip()
