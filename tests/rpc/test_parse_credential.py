"""Whose credential pays for what a stream begins with."""

import pytest
from warmline.v1 import session_config_pb2 as pb
from warmline_service.chat import Opening
from warmline_service.rpc._parse_credential import drop_shown, opening_paid_by, paid_by
from warmline_service.sessions import PayingCredential, SessionConfig
from warmline_service.tenants import OwnCredential, Principal

ANYBODY = Principal("acme", "key abcd", frozenset({"chat"}))
PAYER = Principal("own", "credential", frozenset({"chat"}), OwnCredential("sk-ant-m1ne"))
BEARER = Principal(
    "own", "credential", frozenset({"chat"}), OwnCredential("sk-ant-oat", oauth=True)
)
OTHER = SessionConfig(credential=PayingCredential(("api_key",), {"api_key": "another"}))


def test_who_is_known_by_a_credential_pays_with_it() -> None:
    """As what it is; nobody else's session gets one."""
    assert paid_by(PAYER, SessionConfig()).credential.given == {"api_key": "sk-ant-m1ne"}
    assert paid_by(BEARER, SessionConfig()).credential.given == {"oauth_token": "sk-ant-oat"}
    assert paid_by(ANYBODY, SessionConfig()) == SessionConfig()


def test_what_he_gives_instead_counts() -> None:
    """A session may have another credential."""
    assert paid_by(PAYER, OTHER) is OTHER


@pytest.mark.parametrize(
    "opening",
    [Opening(session_id="some"), Opening(fork_session="some")],
    ids=["existing", "fork"],
)
def test_what_goes_on_has_its_own_already(opening: Opening) -> None:
    """Set up as it was, and a fork as its original."""
    assert opening_paid_by(PAYER, opening) is opening


@pytest.mark.parametrize(
    "opening",
    [
        Opening(),
        Opening(latest=True),
        Opening(fork_session="some", config=SessionConfig(model="haiku")),
    ],
    ids=["new", "latest", "fork anew"],
)
def test_what_begins_does_not(opening: Opening) -> None:
    """Also where the latest session may turn out not to be there."""
    assert opening_paid_by(PAYER, opening).config.credential.names == ("api_key",)


def test_an_exported_credential_is_replaced_by_the_callers() -> None:
    """It says of what kind it was, and is empty; one that is given stays, and others have to give one."""
    shown = pb.SessionConfig(credential=pb.Credential(api_key=""))
    drop_shown(ANYBODY, shown)
    assert shown.HasField("credential")
    drop_shown(PAYER, shown)
    assert not shown.HasField("credential")
    given = pb.SessionConfig(credential=pb.Credential(api_key="another"))
    drop_shown(PAYER, given)
    assert given.HasField("credential")
