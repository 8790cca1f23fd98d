"""The statements that callers wait for, each built once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from warmline_service.store._sqlite_writer import raw


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, a tuple; None where there is none."""
        ...

    def fetchall(self) -> Sequence[Any]:
        """All rows that are left."""
        ...


class Statement:
    """A statement with named values, the same for both databases.

    `build` is given the dialect's `insert`, which knows ON CONFLICT. On SQLite the text goes to the
    driver itself: building it again and looking at what comes back took longer there than running it.
    """

    def __init__(self, build: Callable[[Any], sa.UpdateBase | sa.Select[Any]]) -> None:
        self._build = build

    def __call__(self, connection: sa.Connection, values: Mapping[str, Any]) -> Rows:
        """Run it; `values` has every name that it was built with.

        A row's values are as the driver gives them, so it is for columns of numbers and texts.
        """
        if connection.dialect.name == "sqlite":
            text, names, fixed = self._text
            given = [values[name] if name in values else fixed[name] for name in names]
            return raw(connection).execute(text, given)
        return connection.execute(self._statement, values)

    def many(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of these."""
        if connection.dialect.name == "sqlite":
            for values in rows:
                self(connection, values)
        elif rows:
            connection.execute(self._statement, rows)

    @functools.cached_property
    def _statement(self) -> sa.UpdateBase | sa.Select[Any]:
        return self._build(postgresql.insert)

    @functools.cached_property
    def _text(self) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
        statement: Any = self._build(sqlite.insert)
        compiled = statement.compile(dialect=sqlite.dialect())
        return str(compiled), tuple(compiled.positiontup), compiled.params
