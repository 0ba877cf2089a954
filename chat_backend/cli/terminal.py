"""Whose Ctrl-C it is, when `make` stands in between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def foreground() -> Iterator[None]:
    """Be the only one whom the terminal's Ctrl-C reaches, if we were started by something in front of us.

    `make` would die of the same Ctrl-C and report an error, however cleanly its command ends.
    Without a terminal, and where we lead our process group already, nothing happens.
    """
    terminal = _terminal()
    if terminal is None:
        yield
        return
    former = os.tcgetpgrp(terminal)
    # Nobody could bring us back: the shell knows only who stands in front of us.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    os.setpgid(0, 0)
    _give(terminal, os.getpgrp())
    try:
        yield
    finally:
        _give(terminal, former)


def _terminal() -> int | None:
    with suppress(OSError, ValueError):
        terminal = sys.stdin.fileno()
        if os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp() != os.getpid():
            return terminal
    return None


def _give(terminal: int, group: int) -> None:
    # Who is in the background is stopped by SIGTTOU for asking.
    former = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with suppress(OSError):
        os.tcsetpgrp(terminal, group)
    signal.signal(signal.SIGTTOU, former)
