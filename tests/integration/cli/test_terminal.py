"""Ctrl-C at a real terminal, with `make` in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

CTRL_C = b"\x03"
WAITING = """
import signal, time
from chat_backend.cli.terminal import foreground
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
with foreground():
    print("waiting", flush=True)
    while not asked:
        time.sleep(0.02)
print("in good order", flush=True)
"""
# Gives a command a terminal of its own, and its exit status on.
AT_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


def test_ctrl_c_does_not_reach_make(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    (tmp_path / "Makefile").write_text(f"run:\n\t@PYTHONPATH={ROOT} exec {sys.executable} {tmp_path}/waiting.py\n")
    command = [sys.executable, "-c", AT_A_TERMINAL, "make", "-s", "-C", str(tmp_path), "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as terminal:
        assert terminal.stdin
        assert terminal.stdout
        greeting = terminal.stdout.readline()

        terminal.stdin.write(CTRL_C)
        terminal.stdin.flush()
        rest = terminal.stdout.read()
        status = terminal.wait(10)

    assert (greeting.strip(), status) == (b"waiting", 0)
    assert b"in good order" in rest
    assert b"Error" not in rest
    assert b"Interrupt" not in rest
