"""A short soak in every test run; `make soak` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import soak
from tests.support.databases import POSTGRESQL, SQLITE, Databases


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("kind", "seed"), [(SQLITE, 7), (POSTGRESQL, 11)])
def test_half_a_minute_of_chaos_loses_nothing(databases: Databases, tmp_path: Path, kind: str, seed: int) -> None:
    done = soak(tmp_path, kind=kind, seed=seed, seconds=20, databases=databases)

    print(f"seed {seed}: {dict(done.tally)}")
    assert done.violations == []
    assert done.tally["replies complete"] > 0
