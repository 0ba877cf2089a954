"""Run a command that does not outlive its parent: `python leash.py PARENT_PID COMMAND ...`.

A file of its own, run by its path and importing nothing of ours: it is there before every child, and is
replaced by the command, so the child's process id is the command's.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGTERM when the parent dies, then become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the commands are our own
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed.")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
