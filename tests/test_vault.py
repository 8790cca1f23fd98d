"""Secrets of callers: sealed for one owner with one key."""

import base64
from pathlib import Path

import pytest
from warmline_service.vault import SealBroken, Vault, open_vault

VALUES = {"authorization": "Bearer s3cret", "x-é": "ü"}


def test_what_is_sealed_opens_for_its_owner() -> None:
    """Each time otherwise, so that nobody sees who has the same."""
    vault = Vault(bytes(32))
    first, second = vault.seal("a", VALUES), vault.seal("a", VALUES)
    assert first != second
    assert "s3cret" not in base64.b64decode(first).decode("latin-1")
    assert vault.unseal("a", first) == vault.unseal("a", second) == VALUES


@pytest.mark.parametrize("owner", ["b", "", "a "])
def test_for_another_owner_it_stays_shut(owner: str) -> None:
    """A row that was copied to another tenant gives nothing."""
    vault = Vault(bytes(32))
    with pytest.raises(SealBroken):
        vault.unseal(owner, vault.seal("a", VALUES))


def test_changed_or_foreign_text_stays_shut() -> None:
    """Every bit counts, and so does the key."""
    vault = Vault(bytes(32))
    sealed = base64.b64decode(vault.seal("a", VALUES))
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            vault.unseal("a", base64.b64encode(bytes(changed)).decode())
    for text in ("", "x", "!!", "AAAA", base64.b64encode(sealed[:20]).decode(), "é"):
        with pytest.raises(SealBroken):
            vault.unseal("a", text)
    with pytest.raises(SealBroken):
        Vault(b"\x01" * 32).unseal("a", base64.b64encode(sealed).decode())


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """Only the owner of the file can read it, and it is the same the next time."""
    path = tmp_path / "vault.key"
    sealed = open_vault(path).seal("a", VALUES)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_vault(path).unseal("a", sealed) == VALUES
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It would be none."""
    path = tmp_path / "vault.key"
    open_vault(path)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="must not be readable by others"):
        open_vault(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    """By its name, before anything is stored with it."""
    path = tmp_path / "vault.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match=r"vault\.key: must hold 32 bytes in hex"):
        open_vault(path)


def test_keys_for_other_purposes_are_derived() -> None:
    """The same from the same key, another for each purpose, and none of them the key itself."""
    one, other = Vault(bytes(32)), Vault(bytes(31) + b"x")
    keys = [one.derive("a"), one.derive("b"), other.derive("a"), bytes(32)]
    assert len(set(keys)) == 4
    assert one.derive("a") == keys[0]
    assert {len(key) for key in keys} == {32}
