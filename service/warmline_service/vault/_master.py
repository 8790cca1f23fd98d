"""The master key, which opens the root key and nothing else: from a file, the environment or a command."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from warmline_service.config import VaultSettings
from warmline_service.vault._vault import KEY_BYTES, SealBroken, Vault, decrypt, encrypt

_COMMAND_TIMEOUT = 30.0
_ID_BYTES = 8
_ROOT = b"root key"


@dataclass(frozen=True)
class Master:
    """Master keys, the one that holds first; those after it are on their way out, and only open."""

    keys: tuple[bytes, ...] = field(repr=False)

    def wrap(self, root: bytes) -> bytes:
        """A root key as it is stored."""
        key = self.keys[0]
        return _id(key) + encrypt(AESGCM(key), root, _ROOT)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The root key again; raises SealBroken where none of the master keys opens it."""
        for key in self.keys:
            if wrapped[:_ID_BYTES] == _id(key):
                return decrypt(AESGCM(key), wrapped[_ID_BYTES:], _ROOT)
        raise SealBroken("the vault was locked with another master key")

    def holds(self, wrapped: bytes) -> bool:
        """Whether the key that holds has wrapped it."""
        return wrapped[:_ID_BYTES] == _id(self.keys[0])


class Roots(Protocol):
    """Keeps the root key, wrapped, for all services that share a database. Raises STORAGE_UNAVAILABLE."""

    async def offer_root(self, wrapped: bytes) -> bytes:
        """The one that is kept: this one, if there was none."""
        ...

    async def replace_root(self, old: bytes, new: bytes) -> bool:
        """Keep another in place of one; False where that was not the one."""
        ...


async def unlock(master: Master, roots: Roots) -> Vault:
    """The vault; its root key is made where there is none, and wrapped anew after a change of the master key.

    Raises SealBroken where the master key is another one's, STORAGE_UNAVAILABLE.
    """
    wrapped = await roots.offer_root(master.wrap(os.urandom(KEY_BYTES)))
    root = master.unwrap(wrapped)
    if not master.holds(wrapped):
        # Another service that does the same at the same time has the same key to do it with.
        await roots.replace_root(wrapped, master.wrap(root))
    return Vault(root)


def read_master(
    settings: VaultSettings, data_dir: Path, environ: MutableMapping[str, str]
) -> Master:
    """The master key that the settings name; a file of its own is made where there is none. It blocks.

    A variable is taken out of `environ`, so that nothing can inherit it. Raises OSError, and ValueError for
    what holds no key, or can be read by others.
    """
    if settings.key_command:
        return _parsed("vault.key_command", _said_by(settings.key_command))
    if settings.key_variable:
        value = environ.pop(settings.key_variable, "")
        return _parsed(f"the variable {settings.key_variable}", value)
    path = settings.key_file or data_dir / "vault.key"
    with contextlib.suppress(FileExistsError):
        _make(path)
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: must not be readable by others (chmod 600)")
    return _parsed(str(path), path.read_text(encoding="ascii", errors="replace"))


def _parsed(where: str, text: str) -> Master:
    """One key in each line, the one that holds first."""
    keys = []
    for line in text.split():
        try:
            keys.append(bytes.fromhex(line))
        except ValueError:
            keys.append(b"")
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise ValueError(f"{where}: must hold {KEY_BYTES} bytes in hex, in each line that it has")
    return Master(tuple(keys))


def _said_by(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"vault.key_command: no answer in {_COMMAND_TIMEOUT:g} s") from None
    if done.returncode:
        # Not what it wrote: that may be the key.
        raise ValueError(f"vault.key_command: ended with {done.returncode}")
    return done.stdout.decode("ascii", "replace")


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"warmline master key " + key).digest()[:_ID_BYTES]


def _make(path: Path) -> None:
    """Whole or not at all: a key that was lost in part would take every secret with it."""
    if path.exists():
        return
    half = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(os.urandom(KEY_BYTES).hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # Another service on the same directory may have been first: then its key holds.
        os.link(half, path)
    finally:
        half.unlink()
