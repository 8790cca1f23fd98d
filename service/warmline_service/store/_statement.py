"""The statements that a turn waits for, each built once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from warmline_service.store._database import raw


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, a tuple; None where there is none."""
        ...


class Statement:
    """A statement with named values, the same for both databases.

    `build` is given the dialect's `insert`, which knows ON CONFLICT. On SQLite the text goes to the
    driver itself: building it again and looking at what comes back took longer there than running it.
    """

    def __init__(self, build: Callable[[Any], sa.UpdateBase]) -> None:
        self._build = build

    def __call__(self, connection: sa.Connection, values: Mapping[str, Any]) -> Rows:
        """Run it; `values` has every name that it was built with."""
        if connection.dialect.name == "sqlite":
            text, names, fixed = self._text
            given = [values[name] if name in values else fixed[name] for name in names]
            return raw(connection).execute(text, given)
        return connection.execute(self._statement, values)

    @functools.cached_property
    def _statement(self) -> sa.UpdateBase:
        return self._build(postgresql.insert)

    @functools.cached_property
    def _text(self) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
        compiled: Any = self._build(sqlite.insert).compile(dialect=sqlite.dialect())
        return str(compiled), tuple(compiled.positiontup), compiled.params
