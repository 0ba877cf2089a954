"""Where the time goes: flame graphs of a run, by py-spy, where it is installed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Load
from bench.processes import families
from bench.targets import Chat, Target

PARTS = ("web", "worker", "reference")
RATE = 400


@contextmanager
def recording(target: Target, load: Load, *, wanted: bool, folder: Path) -> Iterator[None]:
    """Record web and worker for the length of a block, only what held the interpreter, as folded stacks.

    py-spy takes processor time itself: what is measured meanwhile is not to be compared.
    """
    pids = _pids(target) if wanted and isinstance(target, Chat) else {}
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if pids and py_spy is None:
        raise SystemExit("--profile needs py-spy: pip install py-spy")
    folder.mkdir(exist_ok=True)
    recorders = [
        _record(py_spy, pid, folder / f"{target.name.replace('/', '_')}-{load.name}-{part}.folded")
        for part, pid in pids.items()
        if py_spy
    ]
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(60)


def _record(py_spy: str, pid: int, file: Path) -> subprocess.Popen[bytes]:
    command = [
        py_spy,
        "record",
        "-p",
        str(pid),
        "-r",
        str(RATE),
        "-f",
        "raw",
        "--gil",
        "--nonblocking",
        "-o",
        str(file),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _pids(target: Chat) -> dict[str, int]:
    # gunicorn's first process only watches over the others.
    return {part: max(families([pid])) for part, pid in target.parts.items() if part in PARTS}
