"""What callers give that nobody may read again: encrypted before it is stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
# A key that is wrapped: its nonce, the key, and GCM's tag.
_WRAPPED_BYTES = _NONCE_BYTES + KEY_BYTES + 16
# A data key seals so many values, for so many seconds; far below what AES-GCM allows with random nonces.
_USES = 2**20
_AGE = 30 * 24 * 3600.0
# Of owners whose data key is at hand.
_KEPT = 1000
_HASHES = "keyed hash"


class SealBroken(Exception):  # noqa: N818  # named for what is found
    """It was sealed with another key, for another owner, or has been changed since."""


@dataclass
class _DataKey:
    cipher: AESGCM
    wrapped: bytes
    made_at: float
    uses: int = 0

    @property
    def worn(self) -> bool:
        return self.uses >= _USES or time.monotonic() >= self.made_at + _AGE


class Vault:
    """Seals named values for an owner (AES-256-GCM); only with the same root key and for him they open.

    Each owner's values are sealed with a data key of its own, which stands before them, itself sealed with
    the root key. Whoever learns one data key learns what one owner gave in a month.
    """

    def __init__(self, root: bytes) -> None:
        self._root_key = root
        self._root = AESGCM(root)
        self._data_keys: OrderedDict[str, _DataKey] = OrderedDict()
        self._hash_key = self.derive(_HASHES)

    def seal(self, owner: str, values: Mapping[str, str]) -> str:
        """The values as text that says nothing of them but their length."""
        key = self._data_key(owner)
        sealed = encrypt(key.cipher, msgspec.json.encode(dict(values)), owner.encode())
        return base64.b64encode(key.wrapped + sealed).decode()

    def unseal(self, owner: str, sealed: str) -> dict[str, str]:
        """The values again; raises SealBroken."""
        try:
            data = base64.b64decode(sealed, validate=True)
        except (ValueError, binascii.Error) as error:
            raise SealBroken("this was never sealed") from error
        wrapped, rest = data[:_WRAPPED_BYTES], data[_WRAPPED_BYTES:]
        cipher = AESGCM(decrypt(self._root, wrapped, _key_of(owner)))
        return msgspec.json.decode(decrypt(cipher, rest, owner.encode()), type=dict[str, str])

    def renew(self, owner: str) -> None:
        """Seal the owner's next values with another data key; what is sealed still opens."""
        self._data_keys.pop(owner, None)

    def derive(self, purpose: str) -> bytes:
        """Another key of 32 bytes for one purpose: the same from the same root, and of no use for others."""
        info = f"warmline {purpose}".encode()
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._root_key)

    def keyed_hash(self, value: str) -> str:
        """A hash in hex that nobody can try values against who does not have the key."""
        return hmac.new(self._hash_key, value.encode(), hashlib.sha256).hexdigest()

    def _data_key(self, owner: str) -> _DataKey:
        key = self._data_keys.get(owner)
        if key is None or key.worn:
            made = os.urandom(KEY_BYTES)
            wrapped = encrypt(self._root, made, _key_of(owner))
            key = self._data_keys[owner] = _DataKey(AESGCM(made), wrapped, time.monotonic())
            if len(self._data_keys) > _KEPT:
                self._data_keys.popitem(last=False)
        self._data_keys.move_to_end(owner)
        key.uses += 1
        return key


def encrypt(cipher: AESGCM, data: bytes, about: bytes) -> bytes:
    """With a nonce of its own before it; opens only with the same `about`."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, about)


def decrypt(cipher: AESGCM, data: bytes, about: bytes) -> bytes:
    """What was encrypted; raises SealBroken."""
    try:
        return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError) as error:
        raise SealBroken("sealed with another key, or for another owner") from error


def _key_of(owner: str) -> bytes:
    return f"data key of {owner}".encode()
