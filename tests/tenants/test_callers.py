"""Which services ask who calls, by their settings alone."""

from __future__ import annotations

from typing import Any

import pytest
from warmline_service.config import load
from warmline_service.tenants import asks_callers

KEY = {"id": "abcd", "sha256": "0" * 64}
ISSUER = {"issuer": "https://login.example.org", "audience": "warmline"}
MTLS = {"certificate": "a", "key": "b", "client_ca": "c"}


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.1.2.3:0", "[::1]:0", "localhost:0"])
def test_on_loopback_nobody_is_asked(listen: str) -> None:
    """As long as nobody could be known."""
    assert not asks_callers(load(listen=listen, tenants=[{"id": "acme"}]))


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "0.0.0.0:0"},
        {"listen": "[::]:0"},
        {"listen": "192.0.2.1:0"},
        {"listen": "example.com:0"},
        {"listen": "localhost.example.com:0"},
        {"auth": "required"},
        {"tenants": [{"id": "acme", "keys": [KEY]}]},
        {"tenants": [{"id": "acme", "identities": ["a.example.org"]}], "tls": MTLS},
        {"oidc": [ISSUER]},
        {"provider": {"caller_credentials": True, "caller_tenants": True}},
    ],
)
def test_everywhere_else_callers_are_asked(settings: dict[str, Any]) -> None:
    """Where others reach the port, and where somebody could be known."""
    assert asks_callers(load(**settings))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tenants": [{"id": "acme", "identities": ["a.example.org"]}]}, "tls.client_ca"),
        ({"provider": {"caller_tenants": True}}, "caller_credentials"),
        ({"oidc": [ISSUER, ISSUER]}, "oidc issuer given twice"),
        (
            {"tenants": [{"id": a, "identities": ["x"]} for a in ("a", "b")], "tls": MTLS},
            "identity given twice",
        ),
        ({"auth": "none"}, "auth"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], says: str) -> None:
    """By a message that names it."""
    with pytest.raises(ValueError, match=says):
        load(**settings)
