"""What a process is equipped with when it starts, and the files in its slot that are made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from warmline_service.worker._slot import Slot

# Whose settings are honoured, by the CLI's own words.
SettingSource = Literal["project", "local"]


@dataclass(frozen=True)
class PluginFile:
    """A file of a plugin; `path` was checked. `repr` hides what it holds."""

    path: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Plugin:
    """A plugin of the CLI: one that the operator installed, by `name`, or a caller's `files`."""

    name: str = ""
    files: tuple[PluginFile, ...] = ()


@dataclass(frozen=True)
class Debug:
    """What goes into the CLI's debug log: some `categories`, or all but the `exclusions`."""

    categories: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()


def debug_file(slot: Slot) -> Path:
    """Where the CLI writes its debug log."""
    return slot.root / "debug.log"


def plugin_folders(
    slot: Slot, plugins: tuple[Plugin, ...], installed: Mapping[str, Path]
) -> tuple[Path, ...]:
    """Where each plugin is, absolute. Raises KeyError for a name that is not installed."""
    return tuple(
        installed[plugin.name].absolute() if plugin.name else _folder(slot, number)
        for number, plugin in enumerate(plugins)
    )


def write_plugins(slot: Slot, plugins: tuple[Plugin, ...]) -> None:
    """Make the folders of the plugins that bring their files; blocks. Raises OSError."""
    for number, plugin in enumerate(plugins):
        for file in plugin.files:
            path = _folder(slot, number) / file.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(file.data)


def write_trust(slot: Slot, folder: Path) -> None:
    """Make the CLI honour the rules in a folder's settings, as after its question; blocks."""
    trusted = {"projects": {str(folder): {"hasTrustDialogAccepted": True}}}
    (slot.config / ".claude.json").write_bytes(msgspec.json.encode(trusted))


def _folder(slot: Slot, number: int) -> Path:
    return slot.root / "plugins" / str(number)
