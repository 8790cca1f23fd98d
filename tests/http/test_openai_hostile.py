"""Whatever is sent as a request in OpenAI's format is refused by name, and never by a fault of ours."""

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conversing import PNG
from running import faking, running_service
from shimming import Shim, shim_before
from warmline_http._failure import Failure
from warmline_http.openai._body import CompletionBody
from warmline_http.openai._request import talk_of

_DEEP: Any = "x"
for _ in range(150):
    _DEEP = {"type": "object", "properties": _DEEP}
_CALL = {
    "id": "c",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": [1.5, null]}'},
}
_BODY: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be terse."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
        {"role": "user", "content": "and?"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": [1]}}}
    ],
    "tool_choice": "auto",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}},
    },
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "low",
    "n": 1,
}
_NASTY: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**40, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\x00", "\ud800",
    "x\r\ny: z", "x" * 70_000, "{", "[1]", '{"a": "\\ud800"}', '{"a": 1e999}', "[" * 3000, '{"a":' * 3000,
    "data:image/png;base64,", "data:image/png;base64,é", "data:image/png;base64,AAA", [], [[]], {},
    {"a": "\ud800"},
    {"\ud800": 1}, {"type": "object", "a": 10**400}, {"type": "object", "a": float("nan")},
    {"type": "object", "properties": {"a": {"pattern": "a{99999999999}"}}}, _DEEP,
    {"role": "user"}, {"role": "assistant", "tool_calls": [_CALL, _CALL]}, [_CALL] * 200, ["a"] * 20_000,
)  # fmt: skip
_TEXTS = (
    b"", b"null", b"[]", b"\"x\"", b"{", b"\xff\xfe", b'{"messages": [' + b"[" * 100_000, b'{"a":' * 100_000,
    b'{"messages": ' + b"9" * 10_000 + b"}", b'{"model": "\xed\xa0\x80"}',
    b'{"model": "none-such", "messages": [{"role": "system", "content": "\\ud800"},'
    b'{"role": "user", "content": "x"}]}',
)  # fmt: skip


def hostile_bodies(count: int) -> Iterator[bytes]:
    """Bodies that are wrong in a place or two, the same in each run."""
    yield from _TEXTS
    for seed in range(count):
        random = Random(seed)  # noqa: S311  # repeatable, not secret
        body = copy.deepcopy(_BODY)
        for _ in range(random.randint(1, 2)):
            _spoil(body, random)
        # A model that is not known: what is well-formed is refused before a process is asked for.
        yield json.dumps(body | {"model": random.choice(("none-such", "\x00", "a b"))}).encode()


def _spoil(value: Any, random: Random) -> None:
    """Put something else in one place of an object or a list."""
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not places:
            return
        place = random.choice(places)
        within = value[place]
        if isinstance(within, dict | list) and random.random() < 0.8:
            value = within
            continue
        if random.random() < 0.2:
            del value[place]
        else:
            value[place] = copy.deepcopy(random.choice(_NASTY))
        return


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Shim]:
    """A shim before a service; no process is asked for."""
    async with running_service(cli=faking(tmp_path)) as service, shim_before(service) as made:
        yield made


async def test_a_hostile_body_is_refused(shim: Shim) -> None:
    """By 4xx, in the API's shape, with words; never by a fault of ours."""
    seen = set()
    for body in hostile_bodies(250):
        headers = {"content-type": "application/json"}
        answer = await shim.http.post("/v1/chat/completions", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.text, body[:2000])
        error = answer.json()["error"]
        assert error["message"]
        seen.add(error["code"])
    assert {"field_invalid", "model_not_found"} <= seen


def test_a_hostile_body_is_a_conversation_or_a_failure() -> None:
    """Also in what is looked at when its session has been found."""
    talks = 0
    for text in hostile_bodies(1500):
        try:
            body = CompletionBody.model_validate(json.loads(text))
        except (ValueError, RecursionError):
            continue  # The framework tells it as a body that cannot be read.
        try:
            talk = talk_of(body, "key")
            talk.opening()
            talk.frame()
            if talk.said.results:
                talk.answers()
        except UnicodeEncodeError:
            continue  # So is half of a pair of surrogates.
        except Failure as failure:
            assert failure.status == 400  # noqa: PT017  # not all of them fail
            continue
        talks += 1
    assert talks > 100
