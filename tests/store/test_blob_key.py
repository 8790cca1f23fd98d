"""Keys: only what we build of checked parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmline_service.store import blob_key, blob_prefix
from warmline_service.store._blob_key import check_key, check_prefix

SESSION = "0b6c2c1e-5a58-4a0e-8a58-0f6f7a2f3c11"
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/a",
    "a\n",
    "a\0",
    "A",
    "é",
    " a",
    "a" * 200,
    ".hidden",
    "a\\b",
]


def test_a_key_is_its_parts() -> None:
    """Tenant, session, name."""
    assert blob_key("acme", SESSION, "work.tar.zst") == f"acme/{SESSION}/work.tar.zst"


@pytest.mark.parametrize("part", HOSTILE)
def test_no_part_can_be_more_than_a_name(part: str) -> None:
    """Whatever could lead elsewhere is refused, in each place."""
    with pytest.raises(ValueError, match="cannot be part"):
        blob_key(part, SESSION, "x")
    with pytest.raises(ValueError, match="cannot be part"):
        blob_key("acme", part, "x")
    with pytest.raises(ValueError, match="cannot be part"):
        blob_key("acme", SESSION, part)
    with pytest.raises(ValueError, match="cannot be part"):
        blob_prefix(part)


@pytest.mark.parametrize("session", [SESSION.upper(), SESSION.replace("-", ""), f"{{{SESSION}}}"])
def test_a_session_has_one_spelling(session: str) -> None:
    """Other ways to write the same uuid would be other keys."""
    with pytest.raises(ValueError, match="session_id"):
        blob_key("acme", session, "x")


def test_a_prefix_is_no_other_tenants_beginning() -> None:
    """`acme` does not reach `acme2`."""
    assert not blob_key("acme2", SESSION, "x").startswith(blob_prefix("acme"))
    assert blob_key("acme", SESSION, "x").startswith(blob_prefix("acme", SESSION))


@given(st.tuples(*[st.text(max_size=70)] * 3))
def test_what_is_accepted_has_three_parts(parts: tuple[str, str, str]) -> None:
    """No text makes a key with other parts than it was given."""
    try:
        key = blob_key(parts[0], SESSION, parts[2])
    except ValueError:
        return
    assert key.split("/") == [parts[0], SESSION, parts[2]]
    check_key(key)


@pytest.mark.parametrize(
    "key", ["", "acme", f"acme/{SESSION}/..", f"acme/{SESSION}/../x", "/etc/passwd"]
)
def test_a_key_that_was_not_built_is_refused(key: str) -> None:
    """The store takes no other keys, and no other prefixes: not even the empty one."""
    with pytest.raises(ValueError, match="not the key"):
        check_key(key)
    with pytest.raises(ValueError, match="not the prefix"):
        check_prefix(key)
