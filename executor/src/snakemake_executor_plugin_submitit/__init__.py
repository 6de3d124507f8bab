"""Snakemake executor plugin that runs jobs on SLURM through submitit.

The README.md of the distribution describes settings, resources and guarantees.
"""

# Snakemake evaluates the annotations below as types: no `from __future__ import annotations`, no `str | None`.
from dataclasses import dataclass, field
from typing import Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit.executor import Executor as Executor


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """Settings of the plugin: `--submitit-<name>` on the command line, `submitit-<name>:` in a profile."""

    folder: Optional[str] = field(  # noqa: UP045 - see above
        default=None,
        metadata={
            "help": "Folder on the shared file system for records, logs and the ledger (default: .snakemake/submitit).",
        },
    )
    requeue_limit: int = field(
        default=3,
        metadata={"help": "Requeues in a row without progress after which a job fails.", "type": int},
    )
    signal_delay: int = field(
        default=120,
        metadata={
            "help": "Seconds before the time limit at which a job is warned (SIGUSR2) to write its checkpoint.",
            "type": int,
        },
    )
    controller_patience: int = field(
        default=900,
        metadata={"help": "Seconds to wait for a SLURM controller that does not answer.", "type": int},
    )
    keep_successful_logs: bool = field(
        default=False,
        metadata={"help": "Keep the job folders (logs, batch script) of successful jobs too."},
    )
    on_interrupt: str = field(
        default="cancel",
        metadata={"help": "What Ctrl-C does with the jobs: 'cancel', or 'keep' them for the next run to reattach to."},
    )
    partitions: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Lines such as 'short runtime=60 mem_mb=64000': partitions in order of preference."},
    )
    clusters: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Name of the cluster to submit to, where SLURM has several (default: SBATCH_CLUSTERS)."},
    )
    array_size: int = field(
        default=1,
        metadata={"help": "Largest job array that ready jobs of one rule are submitted as; 1: no arrays.", "type": int},
    )
    setup: Optional[str] = field(  # noqa: UP045 - see above
        default=None,
        metadata={"help": "Shell lines to run first in each batch script, such as 'module load cuda'."},
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,  # sbatch passes the environment on; secrets stay out of job files
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
    pass_group_args=True,
)
