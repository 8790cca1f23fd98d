"""Brings a database to this version's tables."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

_HERE = Path(__file__).parent / "migrations"
# PostgreSQL: two services that start at once must not both migrate.
_LOCK = 0x7761726D


def configuration() -> Config:
    """Alembic's configuration: the migrations that come with the service."""
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    return config


def migrate(connection: sa.Connection) -> None:
    """Run the migrations that `connection`'s database lacks, within its transaction.

    Raises alembic.util.CommandError where the database is of a later version than this service.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def latest() -> str:
    """The version that `migrate` brings a database to."""
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    assert head is not None
    return head
