"""What a tenant keeps is bounded: events, transcripts, archives and named workspaces; with the real CLI."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from google.rpc import error_details_pb2
from parking import client_of, failure, kill_cli, parked, say, told_before
from running import running_service
from tenancies import tenant
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1 import session_service_pb2 as pb
from warmline_client import Client, WarmlineError, connect
from warmline_service.server import Service

pytestmark = pytest.mark.real_cli

MIB = 1024 * 1024


@asynccontextmanager
async def held(limit: int) -> AsyncIterator[tuple[Service, Client]]:
    """A service, and a tenant of it that may keep so many bytes."""
    settings, key = tenant("acme")
    settings["policy"] = {"storage_bytes": limit}
    other, _ = tenant("other")
    async with running_service(tenants=[settings, other]) as service:
        async with connect(f"127.0.0.1:{service.port}", api_key=key) as client:
            yield service, client


def files(size: int, name: str = "") -> config_pb.SessionConfig:
    """A session that begins with a file of so many bytes."""
    file = config_pb.WorkspaceFile(path="file", data=bytes(size))
    return config_pb.SessionConfig(workspace=config_pb.Workspace(name=name, files=[file]))


async def refused(
    client: Client,
    config: config_pb.SessionConfig,
    history: Sequence[chat_pb.HistoryMessage] = (),
) -> WarmlineError:
    """Why a session cannot be had."""
    with pytest.raises(WarmlineError) as caught:
        async with client.chat(config=config, history=history):
            pass
    return caught.value


def assert_named(error: WarmlineError) -> None:
    assert (error.reason, error.metadata["quota"]) == ("QUOTA_EXCEEDED", "storage_bytes")
    assert error.retry_after is not None


async def kept(client: Client) -> float:
    """What the tenant keeps, as it is told."""
    (budget,) = (await client.usage()).budgets
    assert budget.name == "storage_bytes"
    assert not budget.HasField("reset_time")
    return budget.used


async def test_who_keeps_too_much_gets_nothing_new_until_something_is_deleted() -> None:
    """No turn, session, fork, import or file; what was there before can be read, and deleted."""
    async with held(MIB) as (service, client):
        async with client.chat(config=files(1000 * 1024, "mine")) as chat:
            first = chat.session_id
            assert (await say(chat, "hello"))[-1].HasField("turn_completed")
            script = "::say " + "x" * 50_000
            assert (await say(chat, script))[-1].HasField("turn_completed")
            assert service._quota is not None
            service._quota.freed("acme")
            assert await kept(client) > MIB
            events = await say(chat, "again")
            assert_named(failure(events))
            quota = error_details_pb2.QuotaFailure()
            assert any(each.Unpack(quota) for each in events[-1].turn_failed.status.details)
            assert [each.subject for each in quota.violations] == ["storage_bytes"]
        for config in (config_pb.SessionConfig(), files(1), files(1, "mine")):
            assert_named(await refused(client, config))
        assert_named(await refused(client, config_pb.SessionConfig(), told_before("Ada")))
        for attempt in (client.fork(first), client.import_(_one_line())):
            with pytest.raises(WarmlineError) as caught:
                await attempt
            assert_named(caught.value)
        assert len([each async for each in client.sessions()]) == 1
        assert [event async for event in client.watch(first, replay_only=True)]
        await client.delete(first)
        async with client.chat(config=config_pb.SessionConfig()) as chat:
            assert (await say(chat, "again"))[-1].HasField("turn_completed")


async def _one_line() -> AsyncIterator[pb.ImportSessionRequest]:
    yield pb.ImportSessionRequest(session=pb.Session(title="imported"))


async def test_what_is_brought_has_to_fit() -> None:
    """Sessions that begin with files side by side have the room once; what does not fit leaves nothing."""
    async with held(MIB) as (service, client):
        await kept(client)
        made = [client.chat(config=files(300 * 1024)).__aenter__() for _ in range(6)]
        results = await asyncio.gather(*made, return_exceptions=True)
        errors = [each for each in results if isinstance(each, WarmlineError)]
        assert len(errors) == 3
        for error in errors:
            assert_named(error)
        assert len([each async for each in client.sessions()]) == 3
        stored = [*(service.settings.data_dir / "blobs" / "acme").glob("*/workspace-*")]
        assert len(stored) == 3
        for each in results:
            if not isinstance(each, BaseException):
                await each.__aexit__(None, None, None)


async def test_an_archive_is_counted_by_its_size() -> None:
    """What a session has left in its own workspace, when its process has gone."""
    async with held(100 * MIB) as (service, client):
        before = await kept(client)
        free = config_pb.SessionConfig(permission_mode=config_pb.PERMISSION_MODE_BYPASS)
        async with client.chat(config=free) as chat:
            command = "head -c 3000000 /dev/urandom > file"
            await say(chat, f'::tool Bash {{"command": "{command}"}}')
            session_id = chat.session_id
            kill_cli(service, session_id)
            await parked(service, session_id, "acme")
        assert service._quota is not None
        service._quota.freed("acme")
        assert await kept(client) - before > 3_000_000
        await client.delete(session_id)
        assert await kept(client) == before


async def test_a_tenant_without_the_bound_is_not_summed_up() -> None:
    """Nothing is asked for it, and it has no such budget."""
    async with running_service() as service, client_of(service) as client:
        async with client.chat() as chat:
            assert (await say(chat, "hello"))[-1].HasField("turn_completed")
        assert not (await client.usage()).budgets
        assert service._quota is not None
        assert not service._quota._stored._figures
