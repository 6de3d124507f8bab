"""A training run in miniature: slow, deterministic, checkpointing. It keeps the contract of real training commands:

On SIGUSR2 or SIGTERM it writes its checkpoint at the next step boundary and exits with status 75; started again with
the same command line it resumes and ends with the same bytes; `progress.json` in its checkpoint folder tells the step.
Two copies working on the same checkpoint at the same time leave a line in `violations`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

STOPPED = 75


def write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def result_of(name: str, steps: int) -> str:
    """The final value, computed in one go."""
    value = name
    for step in range(steps):
        value = hashlib.sha256(f"{value}/{step}".encode()).hexdigest()
    return value


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="per step")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--stuck", action="store_true", help="never make progress")
    arguments = parser.parse_args()

    stop = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda signum, frame: stop.append(signum))
    folder: Path = arguments.checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with (folder / "violations").open("a") as stream:
            stream.write(f"{time.time()} {os.getpid()}\n")
        return 1

    state = {"step": 0, "value": arguments.name, "steps": arguments.steps}
    if (folder / "checkpoint.json").exists():
        found = json.loads((folder / "checkpoint.json").read_text())
        if found["steps"] == arguments.steps:  # another run's checkpoint is not ours to resume
            state = found
            print(f"resumed at step {state['step']}", flush=True)

    def save() -> None:
        if not arguments.stuck:
            write(folder / "checkpoint.json", json.dumps(state))
            write(folder / "progress.json", json.dumps({"step": state["step"]}))

    while state["step"] < arguments.steps:
        if stop:
            save()
            print(f"stopped by {stop} at step {state['step']}", flush=True)
            return STOPPED
        time.sleep(arguments.seconds)
        state["value"] = hashlib.sha256(f"{state['value']}/{state['step']}".encode()).hexdigest()
        with (folder / "trace.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": state["step"], "pid": os.getpid(), "time": time.time()}) + "\n")
        state["step"] += 1
        if state["step"] % arguments.every == 0:
            save()
    save()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.output, f"{arguments.name},{state['value']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
