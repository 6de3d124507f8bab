"""What every study begins with: the interpreter's package for the rules, and its files read as we read them."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.study.checks import holder
from lowdata_cpt.study.load import read

# Rules call the package of the interpreter that runs Snakemake, activated or not; matplotlib's backend is ours to choose.
shell.prefix(f'PATH="{Path(sys.executable).parent}:$PATH"; export MPLBACKEND=Agg; ')

# What every command is given: its device and threads, and its log, with errors shown too.
COMPUTE = "--device {resources.device} --threads {threads}"
LOG = ">> {log} 2> >(tee -a {log} >&2)"

# Snakemake has read these files itself: there the last of two equal keys wins, and 0100 is 64.
FILES = [Path(file) for file in workflow.configfiles]
try:
    for file in FILES:
        read(file)
except UserError as error:
    raise WorkflowError(f"error: {error}") from None


def say_who_runs(study):
    """Name the process that runs a study already; not in the jobs that a cluster starts."""
    if workflow.is_main_process and (running := holder(study)):
        print(f"study {study} is being run by {running}", file=sys.stderr)
