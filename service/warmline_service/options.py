"""What commands have in common: the settings file, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from warmline_service.config import Settings

# For people; what scripts read goes to standard output.
err = Console(stderr=True, highlight=False)

# sysexits.h: the configuration is wrong.
EX_CONFIG = 78

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="WARMLINE_CONFIG", help="Settings file (TOML)."),
]
DataDir = Annotated[Path | None, typer.Option(help="Where slots live.")]


def settings_of(
    config: Path | None,
    *,
    listen: str | None = None,
    data_dir: Path | None = None,
    provider: str | None = None,
    sandbox: str | None = None,
    http: str | None = None,
) -> Settings:
    """The settings, from the file and from flags that win over it; ends the command where they are bad."""
    # Late: most commands have no settings.
    from pydantic import ValidationError

    from warmline_service.config import load

    if config is None and Path("warmline.toml").is_file():
        config = Path("warmline.toml")
    given: dict[str, object] = {"listen": listen, "data_dir": data_dir}
    overrides = {name: value for name, value in given.items() if value is not None}
    try:
        if provider is not None:
            overrides["provider"] = {"kind": provider}
        if sandbox is not None:
            overrides["sandbox"] = {"level": sandbox}
        if http is not None:
            overrides["http"] = {"listen": http}
        return load(config, **overrides)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        fail("The settings are not valid:\n" + "\n".join(lines), EX_CONFIG)
    except (OSError, ValueError) as error:
        fail(f"The settings cannot be read: {error}", EX_CONFIG)


def fail(message: str, code: int) -> NoReturn:
    """End the command with a sentence for people and a status for scripts."""
    err.print(f"warmline: {message}", markup=False)
    raise typer.Exit(code)
