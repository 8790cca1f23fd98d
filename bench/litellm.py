"""LiteLLM's proxy, to compare with: in an environment of its own, and in a sandbox of its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from bench.children import Service, running, tail

_ROOT = Path(__file__).parents[1]
_VENV = _ROOT / "build" / "litellm"
_STAMP = _VENV / "installed"
_UV = _ROOT / ".venv" / "bin" / "uv"
# One version, and what it needs as of one day: figures of two runs are of the same thing.
_WANTED = "litellm[proxy]==1.108.7"
_AS_OF = "2026-11-20"
_INSTALL_TIMEOUT = 900.0
_START_TIMEOUT = 120.0
_POLL = 0.2
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108  # the sandbox's own
    "PATH": "/usr/bin:/bin",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # The service asks nobody who they are here either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


class Unavailable(Exception):  # noqa: N818  # named for what is the case
    """The proxy cannot be had on this machine; the text says why."""


def install() -> None:
    """Make the environment under build/ where there is none. A failure is told on stderr, and found later."""
    if _is_installed():
        return
    print(f"bench: installing {_WANTED} into {_VENV.relative_to(_ROOT)} ...", file=sys.stderr)
    try:
        _uv("venv", "--clear", "--python", sys.executable, str(_VENV))
        # No package's own code runs to install it; and what runs later need write nothing.
        options = ("--only-binary", ":all:", "--compile-bytecode", "--exclude-newer", _AS_OF)
        _uv("pip", "install", "--python", str(_VENV / "bin" / "python"), *options, _WANTED)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stdout", None) or str(error)
        print(f"bench: LiteLLM cannot be installed: {said[-1000:]}", file=sys.stderr)
    else:
        _STAMP.write_text(_WANTED, encoding="utf-8")


@asynccontextmanager
async def proxy(home: Path, upstream: str, model: str) -> AsyncIterator[Service]:
    """The proxy before an endpoint of the Messages API; its address is a URL. Raises Unavailable."""
    sandbox = shutil.which("bwrap")
    if not _is_installed():
        raise Unavailable("it is not installed")
    if sandbox is None:
        raise Unavailable("there is no bubblewrap to run it in")
    port, log = _free_port(), home / "litellm.log"
    config = home / "litellm.json"
    parameters = {"model": f"anthropic/{model}", "api_base": upstream, "api_key": "none"}
    models = [{"model_name": model, "litellm_params": parameters}]
    config.write_bytes(msgspec.json.encode({"model_list": models}))
    command = (
        *(sandbox, *_confined(config), str(_VENV / "bin" / "litellm")),
        *("--config", "/config.yaml", "--telemetry", "False"),
        *("--host", "127.0.0.1", "--port", str(port)),
    )
    async with running(command, log, {}) as child:
        url = f"http://127.0.0.1:{port}"
        if not await _is_up(url, child):
            raise Unavailable(f"it does not start: {tail(log)}")
        yield Service(child.pid, url)


def _is_installed() -> bool:
    return _STAMP.is_file() and _STAMP.read_text(encoding="utf-8") == _WANTED


def _uv(*arguments: str) -> None:
    subprocess.run(
        (_UV, "--quiet", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_INSTALL_TIMEOUT,
        check=True,
        text=True,
    )


def _confined(config: Path) -> Iterator[str]:
    """Versions of it have carried malware: it sees the system's programs, itself and no variable of ours."""
    yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts")
    yield from ("--die-with-parent", "--new-session", "--clearenv")
    yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")  # noqa: S108  # its own
    # JSON is YAML.
    yield from ("--ro-bind", str(config), "/config.yaml")
    for place in ("/usr", "/bin", "/lib", "/lib64", "/etc/ssl", sys.base_prefix, str(_VENV)):
        yield from ("--ro-bind-try", place, place)
    for name, value in _ENVIRONMENT.items():
        yield from ("--setenv", name, value)


async def _is_up(url: str, child: Process) -> bool:
    """Wait until it answers; False where it ends before, or takes too long."""
    deadline = time.monotonic() + _START_TIMEOUT
    ended = asyncio.create_task(child.wait())
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while not ended.done() and time.monotonic() < deadline:
                if await _answers(http, url):
                    return True
                await asyncio.wait({ended}, timeout=_POLL)
    finally:
        ended.cancel()
    return False


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/health/liveliness") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _free_port() -> int:
    # It cannot be told to take a free one and say which.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
