"""No secret that looks like one is kept, and what is kept is bounded; what is none stays readable."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.audit import redacted, redacted_text

S = "Zq8hTn3vRk5wYx2mBd7c"  # What must not be seen.
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ{S}.{S}"

# What is given, and what is kept.
TEXTS = [
    (f"sk-ant-api03-{S}", "[redacted]"),
    (f"key=sk-ant-oat01-{S}, more", "key=[redacted], more"),
    (f"sk-proj-{S}", "[redacted]"),
    (f"use wl_ab12cd34_{S}{S} now", "use [redacted] now"),
    (f"Authorization: Bearer {S}", "Authorization: [redacted]"),
    (
        f"curl -H 'Authorization: Bearer {S}' https://x",
        "curl -H 'Authorization: [redacted]' https://x",
    ),
    (f'{{"authorization":"Basic {S}"}}', '{"authorization":"[redacted]"}'),
    (f'"{{\\"authorization\\":\\"Basic {S}\\"}}"', '"{\\"authorization\\":\\"[redacted]\\"}"'),
    (
        f"Proxy-Authorization: Digest user={S}\r\nHost: x",
        "Proxy-Authorization: [redacted]\r\nHost: x",
    ),
    (f"Cookie: a={S}; b={S}", "Cookie: [redacted]"),
    (f"Set-Cookie: sid={S}; Path=/", "Set-Cookie: [redacted]"),
    (f"send bearer {S} along", "send bearer [redacted] along"),
    (f"postgresql://app:{S}@db.example/x", "postgresql://app:[redacted]@db.example/x"),
    (f"amqp://u:{S}@{S}@h/x", "amqp://u:[redacted]@h/x"),
    (f"git clone https://{S}@github.com/a/b", "git clone https://[redacted]@github.com/a/b"),
    (f"redis://:{S}@h:6379/0", "redis://:[redacted]@h:6379/0"),
    (f"ghp_{S}{S}", "[redacted]"),
    (f"github_pat_{S}{S}", "[redacted]"),
    (f"glpat-{S}", "[redacted]"),
    ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
    (f"xoxb-123456789-{S}", "[redacted]"),
    (f"AIza{S}{S}", "[redacted]"),
    (f"npm_{S}{S}", "[redacted]"),
    (f"sk_live_{S}", "[redacted]"),
    (JWT, "[redacted]"),
    (f"curl -u me:{S} https://x", "curl -u me:[redacted] https://x"),
    (f"export GITHUB_TOKEN={S}", "export GITHUB_TOKEN=[redacted]"),
    (f"DB_PASSWORD='{S} {S}' run", "DB_PASSWORD=[redacted] run"),
    (f'{{"client_secret": "{S}", "n": 1}}', '{"client_secret": [redacted], "n": 1}'),
    (f"api_key: {S}", "api_key: [redacted]"),
    (f"X-Api-Key: {S}", "X-Api-Key: [redacted]"),
    (f"https://x/?access_token={S}&page=2", "https://x/?access_token=[redacted]&page=2"),
    (f"login --password {S} --verbose", "login --password [redacted] --verbose"),
    (f"tool --api-key={S}", "tool --api-key=[redacted]"),
    (f"tool --auth-token '{S}' x", "tool --auth-token [redacted] x"),
    (
        f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n{S}\n-----END RSA PRIVATE KEY-----\nafter",
        "[redacted]\nafter",
    ),
    (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{S}", "[redacted]"),
]
PLAIN = [
    "ls -la /tmp && cat README.md",
    "git commit -m 'Say what tokens cost'",
    "https://example.com/a/b?c=d#e",
    "max_tokens is 100",
    "a basic question about passwords",
    "the secret of good coffee",
    "user@example.com",
    "2026-01-31T12:00:00Z 10:20:30",
    "sk-1",
]


@pytest.mark.parametrize(("text", "kept"), TEXTS)
def test_a_secret_is_taken_out_of_a_text(text: str, kept: str) -> None:
    """By its form, or by what stands before it; the rest is left."""
    assert redacted_text(text) == kept
    assert S not in redacted_text(f"{text} and {text}")


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_is_left_alone(text: str) -> None:
    """A log that hides everything tells nothing."""
    assert redacted_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "db_passwd", "pwd", "passphrase", "client_secret", "clientSecret", "apiKey",
        "api-key", "x-api-key", "Authorization", "cookie", "access_token", "refreshToken", "token",
        "private_key", "credentials", "pin", "otp", "auth", "jwt", "session_key",
    ],
)  # fmt: skip
def test_a_value_under_the_name_of_a_secret_is_taken_out(name: str) -> None:
    """However the name is written, and whatever the value is."""
    for value in (S, [S], {"a": S}):
        assert redacted({name: value}) == {name: "[redacted]"}
        assert S not in json.dumps(redacted({"outer": [{name: value}]}))


@pytest.mark.parametrize("name", ["max_tokens", "author", "keyboard", "path", "spin", "passage"])
def test_a_value_under_another_name_is_left(name: str) -> None:
    """Numbers of tokens are no tokens."""
    assert redacted({name: 5}) == {name: 5}


def test_a_secret_as_a_name_is_taken_out() -> None:
    """Names are text as well."""
    assert redacted({f"sk-ant-{S}": 1}) == {"[redacted]": 1}


@pytest.mark.parametrize("cut", [0, 5, 60, 1000])
def test_a_secret_on_the_edge_is_seen_whole(cut: int) -> None:
    """What is cut is cut when it has been looked at."""
    text = "x" * (1024 - cut) + f" sk-ant-api03-{S}{S}{S}"
    assert "sk-ant" not in redacted_text(text)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3000),
    lambda inner: st.lists(inner, max_size=90) | st.dictionaries(st.text(max_size=300), inner),
    max_leaves=60,
)


@given(st.dictionaries(st.text(), _JSON))
def test_whatever_a_tool_is_given_what_is_kept_is_bounded(given_: dict[str, Any]) -> None:
    """It is JSON, and not much of it."""
    kept = redacted(given_)
    assert len(json.dumps(kept, ensure_ascii=False)) < 40 * 1024


def test_deep_and_wide_inputs_are_cut() -> None:
    """With a word that something is missing."""
    deep: Any = "bottom"
    for _ in range(50):
        deep = {"a": deep}
    assert "bottom" not in json.dumps(redacted(deep))
    wide = redacted({str(n): n for n in range(100)})
    assert wide["…"] == "36 more"
    assert redacted({"list": list(range(100))})["list"][-1] == "… 36 more"
    assert redacted({"number": 10**5000}) == {"number": "…"}


@pytest.mark.parametrize(
    "text",
    [
        "a" * 4000, "-" * 4000, "://" * 1300, "://a:" * 800, "password" * 500, "token " * 600,
        "-----BEGIN A-----" * 200, "eyJ" * 1300, " " * 4000, "authorization" * 300, "--a-a-a-" * 500,
        "password='" * 400, "bearer " * 500, "\\" * 4000, "-u " * 1000,
    ],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """What a caller can say must not stop the service."""
    began = time.process_time()
    for _ in range(10):
        redacted_text(text)
    assert (time.process_time() - began) / 10 < 0.02
