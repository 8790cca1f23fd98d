"""Sessions outside a stream, over the wire: what there is, pages of it, copies, removal, strangers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from running import (
    data_directory,
    events_of,
    faking,
    running_client,
    running_service,
    service_in,
    text_of,
)
from warmline.v1 import events_pb2
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc
from warmline_client import Client, WarmlineError, connect
from warmline_client._errors import from_rpc_error
from warmline_service.server import Service

NOBODYS = "01234567-89ab-cdef-0123-456789abcdef"


async def said(client: Client, *texts: str, **opening: Any) -> tuple[str, list[str]]:
    """A session in which this was said: its id, and its turns'."""
    async with client.chat(**opening) as chat:
        turns = [(await events_of(chat, text))[-1].turn_id for text in texts]
        return chat.session_id, turns


async def known(client: Client, session_id: str) -> list[str]:
    """What the model knows to have been said in a session."""
    async with client.chat(session_id=session_id) as chat:
        history = json.loads(text_of(await events_of(chat, "!bound")))["history"]
    assert history.pop() == "!bound"
    return list(history)


async def titles(client: Client, **wanted: Any) -> list[str]:
    """The titles of the sessions that are listed."""
    return [session.title async for session in client.sessions(**wanted)]


@asynccontextmanager
async def stub_of(service: Service) -> AsyncIterator[Any]:
    """A stub, whose types know no awaiting."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield pb_grpc.SessionServiceStub(channel)


async def refused(call: Any) -> WarmlineError:
    """The error of a unary call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_session_says_what_it_is(tmp_path: Path) -> None:
    """Its set-up, its counts, its times; its state follows what it does."""
    async with running_client(cli=faking(tmp_path)) as client:
        async with client.chat(model="haiku", append_system="Be brief.") as chat:
            events = await events_of(chat, "  hello\n there ")
            turn = await chat.send("!hang")
            await anext(aiter(turn))
            running = await client.session(chat.session_id)
            assert running.state == pb.SESSION_STATE_RUNNING
            await chat.interrupt()
            await turn.completed()
            idle = await client.session(chat.session_id)
    assert idle.state == pb.SESSION_STATE_HOT
    assert (idle.id, idle.title, idle.turn_count) == (chat.session_id, "hello there", 2)
    assert idle.last_seq > events[-1].seq
    assert idle.epoch == events[-1].epoch
    assert idle.config.model == "haiku"
    assert idle.config.system_prompt.append == "Be brief."
    assert not idle.forked_from_session_id
    ages = [datetime.now(UTC) - t.ToDatetime(UTC) for t in (idle.create_time, idle.update_time)]
    assert 60 > ages[0].total_seconds() > ages[1].total_seconds() >= 0


async def test_a_session_is_parked_without_a_process(tmp_path: Path) -> None:
    """After a restart it is all that it was, but for its process."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                session_id, _ = await said(client, "hello")
                before = await client.session(session_id)
        async with service_in(data, cli=faking(tmp_path)) as service:
            async with connect(f"127.0.0.1:{service.port}") as client:
                after = await client.session(session_id)
    assert after.state == pb.SESSION_STATE_PARKED
    after.state = before.state
    assert after == before


async def test_a_list_is_filtered_and_ordered(tmp_path: Path) -> None:
    """By use and by beginning, both ways; by title, by time, by origin."""
    async with running_client(cli=faking(tmp_path)) as client:
        (first, _), (_, _), (_, _) = [await said(client, text) for text in ("Alpha", "beta_1", "c")]
        await said(client, "again", session_id=first)
        assert await titles(client) == ["Alpha", "c", "beta_1"]
        assert await titles(client, order_by="update_time") == ["beta_1", "c", "Alpha"]
        assert await titles(client, order_by="create_time") == ["Alpha", "beta_1", "c"]
        assert await titles(client, order_by="create_time desc") == ["c", "beta_1", "Alpha"]
        assert await titles(client, contains="ALP") == ["Alpha"]
        assert await titles(client, contains="a_") == ["beta_1"]
        assert await titles(client, contains="%") == []
        fork = await client.fork(first)
        assert [each.id async for each in client.sessions(forked_from=first)] == [fork.id]


async def test_a_list_is_filtered_by_the_times_that_it_gives(tmp_path: Path) -> None:
    """A session's own time is the first moment of `updated_after`, and is not before itself."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        async with connect(f"127.0.0.1:{service.port}") as client:
            for index in range(20):
                await said(client, f"number {index}")
            everything = [each async for each in client.sessions()]
        for index, session in enumerate(everything):
            moment = session.update_time
            later = pb.SessionFilter(updated_after=moment)
            found = (await stub.ListSessions(pb.ListSessionsRequest(filter=later))).sessions
            assert [each.id for each in found] == [each.id for each in everything[: index + 1]]
            earlier = pb.SessionFilter(updated_before=moment)
            found = (await stub.ListSessions(pb.ListSessionsRequest(filter=earlier))).sessions
            assert [each.id for each in found] == [each.id for each in everything[index + 1 :]]


async def test_pages_hold_everything_once(tmp_path: Path) -> None:
    """Whatever their size, also one that divides the number of sessions, and in every order."""
    async with running_client(cli=faking(tmp_path)) as client:
        source, _ = await said(client, "one")
        made = [source] + [(await client.fork(source)).id for _ in range(5)]
        for order_by in ("update_time", "create_time", "update_time desc", "create_time desc"):
            expected = made[::-1] if "desc" in order_by else made
            for page_size in (1, 2, 3, 5, 100):
                listed = client.sessions(order_by=order_by, page_size=page_size)
                assert [session.id async for session in listed] == expected


def tampered(token: str) -> list[str]:
    """Tokens that no service gave."""
    place = json.loads(base64.urlsafe_b64decode(token))
    changed = [
        ["tenant", *place[1:]],
        [place[0], not place[1], *place[2:]],
        [*place[:2], "x", place[3]],
        [*place[:3], "' OR 1=1"],
        [*place, 1],
        place[:3],
        {"order": "updated_at"},
    ]
    encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in changed]
    return [*encoded, token[:-5], token + "!", "ä", "=", base64.b64encode(b"\xff\xfe").decode()]


async def test_a_tampered_token_is_refused_by_field(tmp_path: Path) -> None:
    """It is neither an error of the service's nor a way to what is not the caller's."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        async with connect(f"127.0.0.1:{service.port}") as client:
            for text in ("one", "two"):
                await said(client, text)
        first = await stub.ListSessions(pb.ListSessionsRequest(page_size=1))
        for token in tampered(first.next_page_token):
            request = pb.ListSessionsRequest(page_size=1, page_token=token)
            error = await refused(stub.ListSessions(request))
            assert (error.reason, list(error.fields)) == ("FIELD_INVALID", ["page_token"]), token


BAD = {
    "page_size": pb.ListSessionsRequest(page_size=-1),
    "order_by": pb.ListSessionsRequest(order_by="update_time asc"),
    "filter.title_contains": pb.ListSessionsRequest(
        filter=pb.SessionFilter(title_contains="x" * 81)
    ),
    "filter.forked_from_session_id": pb.ListSessionsRequest(
        filter=pb.SessionFilter(forked_from_session_id="x")
    ),
    "filter.updated_after": pb.ListSessionsRequest(
        filter=pb.SessionFilter(updated_after=Timestamp(seconds=-1))
    ),
}


async def test_a_bad_list_is_refused_by_field(tmp_path: Path) -> None:
    """Each field has its bounds, and says so."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        for field, request in BAD.items():
            error = await refused(stub.ListSessions(request))
            assert (error.reason, list(error.fields)) == ("FIELD_INVALID", [field])


async def test_a_page_has_a_largest_size(tmp_path: Path) -> None:
    """What is asked for beyond it is no error."""
    async with running_service(cli=faking(tmp_path)) as service, stub_of(service) as stub:
        response = await stub.ListSessions(pb.ListSessionsRequest(page_size=2**31 - 1))
        assert response == pb.ListSessionsResponse()


async def test_a_fork_ends_at_its_turn(tmp_path: Path) -> None:
    """It knows what was said up to there, and the original goes on as if nothing had happened."""
    async with running_client(cli=faking(tmp_path)) as client:
        source, turns = await said(client, "one", "two", "three")
        before = await client.session(source)
        fork = await client.fork(source, turns[1])
        assert (fork.forked_from_session_id, fork.forked_at_turn_id) == (source, turns[1])
        assert (fork.turn_count, fork.title) == (0, "one")
        assert await known(client, fork.id) == ["one", "two"]
        assert await client.session(source) == before
        assert await known(client, source) == ["one", "two", "three"]
        latest = await client.fork(source)
        assert await known(client, latest.id) == ["one", "two", "three", "!bound"]
        assert (await client.session(fork.id)).title == "one"


async def test_a_fork_of_a_fork_knows_all_of_it(tmp_path: Path) -> None:
    """Also one that was forked before anything was said in it."""
    async with running_client(cli=faking(tmp_path)) as client:
        source, _ = await said(client, "one")
        first = await client.fork(source)
        assert await known(client, (await client.fork(first.id)).id) == ["one"]
        _, turns = await said(client, "two", "three", session_id=first.id)
        second = await client.fork(first.id, turns[0])
        assert await known(client, second.id) == ["one", "two"]


async def test_a_fork_has_a_key(tmp_path: Path) -> None:
    """The same again is the same fork; something else under it is refused."""
    async with running_client(cli=faking(tmp_path)) as client:
        source, turns = await said(client, "one", "two")
        fork = await client.fork(source, turns[0], "k")
        assert (await client.fork(source, turns[0], "k")).id == fork.id
        with pytest.raises(WarmlineError, match="IDEMPOTENCY_CONFLICT"):
            await client.fork(source, turns[1], "k")
        assert len(await titles(client)) == 2


async def test_only_a_turn_that_has_ended_is_forked(tmp_path: Path) -> None:
    """One that runs, that is another session's, or that does not exist is refused."""
    async with running_client(cli=faking(tmp_path)) as client:
        _, others = await said(client, "elsewhere")
        async with client.chat() as chat:
            turn = await chat.send("!hang")
            await anext(aiter(turn))
            with pytest.raises(WarmlineError, match="has not ended") as caught:
                await client.fork(chat.session_id, turn.id)
            assert list(caught.value.fields) == ["turn_id"]
            for unknown in (NOBODYS, others[0]):
                with pytest.raises(WarmlineError, match="TURN_NOT_FOUND"):
                    await client.fork(chat.session_id, unknown)
            with pytest.raises(WarmlineError, match="FIELD_INVALID"):
                await client.fork(chat.session_id, "x")
            await chat.interrupt()


async def test_a_turn_is_stopped_from_outside(tmp_path: Path) -> None:
    """Its own stream sees it end; without a turn nothing is done."""
    async with running_client(cli=faking(tmp_path)) as client, client.chat() as chat:
        idle = await client.interrupt(chat.session_id)
        assert idle.outcome == events_pb2.InterruptResult.OUTCOME_NOTHING_RUNNING
        turn = await chat.send("!hang")
        async for event in turn:
            if event.HasField("text_delta"):
                break
        stopped = await client.interrupt(chat.session_id)
        assert stopped.outcome == events_pb2.InterruptResult.OUTCOME_STOPPED
        assert stopped.turn_id == turn.id
        async with asyncio.timeout(60):
            end = await turn.completed()
        assert end.stop_reason == events_pb2.STOP_REASON_INTERRUPTED
