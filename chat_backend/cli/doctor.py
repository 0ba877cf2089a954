"""`chat-backend doctor`: does everything that must hold hold?"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from chat_backend.bootstrap import connect
from chat_backend.config import ConfigError, Settings
from chat_backend.domain.errors import Unavailable
from chat_backend.services.invariants import Diagnosis, examine

HELP = "Count what must not be (forgotten jobs, gaps, doubles); status 1 where there is any."


def add_arguments(parser: ArgumentParser) -> None:
    """Choose how it is said."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Examine the configured database, only reading. Raises ConfigError where it can't be used."""
    settings = Settings.from_environment(environ, serves=False)
    backend = connect(settings)
    try:
        with backend.reading() as session:
            diagnosis = examine(session, patience_seconds=settings.patience_seconds)
    except Unavailable as error:
        raise ConfigError("The database at DATABASE_URL can't be used, or has no tables yet.") from error
    finally:
        backend.close()
    print(_as_json(diagnosis) if arguments.json else _as_table(diagnosis))
    return 0 if diagnosis.healthy else 1


def _as_json(diagnosis: Diagnosis) -> str:
    violations = {
        finding.name: {"count": finding.count, "examples": [str(id) for id in finding.examples]}
        for finding in diagnosis.violations
    }
    return json.dumps(
        {
            "healthy": diagnosis.healthy,
            "violations": violations,
            "load": diagnosis.load,
            "deleted_sessions": diagnosis.deleted_sessions,
        }
    )


def _as_table(diagnosis: Diagnosis) -> str:
    waiting = diagnosis.load | {"deleted_sessions": diagnosis.deleted_sessions}
    lines = [f"{name:<22}{count:>8}" for name, count in waiting.items()] + [""]
    for finding in diagnosis.violations:
        lines.append(f"{finding.name:<22}{finding.count:>8}  {finding.meaning}")
        lines += [f"{'':<32}{id}" for id in finding.examples]
    lines += ["", "Everything holds." if diagnosis.healthy else "Something does not hold: see above."]
    return "\n".join(lines)
