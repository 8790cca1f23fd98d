"""What this machine has for the service, what it lacks, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warmline_service.config import MIB, Settings
from warmline_service.errors import WarmlineError
from warmline_service.pool import capacity, default_memory_budget
from warmline_service.sandbox import SandboxMissing, find_sandbox
from warmline_service.server import has_credential
from warmline_service.tenants import asks_callers
from warmline_service.worker import find_cli, find_guard

# A slot of the CLI holds some hundred kilobytes; transcripts and work files grow from there.
_DISK_BYTES = 500 * MIB
_VERSION_TIMEOUT = 10.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says what to do where it is not ok."""

    what: str
    found: str
    ok: bool = True
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that the service needs; starts nothing but `claude --version`."""
    checks: list[Callable[[Settings], Finding]] = [
        _cli,
        _tools,
        _sandbox,
        _data_dir,
        _disk,
        _memory,
        _provider,
        _access,
        _port,
    ]
    return [check(settings) for check in checks]


def _cli(settings: Settings) -> Finding:
    try:
        path = find_cli(settings.cli)
    except WarmlineError as error:
        return Finding("CLI", "not found", ok=False, advice=error.message)
    try:
        with tempfile.TemporaryDirectory() as home:
            run = subprocess.run(
                [path, "--version"],
                capture_output=True,
                timeout=_VERSION_TIMEOUT,
                env={"HOME": home, "PATH": "/usr/bin:/bin"},
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("CLI", f"{path} does not run: {error}", ok=False, advice="Reinstall it.")
    version = run.stdout.decode(errors="replace").strip()
    return Finding("CLI", f"{version or 'no version'} at {path}", ok=run.returncode == 0)


def _tools(settings: Settings) -> Finding:
    del settings
    missing = [name for name in ("setpriv", "unshare") if shutil.which(name) is None]
    if missing:
        advice = "Install util-linux: without it processes may outlive the service."
        return Finding("process tools", f"missing: {', '.join(missing)}", ok=False, advice=advice)
    if "unshare" not in asyncio.run(find_guard()):
        advice = (
            "Allow PID namespaces: without them a CLI process can see the service's processes, and "
            "what a tool leaves behind is only found when the service starts again."
        )
        return Finding("process tools", "no PID namespaces here", ok=False, advice=advice)
    return Finding("process tools", "PID namespaces, setpriv, unshare")


def _sandbox(settings: Settings) -> Finding:
    try:
        sandbox = find_sandbox(settings)
    except SandboxMissing as error:
        return Finding("sandbox", "not possible here", ok=False, advice=str(error))
    if sandbox is None:
        advice = "What a CLI process runs may read all that the service's user may."
        return Finding("sandbox", "none, by sandbox.level", advice=advice)
    return Finding("sandbox", f"{settings.sandbox.level}: {sandbox}")


def _data_dir(settings: Settings) -> Finding:
    path = settings.data_dir.expanduser().absolute()
    existing = _existing(path)
    ok = os.access(existing, os.W_OK | os.X_OK)
    return Finding("data directory", str(path), ok, "" if ok else f"{existing} is not writable.")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.data_dir.expanduser().absolute())).free
    ok = free >= _DISK_BYTES
    return Finding(
        "disk", f"{free // MIB} MiB free", ok, "" if ok else f"{_DISK_BYTES // MIB} MiB are wanted."
    )


def _memory(settings: Settings) -> Finding:
    budget = settings.pool.memory_budget_bytes or default_memory_budget()
    count = capacity(settings.pool, budget)
    ok = count >= 2
    advice = "" if ok else "Give the service more memory, or set pool.memory_budget_bytes."
    return Finding("memory", f"{budget // MIB} MiB for {count} processes", ok, advice)


def _provider(settings: Settings) -> Finding:
    provider = settings.provider
    if provider.kind == "loopback":
        return Finding("provider", "loopback, built in")
    try:
        own = has_credential(settings, os.environ)
    except (OSError, ValueError) as error:
        return Finding("provider", "a bad credential", ok=False, advice=str(error))
    return Finding(
        "provider",
        f"{provider.base_url}, {'with' if own else 'without'} a credential",
        own or provider.caller_credentials or provider.stored_credentials,
        "" if own else "Set ANTHROPIC_API_KEY or provider.api_key_file, or use loopback.",
    )


def _access(settings: Settings) -> Finding:
    keys = sum(len(tenant.keys) for tenant in settings.tenants)
    if not asks_callers(settings):
        return Finding(
            "access", "this machine only, as tenant `dev`; with keys in the store by these"
        )
    own = f"{keys} API keys in the settings" if keys else "API keys of the store"
    return Finding("access", f"callers have to show who they are: {own}")


def _port(settings: Settings) -> Finding:
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            return Finding("port", settings.listen, ok=False, advice=f"{error.strerror}.")
    return Finding("port", f"{settings.listen} is free")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
