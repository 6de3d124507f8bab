"""The provenance of a study as one Workflow Run RO-Crate: results/<study>/ro-crate-metadata.json.

Profiles: Process Run Crate 0.5, Workflow Run Crate 0.5, Workflow RO-Crate 1.0, on RO-Crate 1.1
(https://www.researchobject.org/workflow-run-crate/). The crate is the results folder; what a run read from outside of
it (the workflow's text, the claims) is copied into its folder used/.
"""

from __future__ import annotations

import json
import mimetypes
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from lowdata_cpt import __version__
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_file, write_json
from lowdata_cpt.core.provenance import last_ended, read_records

METADATA = "ro-crate-metadata.json"
COPIES = "used"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
KINDS = {".smk": "text/x-python", "": "text/x-python", ".yaml": "application/yaml", ".md": "text/markdown"}
LICENCE = "https://spdx.org/licenses/Apache-2.0"
WORKFLOW_RESULTS = (
    *("scores.csv", "cost.csv", "curves.csv", "selected.csv", "trivial_baselines.csv"),
    *("claims.json", "claims.md", "report.html"),
)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class _Crate:
    """A crate under construction. Every file is described once."""

    def __init__(self, study: str, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.crate = ROCrate(gen_preview=False, version="1.1")
        self.started: list[float] = []

    def entity(self, identifier: str, kind: str, /, **properties: Any) -> Any:
        """Add a contextual entity, or return the one of that name."""
        found = self.crate.get(identifier)
        if found is not None:
            return found
        return self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind} | properties))

    def file(self, path: Path, sha256: str | None = None, kinds: list[str] | None = None, **properties: Any) -> Any:
        """Describe a file; one from outside the results folder is copied, one that is not kept is only named."""
        inside = path.relative_to(self.folder) if path.is_relative_to(self.folder) else Path(COPIES, path)
        if not path.exists():
            return self.entity(
                f"#sha256-{sha256}",
                "CreativeWork",
                name=path.name,
                sha256=sha256,
                description=f"{inside.as_posix()}: deleted once it had been read",
            )
        name = inside.as_posix()
        found = self.crate.get(name)
        if found is not None:
            return found
        target = self.folder / inside
        if target != path:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        kind = KINDS.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        facts = {
            "name": path.name,
            "contentSize": str(path.stat().st_size),
            "encodingFormat": kind,
            "sha256": sha256 or sha256_file(path),
        }
        return self.crate.add_file(dest_path=name, properties=facts | properties | ({"@type": kinds} if kinds else {}))

    def software(self, facts: dict[str, Any]) -> Any:
        """Describe the package at the commit that a record names."""
        code = facts["code"]
        version = f"{code['version']}+{(code['commit'] or 'unknown')[:12]}{'.dirty' if code['dirty'] else ''}"
        packages = [
            self.entity(f"#{name}-{number}", "SoftwareApplication", name=name, version=number)
            for name, number in sorted(facts["environment"]["packages"].items())
        ]
        return self.entity(
            f"#lowdata-cpt-{version}",
            "SoftwareApplication",
            name="lowdata-cpt",
            version=version,
            softwareRequirements=packages,
            description=f"commit {code['commit']}, uv.lock sha256 {code['lock_sha256']}",
        )

    def action(self, name: str, facts: dict[str, Any]) -> None:
        """Describe the run of one command: one CreateAction an artifact. When it ran is known where it ran."""
        artifact = self.folder / name
        if not artifact.exists() and "export" not in artifact.parts:  # weights may be deleted once they are scored
            raise UserError(f"{artifact}: missing; run `make pull` or `make reproduce` before `make crate`")
        result = self.file(artifact, facts["artifact"]["sha256"])
        objects = [self.file(Path(one["path"]), one["sha256"]) for one in facts["inputs"]]
        job, environment = facts.get("job", {}), facts["environment"]
        seconds = job.get("seconds") or facts.get("cost", {}).get("train_seconds")
        times = {}
        if job:
            times = {"endTime": _time(job["ended"])}
            if seconds is not None:
                times["startTime"] = _time(job["ended"] - seconds)
            self.started.append(job["ended"] - (seconds or 0))
        if facts["config"] is not None:
            for key, value in sorted(facts["config"].items()):
                label = f"{name}#{key}"
                objects.append(self.entity(f"#{label}", "PropertyValue", name=key, value=_text(value)))
        self.entity(
            f"#run/{name}",
            "CreateAction",
            name=f"lowdata-cpt {facts['command'][1] if len(facts['command']) > 1 else ''} -> {name}",
            instrument=self.software(facts),
            object=objects,
            result=[result],
            agent=self.entity("#authors", "Organization", name="The lowdata-cpt authors"),
            actionStatus="http://schema.org/CompletedActionStatus",
            description=f"python {environment['python']} on {environment['platform']}"
            + (f", SLURM job {job['slurm_job_id']}" if job.get("slurm_job_id") else ""),
            **times,
        )

    def workflow(self) -> Any:
        """Describe the Snakefile, with its rules, as the crate's main entity."""
        language = self.entity(
            "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
            "ComputerLanguage",
            name="Snakemake",
            url={"@id": "https://snakemake.readthedocs.io"},
        )
        rules = [self.file(path) for path in sorted(Path("workflow/rules").glob("*.smk"))]
        return self.file(
            Path("Snakefile"),
            kinds=["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            programmingLanguage=language,
            hasPart=rules,
            version=__version__,
            license={"@id": LICENCE},
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def write_crate(study: str) -> Path:
    """Write the crate of a study and return its metadata file.

    Raises:
        UserError: nothing says how the study came about, or an artifact is missing.
    """
    folder = Path("results", study)
    records, ended = read_records(folder), last_ended(folder)
    if not records or ended is None:
        raise UserError(f"{folder}: has neither provenance.json nor sidecars; run the study, or `make pull`")
    building = _Crate(study, folder)
    crate = building.crate
    workflow = building.workflow()
    for name, facts in records.items():
        building.action(name, facts)
    whole = building.entity(
        "#run",
        "CreateAction",
        name=f"study {study}",
        instrument=workflow,
        object=[building.file(folder / "study.json")],
        result=[building.file(folder / name) for name in WORKFLOW_RESULTS if (folder / name).exists()],
        endTime=_time(ended),
        **({"startTime": _time(min(building.started))} if building.started else {}),
        agent=building.entity("#authors", "Organization", name="The lowdata-cpt authors"),
    )
    actions = [crate.get(f"#run/{name}") for name in records]
    crate.mainEntity = workflow
    root = crate.root_dataset
    root["conformsTo"] = [
        building.entity(address, "CreativeWork", name=name, version=address.rsplit("/", 1)[1])
        for address, name in PROFILES.items()
    ]
    root["mentions"] = [whole, *actions]
    root["license"] = building.entity(LICENCE, "CreativeWork", name="Apache License 2.0")
    root["name"] = f"Continued pretraining on 100 to 1000 unlabelled images: study {study}"
    root["description"] = "Scores, statistics, verdicts and figures of one study, with how each came about."
    root["datePublished"] = _time(ended)
    crate.metadata.extra_contexts.append(TERMS)
    workflow_profile = list(PROFILES)[-1]
    crate.metadata["conformsTo"] = [{"@id": crate.metadata["conformsTo"]}, {"@id": workflow_profile}]
    write_json(folder / METADATA, crate.metadata.generate())
    return folder / METADATA
