"""The sandbox that the settings ask for, or why there is none."""

from __future__ import annotations

import os
import stat
import zlib

from warmline_service.config import Level, Settings
from warmline_service.sandbox._sandbox import Sandbox, SandboxMissing
from warmline_service.sandbox._shares import Shares

# Reading, and entering, for everybody.
_FOR_ALL = stat.S_IROTH | stat.S_IXOTH


def find_sandbox(settings: Settings) -> Sandbox | None:
    """What processes are put into; None where the operator wants none. Blocks.

    Raises SandboxMissing, also where a tenant of the settings is to have a level that cannot be had.
    """
    sandbox = _find(settings) if settings.sandbox.level != "none" else None
    _check_policies(settings, levels_of(sandbox))
    return sandbox


def levels_of(sandbox: Sandbox | None) -> frozenset[Level]:
    """The levels that processes can have."""
    found: frozenset[Level] = frozenset({"none"})
    return found if sandbox is None else found | sandbox.levels


def _find(settings: Settings) -> Sandbox:
    root = settings.data_dir.expanduser().absolute()
    name = f"warmline-{zlib.crc32(os.fsencode(root)):08x}"
    try:
        sandbox = Sandbox.find(settings.sandbox, Shares(root / "shares", root / "tenants"), name)
    except SandboxMissing as error:
        raise SandboxMissing(
            f"There can be no sandbox around CLI processes. {error} To run them without one, as this user, "
            "with all that it may read: `--sandbox none`."
        ) from error
    if sandbox.group is not None:
        _check_plugins(settings)
    return sandbox


def _check_policies(settings: Settings, levels: frozenset[Level]) -> None:
    policies = {"policy": settings.policy}
    policies |= {f"tenants[{n}].policy": each.policy for n, each in enumerate(settings.tenants)}
    for name, policy in policies.items():
        if policy.sandbox is not None and policy.sandbox not in levels:
            raise SandboxMissing(
                f"{name}.sandbox: {policy.sandbox} cannot be had where sandbox.level is "
                f"{settings.sandbox.level}; there are: {', '.join(sorted(levels))}."
            )


def _check_plugins(settings: Settings) -> None:
    for name, path in settings.cli.plugins.items():
        if path.stat().st_mode & _FOR_ALL != _FOR_ALL:
            raise SandboxMissing(
                f"cli.plugins.{name}: CLI processes run as users of their own, which cannot read {path}. "
                f"Let them: chmod -R o+rX {path}"
            )
