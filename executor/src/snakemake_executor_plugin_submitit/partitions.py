"""Chooses a partition by what a job needs, from a small table: one line per partition, in order of preference.

    short   runtime=60 mem_mb=64000
    gpu     runtime=2880 gpu=4 gpu_model=a100
    long    runtime=10080 cpus=64 mem_mb=512000

A limit that a line does not name does not exist, except `gpu`: without it a partition takes no job with GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

LIMITS = ("runtime", "mem_mb", "cpus", "gpu", "nodes")  # minutes; the others per node, except `nodes`


@dataclass(frozen=True)
class Partition:
    """One line of the table: the largest job the partition takes, and the model of its GPUs if it has one only."""

    name: str
    limits: Mapping[str, int]
    gpu_model: str = ""

    def takes(self, need: Mapping[str, int], gpu_model: str) -> bool:
        """Return whether a job with these needs, named as in LIMITS, may run here."""
        limits = {"gpu": 0, **self.limits}
        if gpu_model and self.gpu_model and gpu_model != self.gpu_model:
            return False
        return all(amount <= limits[name] for name, amount in need.items() if name in limits)

    def __str__(self) -> str:
        words = [f"{name}≤{limit}" for name, limit in self.limits.items()]
        words += [f"gpu_model={self.gpu_model}"] if self.gpu_model else []
        return f"{self.name} ({', '.join(words) or 'no limits'})"


def parse(text: str) -> list[Partition]:
    """Parse the table; raises WorkflowError with the line that is wrong."""
    partitions = []
    for line in text.splitlines():
        name, *words = line.split("#")[0].split() or [""]
        if not re.fullmatch(r"(\w[\w.,-]*)?", name):
            raise WorkflowError(f"submitit-partitions: {name!r} in the line {line.strip()!r} is no name of a partition")
        limits: dict[str, int] = {}
        model = ""
        for word in words:
            key, _, value = word.partition("=")
            if key in limits or (key == "gpu_model" and model):
                raise WorkflowError(f"submitit-partitions: {key} is given twice in the line {line.strip()!r}")
            if key == "gpu_model" and value:
                model = value
            elif key in LIMITS and value.isdecimal():
                limits[key] = int(value)
            else:
                raise WorkflowError(
                    f"submitit-partitions: {word!r} in the line {line.strip()!r} is not one of "
                    f"{', '.join(f'{limit}=<number>' for limit in LIMITS)}, gpu_model=<name>"
                )
        if name:
            partitions.append(Partition(name, limits, model))
    return partitions


def choose(
    partitions: list[Partition], parameters: Mapping[str, Any], resources: Mapping[str, Any], gres_gpus: int = 0
) -> str | None:
    """Return the first partition that takes a job, None without a table; raises WorkflowError when none does.

    Args:
        partitions: the table.
        parameters: submitit's parameters of the job, without a partition.
        resources: the job's resources.
        gres_gpus: GPUs per node that its `gres` asks for.
    """
    if not partitions:
        return None
    nodes = int(parameters["nodes"])
    tasks_per_node = -(-int(resources.get("tasks") or nodes) // nodes)
    cpus = int(parameters["cpus_per_task"]) * tasks_per_node
    memory = int(resources.get("mem_mb_per_cpu") or 0) * cpus or int(resources.get("mem_mb") or 0)
    gpus = int(str(parameters.get("gpus_per_node") or 0).rpartition(":")[2]) or gres_gpus
    given = {"runtime": parameters.get("time") or 0, "mem_mb": memory, "cpus": cpus, "gpu": gpus, "nodes": nodes}
    need = {name: int(amount) for name, amount in given.items() if amount}
    model = str(resources.get("gpu_model") or "") if gpus else ""
    for partition in partitions:
        if partition.takes(need, model):
            return partition.name
    asked = [f"{name}={amount}" for name, amount in need.items()] + ([f"gpu_model={model}"] if model else [])
    raise WorkflowError(
        f"no partition takes a job with {', '.join(asked)}; submitit-partitions has {', '.join(map(str, partitions))}"
    )
