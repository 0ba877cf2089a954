"""`chat-backend migrate`: bring the database to the newest schema."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from chat_backend.config import ConfigError, Settings
from migrations.online import GIVE_UP_SECONDS, MigrationRefused

HELP = "Bring the database to the newest schema; safe to repeat."
# Beside the package: in the checkout as well as where it was installed.
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def add_arguments(parser: ArgumentParser) -> None:
    """This command has none."""


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Upgrade the configured database. Raises ConfigError where it can't be reached."""
    upgrade(Settings.from_environment(environ).database_url)
    print("The database is at the newest schema.")
    return 0


def upgrade(database_url: str, revision: str = "head", *, give_up_seconds: float = GIVE_UP_SECONDS) -> None:
    """Upgrade a database, to the newest schema by default; a SQLite file and its folder are made if missing.

    The old release keeps working meanwhile. Raises ConfigError if the database can't be reached, or if a statement
    does not get its locks within `give_up_seconds`; what was done until then is kept, and the next call continues.
    """
    _make_folder(database_url)
    config = alembic_config(database_url)
    config.attributes["give_up_seconds"] = give_up_seconds
    try:
        command.upgrade(config, revision)
    except MigrationRefused as error:
        raise ConfigError(str(error)) from error
    except OperationalError as error:
        # The driver's own words name host, port and file, but never the password.
        reason = " ".join(str(error.orig).split())
        raise ConfigError(f"The database at DATABASE_URL can't be used: {reason}") from error


def downgrade(database_url: str, revision: str = "base") -> None:
    """Take migrations back, down to a revision. Raises MigrationRefused if that would delete data."""
    command.downgrade(alembic_config(database_url), revision)


def alembic_config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # As an attribute, not an option: a password may hold a %.
    config.attributes["database_url"] = database_url
    return config


def _make_folder(database_url: str) -> None:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
