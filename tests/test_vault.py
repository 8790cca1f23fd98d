"""Secrets of callers: sealed for one owner, with keys that one master key opens in the end."""

import asyncio
import base64
import sys
from pathlib import Path

import pytest
from stores import opened
from warmline_service.config import VaultSettings
from warmline_service.store import Store
from warmline_service.vault import Master, SealBroken, Vault, read_master, unlock
from warmline_service.vault import _vault as vault_module

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


def test_owners_have_keys_of_their_own_which_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for many values of an owner, another one when it is worn; what it sealed opens all the same."""
    monkeypatch.setattr(vault_module, "_USES", 3)
    vault = Vault(bytes(32))

    def key_in(sealed: str) -> bytes:
        return base64.b64decode(sealed)[:60]

    sealed = [vault.seal("a", VALUES) for _ in range(4)] + [vault.seal("b", VALUES)]
    assert len({key_in(each) for each in sealed}) == 3
    assert key_in(sealed[0]) == key_in(sealed[2]) != key_in(sealed[3])
    assert [vault.unseal("a", each) for each in sealed[:4]] == [VALUES] * 4
    vault.renew("b")
    assert key_in(vault.seal("b", VALUES)) != key_in(sealed[4])


def test_another_owners_data_key_is_of_no_use() -> None:
    """Put before a value of one's own, it opens nothing."""
    vault = Vault(bytes(32))
    mine, other = (base64.b64decode(vault.seal(owner, VALUES)) for owner in ("a", "b"))
    for text in (other[:60] + mine[60:], mine[:60] + other[60:]):
        with pytest.raises(SealBroken):
            vault.unseal("a", base64.b64encode(text).decode())


def test_a_derived_key_is_of_one_purpose() -> None:
    """The same from the same root."""
    one, other = Vault(bytes(32)), Vault(b"\x01" * 32)
    assert one.derive("x") == Vault(bytes(32)).derive("x")
    assert len({one.derive("x"), one.derive("y"), other.derive("x"), bytes(32)}) == 4
    assert one.keyed_hash("v") == Vault(bytes(32)).keyed_hash("v") != other.keyed_hash("v")


async def test_services_on_one_database_share_the_root(postgres_url: str, tmp_path: Path) -> None:
    """Whichever is first: what one has sealed opens in the other."""
    master = Master((b"m" * 32,))
    async with opened(postgres_url, tmp_path / "a") as one:
        async with opened(postgres_url, tmp_path / "b") as two:
            first, second = await asyncio.gather(
                unlock(master, one.roots), unlock(master, two.roots)
            )
    assert second.unseal("a", first.seal("a", VALUES)) == VALUES


async def test_the_master_key_is_changed_and_the_old_one_goes(store: Store) -> None:
    """With both it is locked anew; from then on the new one alone opens it, and the old one does not."""
    old, new = b"o" * 32, b"n" * 32
    sealed = (await unlock(Master((old,)), store.roots)).seal("a", VALUES)
    with pytest.raises(SealBroken, match="another master key"):
        await unlock(Master((new,)), store.roots)
    for keys in ((new, old), (new,)):
        assert (await unlock(Master(keys), store.roots)).unseal("a", sealed) == VALUES
    with pytest.raises(SealBroken, match="another master key"):
        await unlock(Master((old,)), store.roots)


def master_in(directory: Path, **settings: object) -> Master:
    """The master key of these settings."""
    return read_master(VaultSettings(**settings), directory, {})


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """Only the owner of the file can read it, and it is the same the next time."""
    path = tmp_path / "vault.key"
    made = master_in(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert master_in(tmp_path) == made
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It would be none."""
    path = tmp_path / "vault.key"
    master_in(tmp_path)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="must not be readable by others"):
        master_in(tmp_path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, f"{'00' * 32}\n00"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    """By its name, before anything is stored with it."""
    path = tmp_path / "vault.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match=r"vault\.key: must hold 32 bytes in hex"):
        master_in(tmp_path)


def test_a_key_in_the_environment_is_taken_out_of_it(tmp_path: Path) -> None:
    """So that no process that the service starts has it."""
    environ = {"VAULT": f"{'ab' * 32}\n{'cd' * 32}", "PATH": "/bin"}
    master = read_master(VaultSettings(key_variable="VAULT"), tmp_path, environ)
    assert master.keys == (b"\xab" * 32, b"\xcd" * 32)
    assert environ == {"PATH": "/bin"}
    with pytest.raises(ValueError, match="the variable VAULT"):
        read_master(VaultSettings(key_variable="VAULT"), tmp_path, environ)
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_a_command(tmp_path: Path) -> None:
    """What it prints is the key, and is told to nobody where it is none."""
    prints = [sys.executable, "-c", f"print('{'ef' * 32}')"]
    assert master_in(tmp_path, key_command=prints).keys == (b"\xef" * 32,)
    fails = [sys.executable, "-c", "print('s3cret'); raise SystemExit(3)"]
    with pytest.raises(ValueError, match="ended with 3") as caught:
        master_in(tmp_path, key_command=fails)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ValueError, match="only one of"):
        VaultSettings(key_command=["x"], key_variable="X")
