"""The commands `warmline tenants` and `warmline keys`, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from running import data_directory, faking
from tenancies import administered
from warmline_client import WarmlineError, connect
from warmline_client.terminal._operate import moment_of, span_of

# The client's part of `warmline` alone, which is up in a fifth of the time.
COMMAND = [sys.executable, "-c", "from warmline_client.terminal import app; app()"]
WARMLINE = str(Path(sys.executable).parent / "warmline")
_TIMEOUT = 60


class Desk:
    """Where an operator sits."""

    def __init__(self, address: str, key: str) -> None:
        self.env = os.environ | {"WARMLINE_TARGET": address, "WARMLINE_API_KEY": key}
        self.env["TERM"] = "dumb"

    async def run(self, *arguments: str, said: str = "") -> tuple[int, str, str]:
        """Run a command that reads `said`: its exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self.env
        )
        out, err = await asyncio.wait_for(process.communicate(said.encode()), _TIMEOUT)
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode(), err.decode()

    async def types(self, line: str, said: str = "") -> str:
        """The output of a line that succeeds."""
        code, out, err = await self.run(*line.split(), said=said)
        assert code == 0, err
        return out


async def test_an_operator_manages_a_tenant(tmp_path: Path) -> None:
    """From the first key to the end of a tenant; a key comes alone on standard output."""
    async with administered(tmp_path) as (address, first):
        desk = Desk(address, first)
        out = await desk.types("tenants create acme --name Acme --identity spiffe://x/acme")
        assert "acme" in out
        assert "spiffe://x/acme" in out
        key = (await desk.types("keys create acme --note laptop --expires 90d")).strip()
        async with connect(address, api_key=key) as client:
            assert await client.models()
        key_id = key.split("_")[1]
        rotated = json.loads(await desk.types(f"keys rotate {key_id} --overlap 1h --json"))
        assert rotated["secret"].startswith("wl_")
        assert rotated["replaced"]["id"] == key_id
        await desk.types(f"keys revoke {key_id}")
        listed = await desk.types("keys list acme")
        assert [line.split()[1] for line in listed.splitlines()[1:]] == ["revoked", "active"]
        await desk.types("tenants update acme --add-identity acme.example.org --disable")
        each = [json.loads(line) for line in (await desk.types("tenants list --json")).splitlines()]
        assert [tenant["id"] for tenant in each] == ["acme", "admin"]
        assert each[0]["disabled"] is True
        assert each[0]["identities"] == ["acme.example.org", "spiffe://x/acme"]
        policy = '{"usd_per_day":5,"models":["haiku"]}'
        shown = json.loads(await desk.types(f"tenants update acme --policy {policy} --json"))
        assert shown["policy"] == {"usdPerDay": 5.0, "models": {"names": ["haiku"]}}
        await desk.types("tenants rm acme")
        async with connect(address, api_key=rotated["secret"]) as client:
            with pytest.raises(WarmlineError, match="KEY_INVALID"):
                await client.models()


async def test_what_is_refused_is_said(tmp_path: Path) -> None:
    """With the reason and the field, and exit code 1; the key may come from a file."""
    async with administered(tmp_path) as (address, first):
        code, _, err = await Desk(address, "").run("tenants", "list")
        assert (code, "KEY_INVALID" in err) == (1, True)
        (tmp_path / "key").write_text(first + "\n")
        desk = Desk(address, "")
        code, out, err = await desk.run("tenants", "list", "--key-file", str(tmp_path / "key"))
        assert (code, "admin" in out) == (0, True), err
        desk = Desk(address, first)
        for line, word in (
            ("keys create nobody", "TENANT_NOT_FOUND"),
            ("tenants create Acme", "tenant.id"),
            ("tenants update admin", "--help"),
            ("keys list admin --key-file /nonexistent", "cannot be read"),
        ):
            code, _, err = await desk.run(*line.split())
            assert code == 1, line
            assert word in err, line


async def test_a_credential_is_read_and_never_written(tmp_path: Path) -> None:
    """From standard input or a file; what is wrong with it is said without it."""
    tokens = {"access_token": "s3cret-a", "refresh_token": "s3cret-r", "scopes": ["one", "two"]}
    tokens |= {"expire_time": "2033-05-18T03:33:20Z", "subscription_type": "max"}
    (tmp_path / "tokens").write_text(json.dumps(tokens))
    async with administered(tmp_path) as (address, first):
        desk = Desk(address, first)
        out = await desk.types("credentials set admin key --note laptop", said="s3cret-k\n")
        out += await desk.types(
            f"credentials set admin max --oauth --default --file {tmp_path / 'tokens'}"
        )
        out += await desk.types("credentials list admin")
        assert ["max", "oauth", "yes", "2033-05-18", "03:33Z"] in [
            line.split()[:5] for line in out.splitlines()
        ]
        lines = (await desk.types("credentials list admin --json")).splitlines()
        key, found = (json.loads(line) for line in lines)
        assert (key["name"], key["kind"], key["isDefault"]) == ("key", "KIND_API_KEY", False)
        assert (found["scopes"], found["subscriptionType"]) == (["one", "two"], "max")
        assert "s3cret" not in out + "".join(lines)
        for said, word in (
            ("{s3cret", "--help"),
            ('{"access_token": 7}', "--help"),
            ("", "--help"),
        ):
            code, out, err = await desk.run(
                "credentials", "set", "admin", "x", "--oauth", said=said
            )
            assert (code, word in err, "s3cret" in out + err) == (1, True, False), said
        code, out, err = await desk.run("credentials", "set", "admin", "x", said="s3cret\nb")
        assert (code, "api_key" in err, "s3cret" in out + err) == (1, True, False)
        code, _, err = await desk.run("credentials", "set", "admin", "x", "--file", "/nonexistent")
        assert (code, "cannot be read" in err) == (1, True)
        await desk.types("credentials delete admin key")
        code, _, err = await desk.run("credentials", "delete", "admin", "key")
        assert (code, "CREDENTIAL_NOT_FOUND" in err) == (1, True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30min", 1800), ("12h", 43200), (" 90 d ", 7776000)]
)
def test_a_span_has_a_unit(text: str, seconds: int) -> None:
    """One number and one unit."""
    assert span_of(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "-1d", "1w", "1.5h", "9999999999d"])
def test_anything_else_is_no_span(text: str) -> None:
    """It is a usage error, which says what is wanted."""
    with pytest.raises(typer.BadParameter, match="90d"):
        span_of(text)


def test_a_moment_may_be_a_span_from_now() -> None:
    """Or a date, with a time and a zone or without."""
    left = moment_of("2h") - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    assert moment_of("2030-01-31T12:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    for bad in ("soon", "999999999d"):
        with pytest.raises(typer.BadParameter):
            moment_of(bad)


async def test_the_first_key_is_printed_at_the_first_start(tmp_path: Path) -> None:
    """On standard error, once, by `warmline serve`."""
    command = (WARMLINE, "serve", "--listen", "127.0.0.1:0", "--provider", "loopback")
    with data_directory() as data:
        env = os.environ | {
            "WARMLINE_DATA_DIR": str(data),
            "WARMLINE_AUTH": "required",
            "WARMLINE_CLI__PATH": str(faking(tmp_path)["path"]),
            "WARMLINE_SANDBOX__LEVEL": "none",
        }
        errors = [await _started_and_stopped(command, env) for _ in range(2)]
    assert "wl_" in errors[0]
    assert "wl_" not in errors[1]


async def _started_and_stopped(command: tuple[str, ...], env: dict[str, str]) -> str:
    """What a service says on standard error in its life."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=env)
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), _TIMEOUT)
    assert b"serving on" in line
    process.terminate()
    _, err = await asyncio.wait_for(process.communicate(), _TIMEOUT)
    assert process.returncode == 0
    return err.decode()
