"""Change the modules that decide results one place at a time (mutmut): tests must notice. Writes docs/mutants.json.

    python tools/mutants.py [module …]      e.g. training/schedule; all without one

Each module has a folder in .cache/mutants with a copy of the checkout, so that a second call goes on from the first;
`mutmut show <name>` in it shows what a survivor changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs/mutants.json"
MODULES = {
    "training/schedule": ["tests/training/test_schedule.py"],
    "analysis/verdicts": ["tests/analysis/test_claims.py"],
    "analysis/stats": ["tests/analysis/test_stats.py"],
    "analysis/measure": ["tests/analysis/test_outcomes.py", "tests/analysis/test_claims.py"],
    "probes/metrics": ["tests/probes/test_metrics.py", "tests/probes/test_trivial_scores.py"],
    "core/io": ["tests/core/test_io.py"],
    "core/provenance": ["tests/core/test_provenance.py"],
    "study/job_params": ["tests/study/test_identity.py"],
}
"""Module -> the tests that hold it; none of them trains."""
COPIED = ("src", "tests", "config", "pyproject.toml", "uv.lock", "results/quick")
SURVIVED, UNTESTED, KILLED = 0, (5, 33), (1, 3)


def prepare(module: str) -> Path:
    """Bring the module's folder to the state of this checkout."""
    folder = ROOT / ".cache/mutants" / module.replace("/", "-")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    tests = "\n    ".join(MODULES[module])
    (folder / "setup.cfg").write_text(
        f"[mutmut]\nsource_paths = src\nonly_mutate = src/lowdata_cpt/{module}.py\n"
        "also_copy =\n    config\n    results\n"
        f"pytest_add_cli_args_test_selection =\n    {tests}\npytest_add_cli_args =\n    -m\n    not slow\n"
    )
    return folder


def main(modules: list[str]) -> int:
    """Run mutmut on each module and merge what it found into the report."""
    report = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
    surroundings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for module in modules or list(MODULES):
        folder = prepare(module)
        subprocess.run(
            [Path(sys.executable).with_name("mutmut"), "run", "--max-children", os.environ.get("CORES", "1")],
            cwd=folder,
            env=surroundings | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            check=True,
        )
        found = json.loads((folder / f"mutants/src/lowdata_cpt/{module}.py.meta").read_text(encoding="utf-8"))
        codes = found["exit_code_by_key"]
        report[module] = {
            "killed": sum(code in KILLED for code in codes.values()),
            "total": len(codes),
            "not called by a test": sum(code in UNTESTED for code in codes.values()),
            "survivors": sorted(name.split(".")[-1] for name, code in codes.items() if code == SURVIVED),
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
        }
        REPORT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
