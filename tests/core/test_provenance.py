from __future__ import annotations

import json
from pathlib import Path

from lowdata_cpt.core.io import sha256_file
from lowdata_cpt.core.provenance import sidecar_path, write_sidecar


def test_a_sidecar_says_how_an_artifact_came_about(tmp_path: Path) -> None:
    source, artifact = tmp_path / "in.csv", tmp_path / "out.json"
    source.write_text("a\n1\n")
    artifact.write_text("{}")
    write_sidecar(artifact, inputs=[source], config={"seed": 3}, seconds=1.5)
    facts = json.loads(sidecar_path(artifact).read_text())
    assert facts["artifact"] == {"path": "out.json", "sha256": sha256_file(artifact), "bytes": 2}
    assert facts["inputs"] == [{"path": str(source), "sha256": sha256_file(source)}]
    assert facts["config"] == {"seed": 3}
    assert facts["job"]["seconds"] == 1.5
    assert set(facts["code"]) == {"version", "commit", "dirty", "lock_sha256"}
    assert {"torch", "timm", "numpy"} <= set(facts["environment"]["packages"])
