"""Records of what has been submitted: one file per set of outputs, and one folder per submission.

Snakemake forgets the ids of its jobs when it is killed. A record survives: the next run finds the job by its outputs,
and reattaches to it only if it does exactly the same work (`signature`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import marshal
import re
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.files import read_json, write_json

RESULT = "result.json"
CLAIM = "claim.json"
REQUEUES = "requeues.json"
STATUS = "exit-status"  # of the command in the batch script, with the job's id behind it


def digest(value: Any) -> str:
    """Return a short hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass
class Record:
    """One submission.

    Attributes:
        key: hash of the working directory and the outputs; all submissions for the same outputs share it.
        uid: unique id of this submission, part of the job's name in SLURM.
        name: the job's, or the array's, name in SLURM.
        folder: the submission's own folder, where the job writes its result.
        signature: hash of everything that determines the work: rule code, command, parameters, input files.
        gpus, cpus: total number requested, for the ledger.
        mem_mb, runtime: memory per node in MB and time limit in minutes that were requested; 0: none.
        nodes: number of nodes.
        checkpointable: whether the job names a progress file.
        task: its number in a job array, whose tasks share their name; None: a job of its own.
        job_id: SLURM's id, `7_0` for a task; None between the decision to submit and SLURM's answer.
        cancelled: whether Snakemake has cancelled it.
        failed_starts: how many submissions in a row, before this one, were lost before they started.
        reattached: whether this run of Snakemake found it, submitted by a previous run; not saved.
    """

    key: str
    uid: str
    name: str
    folder: str
    signature: str
    rule: str
    wildcards: dict[str, str]
    outputs: list[str]
    gpus: int = 0
    cpus: int = 1
    mem_mb: int = 0
    runtime: int = 0
    nodes: int = 1
    checkpointable: bool = False
    task: int | None = None
    job_id: str | None = None
    cancelled: bool = False
    failed_starts: int = 0
    reattached: bool = field(default=False, compare=False)

    @property
    def path(self) -> Path:
        """The submission's folder."""
        return Path(self.folder)

    @property
    def log(self) -> str:
        """The file of the job's own output."""
        return str(self.path / log_name(self.name, self.job_id))

    def result(self) -> dict[str, Any] | None:
        """Return the job's result, None if there is none or it belongs to another submission."""
        result = read_json(self.path / RESULT)
        return result if result is not None and result.get("uid") == self.uid else None

    def exit_status(self) -> int:
        """Return the exit status the batch script has noted for a failed command, 0 if it has noted none."""
        try:
            return int((self.path / f"{STATUS}-{self.job_id}").read_text())
        except (OSError, ValueError):
            return 0

    def attempts(self) -> list[dict[str, Any]]:
        """Return the notes of each start of the job, oldest first."""
        found = (read_json(path) for path in sorted(self.path.glob("attempt-*.json")))
        return [attempt for attempt in found if attempt is not None]


class Records:
    """The record files of one working directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, key: str) -> Record | None:
        """Return the record for these outputs, if any."""
        value = read_json(self.root / "records" / f"{key}.json")
        if value is None:
            return None
        known = {item.name for item in dataclasses.fields(Record)}
        return Record(**{name: value[name] for name in value.keys() & known})

    def save(self, record: Record) -> None:
        """Write a record."""
        write_json(self.root / "records" / f"{record.key}.json", dataclasses.asdict(record) | {"reattached": False})

    def delete(self, record: Record) -> None:
        """Delete a record, unless another submission has replaced it."""
        current = self.load(record.key)
        if current is not None and current.uid == record.uid:
            (self.root / "records" / f"{record.key}.json").unlink(missing_ok=True)

    def all(self) -> Iterator[Record]:
        """Yield every record."""
        for path in sorted((self.root / "records").glob("*.json")):
            record = self.load(path.stem)
            if record is not None:
                yield record

    def new_folder(self, rule: str, wildcards: Mapping[str, str], uid: str) -> Path:
        """Return the path of a new folder, made of rule, wildcards and submission."""
        words = ",".join(f"{name}={value}" for name, value in wildcards.items())
        return self.root / "jobs" / safe_name(rule) / safe_name(words or "all") / uid


def safe_name(text: str) -> str:
    """Return `text` as a file name without characters that SLURM (`%`, backslash) or a shell would interpret."""
    return re.sub(r"[^A-Za-z0-9._=,-]", "_", text)[:100]


def job_name(rule: str, wildcards: Mapping[str, str], uid: str) -> str:
    """Return the job's name in SLURM: rule, values of the wildcards, shortened, and the submission's id."""
    values = safe_name(".".join(wildcards.values())).replace(",", ".")[:60]  # squeue --name takes a list with commas
    return "-".join(word for word in (safe_name(rule)[:40], values, uid) if word)


def log_name(name: str, job_id: str | None) -> str:
    """Return the file name of a job's own output."""
    return f"{name}_{job_id}_log.out"


def name_jobs(records: Sequence[Record]) -> None:
    """Name a submission after its work, several as the tasks of one job array."""
    uid = new_uid()
    for task, record in enumerate(records):
        if len(records) == 1:
            record.name, record.task = job_name(record.rule, record.wildcards, record.uid), None
        else:
            record.name, record.task = job_name(record.rule, {"": f"array{len(records)}"}, uid), task


def comment_of(records: Sequence[Record]) -> str:
    """Return the whole of rule, wildcards and outputs for `squeue --format=%k`, without characters to quote."""
    record, others = records[0], len(records) - 1
    words = [record.rule, *(f"{name}={value}" for name, value in record.wildcards.items()), "->", *record.outputs]
    words = [f"first of {others + 1}:", *words] if others else words
    return re.sub(r"[^A-Za-z0-9 ._=,/:+@>-]", "_", " ".join(words))[:1000]


def new_uid() -> str:
    """Return an id that no other submission has."""
    return uuid.uuid4().hex[:16]


def key_of(outputs: Iterable[str], name: str) -> str:
    """Return the key of a job: a hash of its outputs in this directory, or of its name if it has none."""
    return digest([str(Path.cwd()), sorted(outputs) or [name]])


def single_jobs(job: Any) -> list[Any]:
    """Return the single jobs of a job or a group, in a stable order."""
    return sorted(job.jobs, key=_sort_key) if job.is_group() else [job]


def _sort_key(single: Any) -> tuple[str, list[str]]:
    return single.rule.name, sorted(map(str, single.output))


def signature_of(jobs: Iterable[Any]) -> str:
    """Return the hash of everything that determines what these jobs produce together; resources do not."""
    jobs = sorted(jobs, key=_sort_key)
    internal = {str(path) for single in jobs for path in single.output}
    return digest(
        [
            {
                "rule": single.rule.name,
                "code": _rule_code(single.rule),
                "command": str(single.shellcmd),
                "params": [[name, _parameter_text(value)] for name, value in single.params._allitems()],
                "wildcards": sorted((name, str(value)) for name, value in single.wildcards_dict.items()),
                "input": [_file_state(str(path)) for path in single.input if str(path) not in internal],
                "output": [str(path) for path in single.output],
            }
            for single in jobs
        ]
    )


def _parameter_text(value: Any) -> str:
    """Return a rule's parameter as text; the order of a set of strings differs between processes."""
    return str(sorted(map(str, value)) if isinstance(value, set | frozenset) else value)


def _rule_code(rule: Any) -> list[str]:
    """Return what a rule runs: its command, its compiled `run` body, the content of the script it names."""
    parts = [str(rule.shellcmd), str(rule.script), str(rule.notebook), str(rule.wrapper)]
    for script in (rule.script, rule.notebook):
        path = Path(str(rule.basedir or "."), str(script)) if script else None
        if path is not None and path.is_file():
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    code = getattr(rule.run_func, "__code__", None)
    if isinstance(code, types.CodeType) and rule.is_run:
        parts.append(hashlib.sha256(marshal.dumps(_without_line_numbers(code))).hexdigest())
    return parts


def _without_line_numbers(code: types.CodeType) -> types.CodeType:
    """Return code without file name and line numbers, so that editing another rule does not change its hash."""
    constants = tuple(
        _without_line_numbers(item) if isinstance(item, types.CodeType) else item for item in code.co_consts
    )
    return code.replace(co_filename="", co_firstlineno=1, co_linetable=b"", co_consts=constants)


def _file_state(path: str) -> list[Any]:
    try:
        status = Path(path).stat()
    except OSError:
        return [path, None]
    return [path, status.st_mtime_ns, status.st_size]
