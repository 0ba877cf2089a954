"""`make soak`: SOAK_SECONDS (600) of chaos over SOAK_DATABASE (postgresql or sqlite), from SOAK_SEED (random).

Prints the seed first and the tally last; status 1 where anything was lost, doubled or left hanging.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1_000_000))
    kind = os.environ.get("SOAK_DATABASE") or "postgresql"
    print(f"seed {seed}, {seconds:g} s, {kind}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chat-soak-") as folder:
        done = soak(Path(folder), kind=kind, seed=seed, seconds=seconds)
    for violation in done.violations:
        print(violation)
    for what, number in sorted(done.tally.items()):
        print(f"{what:<22}{number:>8}")
    print(f"{'violations':<22}{len(done.violations):>8}")
    return 1 if done.violations else 0


if __name__ == "__main__":
    sys.exit(main())
