"""What a session is equipped with beside the model's own: directories, plugins, settings, each checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from warmline.v1 import session_config_pb2 as pb

from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_count
from warmline_service.rpc._parse_files import placed_of
from warmline_service.worker import Debug, Plugin, PluginFile, SettingSource

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PLUGIN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_DIRECTORIES, _PLUGINS, _CATEGORIES = 16, 8, 32
_PLUGIN_BYTES = 256 * 1024
_MANIFEST = ".claude-plugin/plugin.json"
_SOURCES: Mapping[int, SettingSource] = {
    pb.SETTING_SOURCE_PROJECT: "project",
    pb.SETTING_SOURCE_LOCAL: "local",
}


def workspace_of(name: str, field: str) -> str:
    """The name of a workspace, or nothing."""
    if name and not _NAME.fullmatch(name):
        raise field_invalid(field, "must be small letters, digits, `-` and `_`, at most 63")
    return name


def directories_of(names: Sequence[str], field: str) -> tuple[str, ...]:
    """Names of workspaces."""
    check_count(names, _DIRECTORIES, field)
    for index, name in enumerate(names):
        if not workspace_of(name, f"{field}[{index}]"):
            raise field_invalid(f"{field}[{index}]", "must not be empty")
    return tuple(names)


def plugins_of(plugins: Sequence[pb.Plugin], field: str) -> tuple[Plugin, ...]:
    """Plugins: names of installed ones, and whole ones with a manifest each."""
    check_count(plugins, _PLUGINS, field)
    if sum(plugin.files.ByteSize() for plugin in plugins) > _PLUGIN_BYTES:
        raise field_invalid(field, f"has files of more than {_PLUGIN_BYTES} bytes together")
    taken: set[str] = set()
    made = []
    for index, plugin in enumerate(plugins):
        place = f"{field}[{index}]"
        source = plugin.WhichOneof("source")
        if source == "name":
            made.append(Plugin(_installed_of(plugin.name, f"{place}.name")))
            name, place = plugin.name, f"{place}.name"
        elif source == "files":
            files, place = placed_of(plugin.files.files, f"{place}.files.files"), f"{place}.files"
            name = _manifest_name({file.path: file.data for file in files}, place)
            made.append(Plugin(files=tuple(PluginFile(f.path, f.data) for f in files)))
        else:
            raise field_invalid(place, "must have a name or files")
        if name in taken:
            raise field_invalid(place, "is a plugin that the session has already")
        taken.add(name)
    return tuple(made)


def _installed_of(name: str, field: str) -> str:
    if not _NAME.fullmatch(name):
        raise field_invalid(field, "must be small letters, digits, `-` and `_`, at most 63")
    return name


def _manifest_name(files: Mapping[str, bytes], field: str) -> str:
    """The name in a plugin's manifest; of a bad one the CLI would load nothing, and say so nowhere."""
    try:
        manifest = msgspec.json.decode(files.get(_MANIFEST, b""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        manifest = None
    name = manifest.get("name") if isinstance(manifest, dict) else None
    if not isinstance(name, str) or not _PLUGIN.fullmatch(name):
        text = f"needs a {_MANIFEST} whose `name` is small letters, digits and `-`, at most 63"
        raise field_invalid(field, text)
    return name


def sources_of(sources: Sequence[int], field: str) -> tuple[SettingSource, ...]:
    """Whose settings are honoured, each once."""
    check_count(sources, len(_SOURCES), field)
    for index, source in enumerate(sources):
        if source not in _SOURCES:
            text = f"{source} is no value that this version knows"
            raise field_invalid(f"{field}[{index}]", text)
    return tuple(name for source, name in _SOURCES.items() if source in sources)


def debug_of(debug: pb.Debug, field: str) -> Debug:
    """What goes into the debug log."""
    if debug.categories and debug.exclusions:
        raise field_invalid(field, "can have only one of categories and exclusions")
    return Debug(
        _categories_of(debug.categories, f"{field}.categories"),
        _categories_of(debug.exclusions, f"{field}.exclusions"),
    )


def _categories_of(names: Sequence[str], field: str) -> tuple[str, ...]:
    check_count(names, _CATEGORIES, field)
    for index, name in enumerate(names):
        if not _CATEGORY.fullmatch(name):
            raise field_invalid(f"{field}[{index}]", "must be letters, digits and `-`, at most 64")
    return tuple(names)
