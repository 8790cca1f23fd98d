"""Between the slots and the provider: knows every slot's socket, whose it is, and what it used."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import OrderedDict
from pathlib import Path

import structlog
from aiohttp import web

from warmline_service.egress._account import MAX_REQUESTS, Access, Account, TooManyRequestsError
from warmline_service.egress._bodies import cut
from warmline_service.egress._count import TokenCounter
from warmline_service.egress._credential import Credential
from warmline_service.egress._endpoint import SlotEndpoint, listen_unix
from warmline_service.egress._faults import UpstreamError, error_response
from warmline_service.egress._meter import Meter
from warmline_service.egress._outlet import Outlet
from warmline_service.egress._provider import Provider, Route, route_of
from warmline_service.egress._way import Way
from warmline_service.egress.loopback import answer_warm_up
from warmline_service.errors import WarmlineError
from warmline_service.quota import Allowance
from warmline_service.worker import Endpoint, Slot

_log = structlog.get_logger(__name__)

# A turn's end is told after its process may be gone, and asks what the slot has used.
_KEPT_CLOSED = 1000


class Egress:
    """One listening socket per slot, one provider behind all of them.

    The socket that a request comes in on says whose it is; nothing in the request does. A slot that
    belongs to nobody yet gets a warm-up answer made here and never reaches the provider. `outlet` is what
    slots connect by that have a way to the network.
    """

    def __init__(self, provider: Provider, outlet: Outlet | None = None) -> None:
        self._provider = provider
        self._outlet = outlet
        self._accounts: dict[str, Account] = {}
        self._closed: OrderedDict[str, Account] = OrderedDict()
        self._endpoints: dict[str, SlotEndpoint] = {}

    @property
    def counter(self) -> TokenCounter:
        """Counts tokens for callers."""
        return TokenCounter(self._provider)

    async def start(self) -> None:
        """Get the provider ready."""
        await self._provider.start()

    async def aclose(self) -> None:
        """Close what is still open, then the provider."""
        await asyncio.gather(*(end.aclose() for end in list(self._endpoints.values())))
        await self._provider.aclose()
        if self._outlet is not None:
            self._outlet.close()

    async def open_endpoint(self, slot: Slot, listener: socket.socket | None = None) -> Endpoint:
        """Open a slot's way to the model: at `slot.sock`, or where `listener` is bound.

        The endpoint owns `listener` from then on. Raises OSError, and INTERNAL for a socket path
        that is too long; ValueError where the slot has an endpoint already.
        """
        if slot.id in self._accounts:
            raise ValueError(f"slot {slot.id} has an endpoint already")
        account = self._accounts[slot.id] = Account(slot.id)
        try:
            if listener is None:
                listener = await _listening(slot.sock)
        except BaseException:
            del self._accounts[slot.id]
            raise
        endpoint = self._endpoints[slot.id] = SlotEndpoint(
            listener,
            functools.partial(self._serve, account),
            functools.partial(self._retire, slot.id),
        )
        try:
            await endpoint.start()
        except BaseException:
            await endpoint.aclose()
            raise
        return endpoint

    async def open_way(self, slot: Slot, listener: socket.socket) -> None:
        """Serve a slot's way to the network where `listener` is bound, until its endpoint is closed.

        Takes the listener in any case. Raises OSError, also where the endpoint has been closed already.
        """
        assert self._outlet is not None
        endpoint = self._endpoints.get(slot.id)
        if endpoint is None:
            listener.close()
            raise ConnectionAbortedError(f"slot {slot.id} has no endpoint any more")
        endpoint.way = Way(self._accounts[slot.id], listener, self._outlet)
        await endpoint.way.start()

    def bind(self, slot_id: str, access: Access) -> None:
        """From now on the slot's requests are this session's.

        Once per slot: RuntimeError otherwise; KeyError for an unknown slot.
        """
        self._account(slot_id).bind(access)

    def renew(self, slot_id: str, credential: Credential | None, stored: str = "") -> None:
        """The slot's next request goes out with another credential; as `bind` raises."""
        self._account(slot_id).renew(credential, stored)

    def allow(self, slot_id: str, allowance: Allowance | None) -> None:
        """What the slot uses from now on is held to an allowance; KeyError for an unknown slot."""
        self._account(slot_id).allow(allowance)

    def hold(self, slot_id: str, until: asyncio.Future[bool]) -> None:
        """The slot's requests wait until this says that they may go out; KeyError for an unknown slot.

        Where it says no, none does any more.
        """
        self._account(slot_id).hold(until)

    def denied(self, slot_id: str) -> WarmlineError | None:
        """Why the slot may ask no more since `allow`, if that is so; KeyError for an unknown slot."""
        return self._account(slot_id).denied

    def unpaid(self, slot_id: str) -> WarmlineError | None:
        """Why the slot's last request had nothing to go out with, if that is so; as `denied` raises."""
        return self._account(slot_id).unpaid

    def paid_with(self, slot_id: str) -> str:
        """The name of the stored credential that the slot's last request was for; empty for another."""
        return self._account(slot_id).paid_with

    def meter(self, slot_id: str) -> Meter:
        """What the slot has used since it was bound; KeyError for an unknown slot."""
        return self._account(slot_id).meter

    def last_error(self, slot_id: str) -> UpstreamError | None:
        """The error that the slot's last request ended with; None after a good one."""
        return self._account(slot_id).fault

    def _account(self, slot_id: str) -> Account:
        return self._accounts.get(slot_id) or self._closed[slot_id]

    def _retire(self, slot_id: str) -> None:
        self._endpoints.pop(slot_id, None)
        self._closed[slot_id] = self._accounts.pop(slot_id)
        if len(self._closed) > _KEPT_CLOSED:
            self._closed.popitem(last=False)

    async def _serve(self, account: Account, request: web.BaseRequest) -> web.StreamResponse:
        try:
            with account.request():
                return await self._answer(account, request)
        except TooManyRequestsError:
            message = f"More than {MAX_REQUESTS} requests of one process at once."
            return error_response(429, message, {"retry-after": "1"})
        except WarmlineError as error:
            if request.writer.output_size:
                cut(request)
            return error_response(403, error.message)
        except ConnectionError:
            cut(request)  # Its client has gone while the answer was being written.
            return web.Response()
        except Exception:  # noqa: BLE001 - the edge: what is unknown goes to the log, not to the slot
            _log.exception("egress_failed", slot=account.slot_id)
            if request.writer.output_size:
                cut(request)
            return error_response(500, "The model request failed inside the service.")

    async def _answer(self, account: Account, request: web.BaseRequest) -> web.StreamResponse:
        route = route_of(request)
        if account.access is None and route is Route.MESSAGES:
            return await answer_warm_up(request)
        if account.access is None or route is None:
            return error_response(404, "There is nothing here.")
        if route is Route.ROOT:
            return web.Response()  # The CLI warms its connection with it: no provider is needed.
        await account.let_go()
        if route is Route.MESSAGES:
            await account.cover()
        return await self._provider.forward(request, route, account)


async def _listening(path: Path) -> socket.socket:
    """A socket at a path; none is left open where the caller goes away meanwhile."""
    making = asyncio.ensure_future(asyncio.to_thread(listen_unix, path))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait({making})
        if making.exception() is None:
            making.result().close()
        raise
