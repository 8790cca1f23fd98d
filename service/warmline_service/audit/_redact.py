"""What must not be kept is taken out: values under names of secrets, and what looks like one anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MARK = "[redacted]"
_CUT = "…"

# What is looked at beyond what is kept, so that a secret on the edge is still seen whole.
_MARGIN = 2048
_STRING = 1024
_NAME = 128
_DEPTH = 8
_ENTRIES = 64
_BITS = 256
# Of everything together, in characters.
_WHOLE = 8 * 1024

# Names whose values are secrets, whatever those are; compared without case and punctuation.
_SECRET_NAMES = re.compile(
    r"passw(or)?d|passphrase|passcode|secret|credential|authorization|cookie|apikey|accesskey|privatekey|"
    r"signingkey|encryptionkey|sessionkey|pwd$|^pass$|^auth$|^pin$|^otp$"
)
# Of these only text is one: there are numbers of tokens.
_TOKEN_NAMES = re.compile(r"token|bearer|jwt|signature|nonce")

_WORDS = r"passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|pwd"
_SMALL_WORDS = ("passw", "passphrase", "secret", "token", "key", "credential", "pwd")
# What a text must hold, in small letters, for an expression to be worth trying: looking for it costs
# little. Each begins with fixed text, or nearly so, and repeats within bounds: no text costs much.
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    # A PEM block, also one that is cut.
    (
        ("-----begin",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL
        ),
        MARK,
    ),
    # Headers, to the end of the line or of the quotes around them.
    (
        ("authorization", "cookie"),
        re.compile(
            r"\b((?:proxy-)?authorization|(?:set-)?cookie)(\\?[\"']?\s{0,8}[:=]\s{0,8}\\?[\"']?)[^\r\n\"'\\]+",
            re.IGNORECASE,
        ),
        rf"\1\2{MARK}",
    ),
    # A word in small letters is one of a sentence.
    (
        ("bearer", "basic"),
        re.compile(r"(?i:\b(bearer|basic))\s{1,8}(?=[a-z]*[A-Z0-9._~+/=-])[A-Za-z0-9._~+/=-]{8,}"),
        rf"\1 {MARK}",
    ),
    # scheme://user:password@host, and scheme://token@host.
    (("://",), re.compile(r"(://[^\s/:@\"']{0,256}:)[^\s/\"']{1,1024}@"), rf"\1{MARK}@"),
    (("://",), re.compile(r"(://)[^\s/:@\"']{16,1024}@"), rf"\1{MARK}@"),
    # Keys that tell by their form what they are.
    (("sk-",), re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), MARK),
    (("wl_",), re.compile(r"\bwl_[a-z0-9]{4,32}_[A-Za-z0-9_-]{8,}"), MARK),
    (
        ("ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_"),
        re.compile(r"\b(?:gh[opsur]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})"),
        MARK,
    ),
    (("glpat-",), re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}"), MARK),
    (("xox",), re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}"), MARK),
    (("akia", "asia"), re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MARK),
    (("aiza",), re.compile(r"\bAIza[A-Za-z0-9_-]{30,}"), MARK),
    (("npm_", "hf_"), re.compile(r"\b(?:npm|hf)_[A-Za-z0-9]{30,}"), MARK),
    (("pypi-",), re.compile(r"\bpypi-[A-Za-z0-9_-]{30,}"), MARK),
    (("k_live_", "k_test_"), re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{8,}"), MARK),
    # A JWT.
    (
        ("eyj",),
        re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
        MARK,
    ),
    # curl -u user:password
    (
        ("-u", "--user"),
        re.compile(r"(\s(?:-u|--user)[ =]['\"]?[^\s:'\"]{1,256}:)[^\s'\"]+"),
        rf"\1{MARK}",
    ),
    # NAME_TOKEN=..., "password": "...", X-Secret: ...
    (
        _SMALL_WORDS,
        re.compile(
            rf"((?:{_WORDS})[A-Za-z0-9_-]{{0,32}}\\?[\"']?\s{{0,8}}[:=]\s{{0,8}})"
            r"(?:\"[^\"]{0,2048}\"?|'[^']{0,2048}'?|[^\s\"';&|,)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    # --api-key ...
    (
        _SMALL_WORDS,
        re.compile(
            rf"(-(?:[a-z0-9]{{1,24}}-){{0,3}}(?:{_WORDS})s?\s{{1,8}})(?:\"[^\"]*\"?|'[^']*'?|[^\s-][^\s]*)",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
)


def redacted_text(text: str, most: int = _STRING) -> str:
    """A text without what looks like a secret, and no longer than `most` characters."""
    shown = text[: most + _MARGIN]
    small = shown.lower()
    for hints, pattern, replacement in _RULES:
        if any(hint in small for hint in hints):
            shown = pattern.sub(replacement, shown)
    # No half of a character that UTF-16 takes two for.
    shown = shown.encode("utf-8", "replace").decode()
    if len(shown) <= most and len(text) <= most + _MARGIN:
        return shown
    return shown[:most] + _CUT


def redacted(given: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without secrets, and bounded: in all, in depth, and in what each part may take."""
    left = [_WHOLE]
    return dict(_entries(given, left, _DEPTH))


def _entries(given: Mapping[Any, Any], left: list[int], depth: int) -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in given.items():
        if len(out) == _ENTRIES or left[0] <= 0:
            out.append((_CUT, f"{len(given) - len(out)} more"))
            break
        shown = redacted_text(str(name), _NAME)
        left[0] -= len(shown)
        out.append((shown, MARK if _is_secret(str(name), value) else _value(value, left, depth)))
    return out


def _value(value: Any, left: list[int], depth: int) -> Any:
    if isinstance(value, str):
        shown = redacted_text(value, max(0, min(_STRING, left[0])))
        left[0] -= len(shown)
        return shown
    left[0] -= 8
    if isinstance(value, int):
        return value if value.bit_length() <= _BITS else _CUT
    if value is None or isinstance(value, float):
        return value
    if not depth:
        return _CUT
    if isinstance(value, Mapping):
        return dict(_entries(value, left, depth - 1))
    if isinstance(value, list | tuple):
        return _items(value, left, depth - 1)
    return _CUT


def _items(given: list[Any] | tuple[Any, ...], left: list[int], depth: int) -> list[Any]:
    out: list[Any] = []
    for value in given:
        if len(out) == _ENTRIES or left[0] <= 0:
            out.append(f"{_CUT} {len(given) - len(out)} more")
            break
        out.append(_value(value, left, depth))
    return out


def _is_secret(name: str, value: Any) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name[:_NAME].lower())
    if _SECRET_NAMES.search(plain):
        return value is not None and not isinstance(value, bool)
    return isinstance(value, str | dict | list) and bool(_TOKEN_NAMES.search(plain))
