"""An issuer of tokens on this machine: discovery, keys that rotate, and all that it could do wrong."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "warmline"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Issuer:
    """Signs tokens by keys that it shows. `asked` are the paths that it was asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.claimed_url = ""
        self.asked: list[str] = []
        self.down = False
        self.shown: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, PrivateKey] = {}
        self.rotate("first")

    def rotate(self, name: str, key: PrivateKey | None = None, **changes: Any) -> None:
        """Show one key and no other; the token is signed by it."""
        self._keys[name] = made = key or ec.generate_private_key(ec.SECP256R1())
        algorithm = ECAlgorithm if isinstance(made, ec.EllipticCurvePrivateKey) else RSAAlgorithm
        shown = json.loads(algorithm.to_jwk(made.public_key()))  # type: ignore[arg-type]  # its own
        self.shown = {name: shown | {"kid": name, "use": "sig"} | changes}

    def token(
        self,
        *,
        by: str = "",
        algorithm: str = "ES256",
        header: dict[str, Any] | None = None,
        key: Any = None,
        **claims: Any,
    ) -> str:
        """A token for acme that is good for a minute; a claim that is None is left out."""
        name = by or next(iter(self.shown))
        body = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "someone",
            "exp": time.time() + 60,
            "tenant": "acme",
        } | claims
        body = {claim: value for claim, value in body.items() if value is not None}
        signer = self._keys[name] if key is None else key
        return jwt.encode(body, signer, algorithm, {"kid": name} | (header or {}))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.down:
            return web.Response(status=503)
        if request.path == "/.well-known/openid-configuration":
            issuer = self.claimed_url or self.url
            return web.json_response({"issuer": issuer, "jwks_uri": f"{self.url}/keys"})
        return web.json_response({"keys": list(self.shown.values())})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While it is up."""
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()
