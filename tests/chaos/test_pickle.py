"""No pickle is opened on the way from images to a report, nor by who checks one: a hook of the interpreter says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOKED = """
import os, pickle, sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, details: opened.append(details) if event == "pickle.find_class" else None)
pickle.loads(pickle.dumps(Path))
assert opened, "the hook sees nothing"
opened.clear()
from tests.chaos import study
folder = Path(sys.argv[1])
os.chdir(folder)
study.make(folder)
from lowdata_cpt.backbones.weights import open_export
from lowdata_cpt.core.provenance import write_provenance
from lowdata_cpt.jobs import report
from lowdata_cpt.reproduce.verify import verify
results = study.PATHS.root
report.figures(results)
report.report(results)
write_provenance(results)
rows = list(verify("s"))
assert len(rows) > 10, rows
for method in ("mae", "glare"):
    open_export(study.PATHS.cell(study.CELLS[method]) / "export/i8", 64)
# What a process that draws figures answers to the one that started it, through a pipe.
print("pickled:", sorted(set(opened) - {("concurrent.futures.process", "_ResultItem")}))
"""


@pytest.mark.slow
def test_a_study_and_its_check_open_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWDATA_DATA", "data")
    command = [sys.executable, "-c", HOOKED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "pickled: []"


def test_no_source_names_a_format_that_runs_code() -> None:
    """What submitit writes for its own jobs is its executor's; it is read by the user who wrote it."""
    unsafe = re.compile(
        r"allow_pickle=True|\b(import|from) (pickle|cloudpickle|dill|joblib|marshal|shelve)\b|torch\.(load|save)\(|"
        r"read_pickle|to_pickle|yaml\.(load|unsafe_load)\(|\b(eval|exec)\("
    )
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    assert len(sources) > 150
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if unsafe.search(line) and not re.search(r"\.eval\(", line)
    ]
    assert not found
