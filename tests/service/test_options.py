"""What a session is set up with reaches the model, through the real CLI, and says how it was had."""

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from conversing import Model
from google.protobuf.json_format import MessageToDict, ParseDict
from parking import client_of, ended, failure, kill_cli, say, start_of
from running import data_directory, service_in, until
from shared import ServiceThread, shared_service
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, WarmlineError
from warmline_service.worker import ProcessState

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
_NO_SPARES = {"min_spares": 0, "max_spares": 0}


@pytest.fixture(scope="module")
def shared_model() -> Model:
    """The model of the module's services."""
    return Model()


@pytest.fixture
def model(shared_model: Model) -> Model:
    """The same; it has been asked nothing yet."""
    shared_model.provider.requests.clear()
    return shared_model


@pytest.fixture(scope="module")
def cold_thread(shared_model: Model) -> Iterator[ServiceThread]:
    """One without spares: starting them takes longer than what is fixed at a start anyway."""
    forbidden = {"forbidden_permission_modes": ["auto"]}
    with shared_service(
        shared_model, pool=_NO_SPARES, limits=forbidden, cli={"max_retries": 4}
    ) as thread:
        yield thread


@pytest.fixture
async def cold(cold_thread: ServiceThread, model: Model) -> AsyncIterator[Client]:
    """A client of it."""
    async with client_of(cold_thread.service) as client:
        yield client


@pytest.fixture(scope="module")
def warm_thread(shared_model: Model) -> Iterator[ServiceThread]:
    """One with spares of all kinds; a session's process soon makes room for them."""
    pool = {
        "bare_spares": True,
        "max_processes": 12,
        "max_starting": 4,
        "idle_ttl": 5.0,
        "refill_delay": 0,
    }
    with shared_service(shared_model, pool=pool) as thread:
        yield thread


@pytest.fixture
async def client(warm_thread: ServiceThread, model: Model) -> AsyncIterator[Client]:
    """A client of it, when there are spares again."""
    pool = warm_thread.service.pool

    def full() -> bool:
        stats = pool.stats()
        return stats.processes[ProcessState.SPARE] >= stats.spare_target

    await until(full, timeout=30.0)
    async with client_of(warm_thread.service) as client:
        yield client


async def _turn(client: Client, config: config_pb.SessionConfig, text: str) -> list[pb.Event]:
    async with client.chat(config=config) as chat:
        return await say(chat, text)


def _config(**fields: Any) -> config_pb.SessionConfig:
    return ParseDict(fields, config_pb.SessionConfig())


def _agent(prompt: str) -> dict[str, Any]:
    tools = {"names": ["Read"]}
    return {"description": "Looks", "prompt": prompt, "model": "haiku", "tools": tools}


def _start(events: list[pb.Event]) -> tuple[int, list[str]]:
    receipt = start_of(events)
    return receipt.start, list(receipt.misses)


def _results(events: list[pb.Event]) -> list[tuple[str, bool]]:
    """What the tools gave back, and whether they failed; the session's own calls only."""
    return [
        (e.tool_result.text, e.tool_result.is_error)
        for e in events
        if e.HasField("tool_result") and not e.parent_tool_call_id
    ]


def _names(request: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in request.get("tools", [])]


async def test_a_sub_agent_has_its_own_prompt_model_and_tools(client: Client, model: Model) -> None:
    """It is bound to a spare; what it says has its call as the parent, and its answer comes back."""
    agent = _agent("YOU-REVIEW")
    call = {"description": "d", "prompt": "look at it", "subagent_type": "reviewer"}
    text = f"::tool Agent {json.dumps(call)}\n::say done"
    events = await _turn(client, _config(agents={"reviewer": agent}), text)
    assert _start(events) == (pb.START_KIND_WARM, [])
    assert events[-1].turn_completed.result == "done"
    lead, sub, _ = model.asked
    assert "YOU-REVIEW" in str(sub["system"])
    assert "YOU-REVIEW" not in str(lead["system"])
    assert "haiku" in sub["model"]
    assert "haiku" not in lead["model"]
    assert "Read" in _names(sub)
    assert "Bash" not in _names(sub)
    calls = [e.tool_call.id for e in events if e.HasField("tool_call")]
    said = [e for e in events if e.HasField("message") and e.parent_tool_call_id]
    assert [e.parent_tool_call_id for e in said] == calls[:1]


async def test_an_agent_that_leads_is_the_session(cold: Client, model: Model) -> None:
    """Its prompt, model and tools are the session's; it is fixed when a process starts."""
    agent = _agent("YOU-LEAD")
    events = await _turn(cold, _config(agents={"lead": agent}, agent="lead"), "hi")
    assert _start(events) == (pb.START_KIND_COLD, ["agent"])
    asked = model.asked[0]
    assert "YOU-LEAD" in str(asked["system"])
    assert "haiku" in asked["model"]
    assert "Bash" not in _names(asked)


@pytest.mark.parametrize("names", [[], ["Read", "Bash"]], ids=["none", "some"])
async def test_the_model_is_told_of_the_tools_that_are_available(
    cold: Client, model: Model, names: list[str]
) -> None:
    """None are really none; it is fixed when a process starts."""
    events = await _turn(cold, _config(tools={"available": {"names": names}}), "hi")
    assert _start(events) == (pb.START_KIND_COLD, ["tools"])
    offered = set(_names(model.asked[0])) - {"DeferredToolPlaceholder"}
    assert offered == set(names)


async def test_a_rule_allows_what_it_fits_and_no_more(client: Client) -> None:
    """Of two commands that change something the one that has a rule runs; bound to any spare."""
    text = '::tool Bash {"command":"touch a"}\n::tool Bash {"command":"mkdir b"}\n::say done'
    events = await _turn(client, _config(tools={"allowed": ["Bash(touch:*)"]}), text)
    assert _start(events)[0] == pb.START_KIND_WARM
    (_, touched), (refusal, refused) = _results(events)
    assert not touched
    assert refused, refusal
    denied = events[-1].turn_completed.permission_denials
    assert [each.tool_name for each in denied] == ["Bash"]


async def test_what_is_disallowed_never_runs(cold: Client) -> None:
    """Also where another rule allows it."""
    tools = {"allowed": ["Bash(echo:*)"], "disallowed": ["Bash"]}
    text = '::tool Bash {"command":"echo hi"}\n::say done'
    events = await _turn(cold, _config(tools=tools), text)
    assert [failed for _, failed in _results(events)] == [True]


@pytest.mark.parametrize(
    ("mode", "written"),
    [("DEFAULT", False), ("ACCEPT_EDITS", True), ("PLAN", False), ("DONT_ASK", False)],
)
async def test_a_permission_mode_says_what_needs_no_yes(
    client: Client, mode: str, written: bool
) -> None:
    """A file is written without being asked for only where edits are accepted; bound to any spare."""
    text = '::tool Write {"file_path":"f.txt","content":"x"}\n::say done'
    events = await _turn(client, _config(permissionMode=f"PERMISSION_MODE_{mode}"), text)
    assert _start(events)[0] == pb.START_KIND_WARM
    assert [not failed for _, failed in _results(events)] == [written]


async def test_reasoning_is_the_models(client: Client, model: Model) -> None:
    """Effort goes to the provider as it was asked for; bound to any spare."""
    events = await _turn(client, _config(reasoning={"effort": "EFFORT_HIGH"}), "hi")
    assert _start(events)[0] == pb.START_KIND_WARM
    assert model.asked[0]["output_config"]["effort"] == "high"


async def test_an_answer_has_the_form_of_the_schema(client: Client) -> None:
    """It comes typed, with the turn's end; one that does not come fails the turn by name."""
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    config = _config(outputSchema=number)
    async with client.chat(config=config) as chat:
        events = await say(chat, '::tool StructuredOutput {"n": 5}')
        assert _start(events) == (pb.START_KIND_WARM, [])
        assert MessageToDict(events[-1].turn_completed.structured_output) == {"n": 5.0}
        assert failure(await say(chat, "words")).reason == "OUTPUT_INVALID"
        events = await say(chat, '::tool StructuredOutput {"n": 6}')
        assert events[-1].turn_completed.structured_output["n"] == 6


async def test_a_bare_profile_is_a_plain_completion(cold: Client, model: Model) -> None:
    """No tools, and a fiftieth of what the model reads otherwise at the most."""
    await _turn(cold, _config(), "hi")
    events = await _turn(cold, _config(profile="PROFILE_BARE"), "hi")
    assert _start(events) == (pb.START_KIND_COLD, ["tools", "bare"])
    full, bare = (len(json.dumps(each)) for each in model.asked)
    assert bare * 20 < full
    assert not model.asked[1].get("tools")


async def test_bare_sessions_have_spares_where_the_operator_keeps_them(
    client: Client, model: Model
) -> None:
    """The best kind takes them; what is fixed otherwise has its own."""
    events = await _turn(client, _config(profile="PROFILE_BARE"), "hi")
    assert _start(events) == (pb.START_KIND_WARM, [])
    assert len(json.dumps(model.asked[-1])) < 3000
    events = await _turn(client, _config(systemPrompt={"append": "x"}), "hi")
    assert _start(events) == (pb.START_KIND_WARM, [])


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"maxTurns": 1}, "TURN_LIMIT_REACHED"), ({"maxBudgetUsd": 0.0001}, "BUDGET_EXCEEDED")],
)
async def test_a_limit_ends_a_turn_by_its_own_name(
    cold: Client, limits: dict[str, Any], reason: str
) -> None:
    """One more request than allowed, or more money, is not used."""
    text = '::text 100\n::tool Bash {"command":"echo hi"}\n::say done'
    events = await _turn(cold, _config(limits=limits), text)
    assert failure(events).reason == reason


async def test_a_preset_is_the_clis_own_prompt(cold: Client, model: Model) -> None:
    """With an addition, and without what differs between machines."""
    preset = {"append": "MARK", "excludeDynamicSections": True}
    await _turn(cold, _config(), "hi")
    await _turn(cold, _config(systemPrompt={"preset": preset}), "hi")
    own, same = (str(each["system"]) for each in model.asked)
    assert "MARK" in same
    assert len(same) < len(own)


async def test_another_model_answers_when_the_first_is_overloaded(
    cold: Client, model: Model
) -> None:
    """A notice says so; the turn goes on."""
    config = _config(model="opus", fallbackModels=["haiku"])
    events = await _turn(cold, config, "::error 529 times 3\n::say ok")
    assert events[-1].turn_completed.result == "ok"
    kinds = [e.notice.kind for e in events if e.HasField("notice")]
    assert pb.Notice.KIND_MODEL_FALLBACK in kinds
    assert "haiku" in model.asked[-1]["model"]


@pytest.mark.parametrize(
    "fields",
    [
        {"fallbackModels": ["none-such"]},
        {"agents": {"a": {"description": "d", "prompt": "p", "model": "none-such"}}},
    ],
)
async def test_an_unknown_model_is_refused_wherever_it_is_named(
    cold: Client, model: Model, fields: dict[str, Any]
) -> None:
    """Before anything is started."""
    with pytest.raises(WarmlineError) as caught:
        await _turn(cold, _config(**fields), "hi")
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert not model.asked


async def test_a_mode_that_the_operator_forbids_is_refused(cold: Client) -> None:
    """The operator has the last word over permission modes as well."""
    with pytest.raises(WarmlineError) as caught:
        await _turn(cold, _config(permissionMode="PERMISSION_MODE_AUTO"), "hi")
    assert caught.value.reason == "POLICY_DENIED"


async def test_text_is_acted_upon_only_when_it_is_asked_for(cold: Client, model: Model) -> None:
    """A slash command and a file's name are text to the model, unless `interpret` is set."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("FILE-CONTENT")
        file.flush()
        async with cold.chat() as chat:
            await say(chat, f"see @{file.name}")
            assert "FILE-CONTENT" not in json.dumps(model.asked[-1])
            await say(chat, "/nonsense of mine")
            assert "/nonsense of mine" in json.dumps(model.said())
            turn = await chat.send("/clear", interpret=True)
            assert [e async for e in turn][-1].HasField("turn_completed")
            await say(chat, "after")
        assert "/nonsense" not in json.dumps(model.said())


async def test_a_session_is_set_up_differently_between_turns(
    cold: Client, cold_thread: ServiceThread, model: Model
) -> None:
    """The next turn has another model and mode, in the same process; and so has its next process."""
    async with cold.chat() as chat:
        await say(chat, "hi")
        await chat.update(model="haiku", permission_mode=config_pb.PERMISSION_MODE_ACCEPT_EDITS)
        events = await say(chat, '::tool Write {"file_path":"f","content":"x"}\n::say done')
        assert _start(events)[0] == pb.START_KIND_HOT
        assert [failed for _, failed in _results(events)] == [False]
        assert "haiku" in model.asked[-1]["model"]
        (updated,) = [e.session_updated for e in chat.notices]
        assert "haiku" in updated.model
        assert updated.permission_mode == config_pb.PERMISSION_MODE_ACCEPT_EDITS
        kill_cli(cold_thread.service, chat.session_id)
        await ended(cold_thread.service, chat.session_id)
        await say(chat, "again")
        assert "haiku" in model.asked[-1]["model"]
        session = await cold.session(chat.session_id)
        assert session.config.model == "haiku"


async def test_an_update_that_cannot_be_changes_nothing(cold: Client, model: Model) -> None:
    """It is told by name, and the session goes on as it was."""
    async with cold.chat() as chat:
        await chat.update(model="none-such", permission_mode=config_pb.PERMISSION_MODE_PLAN)
        await chat.update(permission_mode=config_pb.PERMISSION_MODE_AUTO)
        assert (await say(chat, "hi"))[-1].HasField("turn_completed")
        assert [e.notice.code for e in chat.notices] == ["update_refused"] * 2
        assert not (await cold.session(chat.session_id)).config.permission_mode


async def test_a_running_turn_gets_another_mode(cold: Client) -> None:
    """What is asked for before is allowed after."""
    async with cold.chat() as chat:
        turn = await chat.send(
            '::delay 1s\n::tool Write {"file_path":"f","content":"x"}\n::say done'
        )
        await chat.update(permission_mode=config_pb.PERMISSION_MODE_ACCEPT_EDITS)
        events = [event async for event in turn]
    assert [failed for _, failed in _results(events)] == [False]


async def test_what_is_forbidden_later_holds_for_sessions_that_have_it() -> None:
    """A turn fails by name; another mode brings the session back."""
    plan = _config(permissionMode="PERMISSION_MODE_PLAN")
    with data_directory() as data:
        async with service_in(data, pool=_NO_SPARES) as service, client_of(service) as client:
            async with client.chat(config=plan) as chat:
                await say(chat, "hi")
                session_id = chat.session_id
        forbidden = {"forbidden_permission_modes": ["plan"]}
        async with service_in(data, pool=_NO_SPARES, limits=forbidden) as service:
            async with client_of(service) as client, client.chat(session_id=session_id) as chat:
                assert failure(await say(chat, "again")).reason == "POLICY_DENIED"
                await chat.update(permission_mode=config_pb.PERMISSION_MODE_DEFAULT)
                assert (await say(chat, "again"))[-1].HasField("turn_completed")
