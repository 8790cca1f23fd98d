"""What callers give that nobody may read again: encrypted before it is stored."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES = 32
_NONCE_BYTES = 12


class SealBroken(Exception):  # noqa: N818  # named for what is found
    """It was sealed with another key, for another owner, or has been changed since."""


class Vault:
    """Seals named values for an owner (AES-256-GCM); only with the same key and for him they open."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._key = key

    def derive(self, purpose: str) -> bytes:
        """Another key of 32 bytes for one purpose: the same from the same key, and of no use for others."""
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"warmline {purpose}".encode()).derive(
            self._key
        )

    def seal(self, owner: str, values: Mapping[str, str]) -> str:
        """The values as text that says nothing of them but their length."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, msgspec.json.encode(dict(values)), owner.encode())
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, owner: str, sealed: str) -> dict[str, str]:
        """The values again; raises SealBroken."""
        try:
            data = base64.b64decode(sealed, validate=True)
            text = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SealBroken("sealed with another key, or for another owner") from error
        return msgspec.json.decode(text, type=dict[str, str])


def open_vault(path: Path) -> Vault:
    """The vault of the key in a file; a new key is made where there is none. It blocks.

    Raises OSError, and ValueError for a file that holds no key or that others may read.
    """
    with contextlib.suppress(FileExistsError):
        _make(path)
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: must not be readable by others (chmod 600)")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError(f"{path}: must hold {_KEY_BYTES} bytes in hex")
    return Vault(key)


def _make(path: Path) -> None:
    """Whole or not at all: a key that was lost in part would take every secret with it."""
    if path.exists():
        return
    half = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(os.urandom(_KEY_BYTES).hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # Another service on the same directory may have been first: then its key holds.
        os.link(half, path)
    finally:
        half.unlink()
