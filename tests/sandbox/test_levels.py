"""What there is at each level, for root and for others; and that a lack is said, never passed over."""

import asyncio
import errno
import os
import shutil
import signal
import socket
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import as_nobody
import pytest
from google.protobuf.json_format import ParseDict
from inside import bash, python, running, tenant
from parking import client_of, say, start_of
from running import TOOLS, data_directory, faking, running_service, until
from serving import WARMLINE, Served
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError, connect
from warmline_service.config import CliSettings, SandboxSettings
from warmline_service.sandbox import Sandbox, SandboxMissing
from warmline_service.worker import find_cli

_SERVE = ("serve", "--listen", "127.0.0.1:0", "--provider", "loopback")
_FEW = {"WARMLINE_POOL__MIN_SPARES": "0", "WARMLINE_POOL__MAX_SPARES": "0"}
_HIDDEN = ("/usr/bin/bwrap", "/usr/local/bin/bwrap")


@pytest.fixture
def data() -> Iterator[Path]:
    """A short path, which everybody may go through."""
    with data_directory() as directory:
        directory.chmod(0o777)
        directory.parent.chmod(0o755)
        yield directory


@asynccontextmanager
async def serving(command: Sequence[str], data: Path, **env: str) -> AsyncIterator[Served]:
    """`warmline serve` as a process, at the default level."""
    process = await asyncio.create_subprocess_exec(
        *command,
        *_SERVE,
        *("--data-dir", data),
        stdout=PIPE,
        env=os.environ | _FEW | env,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield Served(process, line.decode().rpartition(" ")[2].strip())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 90)


async def without_bubblewrap(*arguments: str) -> tuple[int | None, str]:
    """Run `warmline` where there is no bubblewrap: its code and what it says."""
    users = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    hide = "; ".join(f"test ! -e {path} || mount --bind /dev/null {path}" for path in _HIDDEN)
    script = f'{hide}; exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", *users, "--mount", "--", "/bin/sh", "-c", script, "sh", WARMLINE, *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | {"COLUMNS": "1000"},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, (out + err).decode()


async def test_without_bubblewrap_the_service_does_not_start(data: Path) -> None:
    """Exit 78; it says what is missing, how to get it, and how to do without."""
    code, said = await without_bubblewrap(*_SERVE, "--data-dir", str(data))
    assert code == 78
    assert "apt-get install bubblewrap" in said
    assert "--sandbox none" in said
    assert not list(data.glob("slots/*/"))
    code, said = await without_bubblewrap("doctor")
    assert code == 1
    assert "sandbox: not possible here" in said


def test_a_sandbox_that_does_not_hold_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says of a process in it is compared: here the filter is missing a call."""
    monkeypatch.setattr(
        "warmline_service.sandbox._sandbox.bubblewrap_arguments",
        lambda *_: ["--ro-bind", "/", "/"],
    )
    with pytest.raises(SandboxMissing, match="Seccomp is 0"):
        Sandbox.find(SandboxSettings())


async def test_none_is_what_the_operator_says(tmp_path: Path) -> None:
    """Processes run then, and no session may do without being asked."""
    bypass = config_pb.SessionConfig(permission_mode=config_pb.PERMISSION_MODE_BYPASS)
    async with running_service(cli=faking(tmp_path)) as service, client_of(service) as client:
        async with client.chat() as chat:
            assert (await say(chat, "hello"))[-1].HasField("turn_completed")
        with pytest.raises(WarmlineError) as refused:
            async with client.chat(config=bypass) as chat:
                await say(chat, "hello")
    assert refused.value.reason == "POLICY_DENIED"


@pytest.mark.real_cli
async def test_at_level_network_there_is_one_way_more_and_nothing_else() -> None:
    """The machine's network is as far away as ever, and so are its processes and files."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        async with running_service(
            pool={"min_spares": 0, "max_spares": 0},
            sandbox={"level": "network", "readable": TOOLS, "egress_hosts": ["*"]},
        ) as service:
            async with client_of(service) as client, tenant(client, {}, "one") as chat:
                told = await python(
                    chat,
                    "import os, socket\nprint([name for _, name in socket.if_nameindex()])\n"
                    f"print(socket.socket().connect_ex({here.getsockname()!r}), end=' ')\n"
                    "print(sorted(each for each in os.listdir('/proc') if each.isdigit())[0])\n"
                    f"print(os.listdir({str(service.settings.data_dir)!r}))",
                )
    assert told.startswith(f"['lo']\n{errno.ECONNREFUSED} 1\n")
    assert "vault.key" not in told


@pytest.mark.real_cli
async def test_a_service_without_rights_has_the_same_sandbox(data: Path) -> None:
    """As another user than root: what differs is that workspaces are there from the start alone."""
    cli = await asyncio.to_thread(_cli_for_all, data)
    place = data / "d"
    env = {"WARMLINE_CLI__PATH": str(cli), "HOME": str(data), "TMPDIR": str(data)}
    async with serving(as_nobody.command(), place, **env) as served:
        async with connect(served.address) as client:
            async with tenant(client, {}, "first") as chat:
                told = await bash(
                    chat,
                    "id -u; grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status; "
                    f"ls -A {place} {place}/slots; kill -0 {served.process.pid} || echo apart",
                )
            await _uses_a_workspace(client)
    uid = as_nobody.NOBODY if os.geteuid() == 0 else os.geteuid()
    assert told.splitlines()[0] == str(uid)
    assert f"CapEff:\t{'0' * 16}\nCapBnd:\t{'0' * 16}\nNoNewPrivs:\t1\nSeccomp:\t2" in told
    assert "vault.key" not in told
    assert "apart" in told


@pytest.mark.real_cli
async def test_a_service_without_rights_leads_out_by_policy(data: Path) -> None:
    """The socket in the sandbox's network is had without being root."""
    cli = await asyncio.to_thread(_cli_for_all, data)
    with socket.create_server(("127.0.0.2", 0)) as here:
        port = here.getsockname()[1]
        env = {
            "WARMLINE_CLI__PATH": str(cli),
            "HOME": str(data),
            "TMPDIR": str(data),
            "WARMLINE_SANDBOX__LEVEL": "network",
            "WARMLINE_SANDBOX__EGRESS_HOSTS": '["127.0.0.2"]',
            "WARMLINE_SANDBOX__EGRESS_NETWORKS": '["127.0.0.2/32"]',
            "WARMLINE_SANDBOX__EGRESS_PORTS": f"[{port}]",
        }
        curl = f"curl -s -m 5 --proxytunnel http://127.0.0.2:{port} -o /dev/null"
        async with serving(as_nobody.command(), data / "d", **env) as served:
            async with connect(served.address) as client, tenant(client, {}, "one") as chat:
                told = await bash(
                    chat,
                    f"{curl} -w '%{{http_connect}}\n'; {curl} --noproxy '*'; echo $?; "
                    "curl -s https://127.0.0.3 -w '%{http_connect}\n'; id -u",
                )
        here.settimeout(1)
        here.accept()[0].close()
    assert told.split()[:3] == ["200", "7", "403"]
    assert told.split()[-1] == str(as_nobody.NOBODY if os.geteuid() == 0 else os.geteuid())


async def _uses_a_workspace(client: Client) -> None:
    config = {"workspace": {"name": "mine"}, "addDirectories": ["other"]}
    config |= {"permissionMode": "PERMISSION_MODE_BYPASS"}
    async with client.chat(config=ParseDict(config, config_pb.SessionConfig())) as chat:
        events = await say(chat, '::tool Bash {"command": "touch a ../other/b && ls . ../other"}')
    assert list(start_of(events).misses) == ["workspace", "directories"]
    (told,) = [event.tool_result.text for event in events if event.HasField("tool_result")]
    assert told.split() == [".:", "a", "../other:", "b"]


@pytest.mark.real_cli
async def test_nothing_outlives_a_service_that_is_killed(data: Path) -> None:
    """SIGKILL: what its sessions run is gone within a second; the next service clears up and works."""
    mark = f"3600.{os.getpid()}"
    for number in range(2):
        async with serving((WARMLINE,), data) as served, connect(served.address) as client:
            async with tenant(client, {}, "one") as chat:
                assert (
                    await bash(chat, f"setsid sleep {mark} >/dev/null 2>&1 & echo begun") == "begun"
                )
                assert running(mark)
                if number:
                    break
                served.process.kill()
                await until(lambda: not running(mark), 1)
    await until(lambda: not running(mark), 5)
    assert not list(data.glob("slots/*/"))
    assert not (data / "shares").exists()


def _cli_for_all(folder: Path) -> Path:
    """The CLI, where everybody may run it."""
    cli = find_cli(CliSettings())
    if os.geteuid() or all(each.stat().st_mode & 0o005 == 0o005 for each in (cli, *cli.parents)):
        return cli
    copy = Path(shutil.copy(cli, folder))
    copy.chmod(0o755)
    return copy
