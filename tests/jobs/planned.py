"""What Snakemake itself says of a study before it is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lowdata_cpt.dev.generate import ROOT


def planned_jobs(study: str, folder: Path, *more: str) -> dict[str, int]:
    """Return the number of jobs by rule, and their `total`, of a dry run of all of a study in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--forceall", "--nolock", *more]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / f"config/{study}.yaml")]
    done = subprocess.run([*command, "--directory", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (line.split() for line in (done.stdout + done.stderr).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
