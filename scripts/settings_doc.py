"""Write docs/settings.md, and the table in docs/http.md, from the settings: names, defaults, meanings."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from warmline_http._settings import HttpSettings
from warmline_service.config import Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"
TARGET = DOCS / "settings.md"
# The one page that has prose around its table.
HTTP = DOCS / "http.md"
BEGIN, END = "<!-- settings: made by `make generate` -->\n", "<!-- end of settings -->"
TABLE = "| setting | default | meaning |\n|---|---|---|\n"

HEAD = """\
# Settings

Settings come from a TOML file (`warmline serve --config FILE`, or `warmline.toml` in the working
directory), then from the environment, then from flags; the later wins. In the environment
`pool.min_spares` is `WARMLINE_POOL__MIN_SPARES`. An unknown name or a bad value stops the service
with a message that names it. Times are seconds, sizes are bytes.

This page is made from the code: `make generate`.

"""


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each setting of a table and of the tables in it."""
    for name, field in model.model_fields.items():
        # The service passes this table on: what it holds is the shim's.
        section = HttpSettings if (model, name) == (Settings, "http") else section_of(field)
        if section is None:
            yield f"{prefix}{name}", default_of(field), field.description or ""
        else:
            many = typing.get_origin(field.annotation) is tuple
            yield from rows(section, f"{prefix}{name}{'[]' if many else ''}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The table behind a field, if it is one."""
    for candidate in (field.annotation, *typing.get_args(field.annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def default_of(field: FieldInfo) -> str:
    """The default as it would stand in the file."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or isinstance(value, SecretStr):
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, frozenset | tuple):
        return f"`{sorted(value)}`".replace("'", '"')
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def render() -> str:
    """The whole page."""
    return HEAD + table(rows(Settings))


def table(found: Iterator[tuple[str, str, str]]) -> str:
    """Rows as Markdown."""
    lines = [f"| `{name}` | {default} | {text} |" for name, default, text in found]
    return TABLE + "\n".join(lines) + "\n"


def render_http(page: str) -> str:
    """The page about HTTP with its table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(rows(HttpSettings, "http.")) + END + after


if __name__ == "__main__":
    TARGET.write_text(render())
    HTTP.write_text(render_http(HTTP.read_text()))
