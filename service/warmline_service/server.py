"""Wires the parts together; starts them in order, drains and stops them in reverse."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from warmline_service.audit import KEY_PURPOSE, AuditLog, Chain, head_file
from warmline_service.chat import (
    Conversations,
    ModelCatalog,
    Policy,
    Runtime,
    spare_keys,
)
from warmline_service.config import SandboxSettings, Settings
from warmline_service.credentials import TokenEndpoint, Wallet
from warmline_service.egress import Egress, EgressAccess, Outlet, make_provider, operator_credential
from warmline_service.errors import WarmlineError
from warmline_service.mcp import Broker
from warmline_service.pool import FirstSpares, Pool, capacity, default_memory_budget
from warmline_service.quota import Measure, Prices, Quota, Rates
from warmline_service.rpc import (
    AdminServicer,
    RpcServer,
    build_server,
    private_address,
    read_credentials,
)
from warmline_service.sandbox import Sandbox, SandboxMissing, find_sandbox
from warmline_service.sessions import Journal, Keeper, Portable, Sessions, Workspaces
from warmline_service.store import ArchiveLimits, Archives, Blobs, Store, open_database
from warmline_service.tenants import Callers, NoKey, TenantPolicies
from warmline_service.vault import SealBroken, Vault, read_master, unlock
from warmline_service.worker import Capabilities, CliProcess, Launcher, Site, Slot, SpawnKey, probe

_log = structlog.get_logger(__name__)

# After the drain's own grace: what a stream that does not end by itself still gets.
_STREAM_GRACE = 1.0
_KEY_VARIABLE = "ANTHROPIC_API_KEY"


class Unsafe(Exception):  # noqa: N818  # named for what is the case
    """The settings would open the service to those who should not reach it."""


class Service:
    """The whole service in one process. `drain_asked` is set when an operator wants it to stop.

    `show_key` is given the first API key, once, where callers have to show one and there is none at all.
    """

    def __init__(self, settings: Settings, show_key: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self.drain_asked = asyncio.Event()
        self._show_key = show_key
        self.port = 0
        # Where the HTTP shim of this service reaches it; empty where there is to be none.
        self.private = ""
        self._sandbox: Sandbox | None = None
        self._site: Site | None = None
        self._egress: Egress | None = None
        self._launcher: Launcher | None = None
        self._pool: Pool[CliProcess] | None = None
        self._store: Store | None = None
        self._journal: Journal | None = None
        self._audit: AuditLog | None = None
        self._archives: Archives | None = None
        self._workspaces: Workspaces | None = None
        self._keeper: Keeper | None = None
        self._own_credential = False
        self._vault: Vault | None = None
        self._callers: Callers | None = None
        self._wallet: Wallet | None = None
        self._broker: Broker | None = None
        self._quota: Quota | None = None
        self._conversations: Conversations | None = None
        self._rpc: RpcServer | None = None

    async def start(self) -> None:
        """Start everything; on return the port is open.

        Raises Unsafe, OSError (port, data directory) and WarmlineError (CLI_NOT_FOUND, CLI_CRASHED),
        and leaves nothing behind then.
        """
        try:
            await self._start()
        except NoKey as error:
            await self.stop(grace=0.0)
            raise Unsafe(str(error)) from error
        except BaseException:
            await self.stop(grace=0.0)
            raise

    async def _start(self) -> None:
        settings = self.settings
        slots = await asyncio.to_thread(make_slots_root, settings.data_dir)
        try:
            self._sandbox = await asyncio.to_thread(find_sandbox, settings)
        except SandboxMissing as error:
            raise Unsafe(str(error)) from error
        # What a killed service left in its slots is saved first; for that the store has to be open.
        self._site = await Site.prepare(
            settings.cli,
            slots,
            salvage=self._salvage,
            claimed=self._open_store,
            sandbox=self._sandbox,
            level=settings.policy.sandbox or settings.sandbox.level,
        )
        callers = await self._start_callers()
        wallet = self._wallet = self._open_wallet()
        capabilities = await probe(self._site)
        _log.info("cli probed", path=str(self._site.binary), version=capabilities.version)
        if not settings.pool.warm_up:
            capabilities = replace(capabilities, warming=False, priming=False)
        egress = await self._start_egress(wallet)
        first = await self._start_pool(self._site, egress, capabilities)
        catalog = ModelCatalog(capabilities.models, settings.models)
        conversations = await self._start_conversations(egress, catalog, capabilities, wallet)
        admin = AdminServicer(
            callers.administration, wallet, self.pool.stats, self.drain_asked.set, self._site.levels
        )
        tls = settings.tls
        credentials = await asyncio.to_thread(read_credentials, tls) if tls else None
        assert self._quota is not None
        assert self._audit is not None
        doors = callers.authenticator, self._quota, admin, self._audit, egress.counter
        if settings.http_listen:
            self.private = await asyncio.to_thread(private_address, settings.data_dir)
        self._rpc = build_server(
            settings, conversations, catalog, *doors, credentials, self.private
        )
        # Ready means warm: who connects at once shall not wait for a process.
        await first.up(len(self._kinds(capabilities)), settings.cli.start_timeout)
        await self._rpc.start()
        self.port = self._rpc.port

    async def _start_callers(self) -> Callers:
        assert self._store is not None
        assert self._vault is not None
        self._callers = Callers(self.settings, self._store.tenants, self._vault.keyed_hash)
        await self._callers.start(self._show_key)
        return self._callers

    def _open_wallet(self) -> Wallet:
        assert self._store is not None
        assert self._vault is not None
        oauth = self.settings.provider.oauth
        endpoint = TokenEndpoint(oauth) if oauth is not None else None
        # A turn is given up for want of a store after this time, and not earlier for want of a credential.
        patience = self.settings.store.outage_grace
        return Wallet(self._store.credentials, self._vault, endpoint, patience=patience)

    async def _start_egress(self, wallet: Wallet) -> Egress:
        settings = self.settings
        # Taken out of the service's own environment, so that nothing can inherit it.
        key = {_KEY_VARIABLE: os.environ.pop(_KEY_VARIABLE, "")}
        self._own_credential = await asyncio.to_thread(has_credential, settings, key)
        if not (self._own_credential or await self._others_pay()):
            raise Unsafe(
                "There is no model credential: set ANTHROPIC_API_KEY or provider.api_key_file, or "
                "use `--provider loopback`, which needs none. To store them for tenants first: "
                "provider.stored_credentials."
            )
        provider = await asyncio.to_thread(make_provider, settings.provider, key, wallet)
        assert self._callers is not None
        assert self._audit is not None
        outlet = Outlet(settings.sandbox, self._callers.policies, self._audit)
        self._egress = Egress(provider, outlet)
        await self._egress.start()
        return self._egress

    async def _others_pay(self) -> bool:
        """Whether there are others than the operator to pay for sessions."""
        provider = self.settings.provider
        if provider.caller_credentials or provider.stored_credentials:
            return True
        assert self._store is not None
        return await self._store.credentials.any_stored()

    async def _start_pool(
        self, site: Site, egress: Egress, capabilities: Capabilities
    ) -> FirstSpares:
        settings = self.settings
        self._launcher = Launcher(site, egress.open_endpoint, capabilities, egress.open_way)
        budget = settings.pool.memory_budget_bytes
        budget = budget or await asyncio.to_thread(default_memory_budget)
        first = FirstSpares(capacity(settings.pool, budget), settings.pool.min_spares)
        self._pool = Pool(
            settings.pool,
            self._launcher.start,
            spare_keys=self._kinds(capabilities),
            memory_budget=budget,
            events=first,
        )
        await self._pool.start()
        return first

    def _kinds(self, capabilities: Capabilities) -> tuple[SpawnKey, ...]:
        bare = self.settings.pool.bare_spares
        wanted = bool(self.settings.http_listen) if bare is None else bare
        return spare_keys(capabilities, bare=wanted)

    async def _start_conversations(
        self, egress: Egress, catalog: ModelCatalog, capabilities: Capabilities, wallet: Wallet
    ) -> Conversations:
        settings, store, workspaces = self.settings, self._store, self._workspaces
        assert store is not None
        assert workspaces is not None
        assert self._journal is not None
        assert self._vault is not None
        assert self._callers is not None
        assert self._site is not None
        quota = self._quota = open_quota(
            settings, store, self._callers.policies, workspaces.stored_bytes
        )
        quota.start()
        assert self._audit is not None
        sessions = Sessions(store, quota, settings.retention, self._vault)
        self._broker = Broker(settings.mcp)
        runtime = Runtime(
            self.pool,
            EgressAccess(egress),
            catalog,
            capabilities,
            settings.cli,
            settings.limits,
            store,
            sessions,
            self._journal,
            workspaces,
            Portable(store, sessions, workspaces, quota, settings.store),
            self._broker,
            self._vault,
            Policy(
                settings.limits,
                settings.cli,
                settings.mcp,
                settings.provider,
                self._own_credential,
                self._site.level,
                self._site.levels,
            ),
            quota,
            self._audit,
            wallet,
        )
        self._conversations = Conversations(runtime)
        self._keeper = Keeper(
            store,
            settings.store,
            settings.retention,
            recover=self._conversations.recover,
            # A file that is ours alone nobody else can write meanwhile.
            fence=self._conversations.fence if settings.store.url else None,
            remove=self._conversations.remove,
        )
        await self._keeper.start()
        recovered = await self._conversations.recover()
        if recovered:
            _log.warning("turns of an earlier run ended", sessions=recovered)
        return self._conversations

    async def _open_store(self) -> None:
        """Open the store; the directory of slots has been claimed, and nothing has been wiped."""
        settings = self.settings
        root = settings.data_dir.expanduser().absolute()
        url = settings.store.url.get_secret_value() if settings.store.url else ""
        node_id = await asyncio.to_thread(own_node_id, root)
        master = await asyncio.to_thread(read_master, settings.vault, root, os.environ)
        blobs = Blobs(settings.store.blob_url, root / "blobs")
        self._store = Store(open_database(url, root / "warmline.db"), blobs, node_id)
        await self._store.open()
        try:
            self._vault = await unlock(master, self._store.roots)
        except SealBroken as error:
            raise ValueError(f"vault: {error}; settings [vault]") from error
        if not url:
            await self._store.be_alone()
        chain = Chain(self._vault.derive(KEY_PURPOSE))
        self._audit = AuditLog(self._store.audit, chain, settings.audit, head_file(root))
        await self._audit.start()
        self._audit.record("service.started", detail={"node": node_id})
        self._archives = Archives(archive_limits(settings.sandbox))
        group = None if self._sandbox is None else self._sandbox.group
        self._workspaces = Workspaces(self._store, self._archives, root, group)
        self._journal = Journal(self._store, settings.store, settings.limits, exclusive=not url)
        await self._journal.start()

    async def _salvage(self, slot: Slot) -> None:
        """Save the files of a session whose service was killed."""
        assert self._store is not None
        assert self._workspaces is not None
        for row in await self._store.in_slots([slot.id]):
            await self._workspaces.save(row.tenant, row.id, slot.work, slot.id)

    async def stop(self, grace: float | None = None) -> None:
        """Drain for `grace` seconds (the setting, by default) and stop: nothing is left.

        Health says NOT_SERVING first. May be called on a service that started in part.
        """
        grace = self.settings.drain_grace if grace is None else grace
        if self._rpc is not None:
            await self._rpc.begin_drain()
        if self._pool is not None:
            self._pool.begin_drain()
        if self._conversations is not None:
            await self._conversations.drain(grace)
        if self._conversations is not None:
            await self._conversations.aclose()
        if self._broker is not None:
            await self._broker.aclose()
        if self._rpc is not None:
            await self._rpc.stop(_STREAM_GRACE)
        if self._pool is not None:
            await self._pool.aclose()
        if self._quota is not None:
            await self._quota.aclose()
        await self._close_store()
        if self._launcher is not None:
            await self._launcher.aclose()
        if self._egress is not None:
            await self._egress.aclose()
        if self._site is not None:
            await self._site.aclose()
            self._site = None

    async def _close_store(self) -> None:
        keeper, journal, store = self._keeper, self._journal, self._store
        callers, audit, wallet = self._callers, self._audit, self._wallet
        self._keeper = self._journal = self._store = self._callers = None
        self._audit = self._wallet = None
        if callers is not None:
            await callers.aclose()
        if wallet is not None:
            await wallet.aclose()
        if journal is not None:
            await journal.aclose()
        if keeper is not None:
            await keeper.aclose()
        if audit is not None:
            audit.record("service.stopped")
            await audit.aclose()
        if store is not None:
            try:
                await store.resign()
            except WarmlineError as error:
                # They expire by themselves.
                _log.warning("leases not given up", reason=error.reason.value)
            await store.aclose()
        if self._archives is not None:
            await self._archives.aclose()

    @property
    def pool(self) -> Pool[CliProcess]:
        """The pool, for those who watch it."""
        assert self._pool is not None
        return self._pool


def open_quota(
    settings: Settings, store: Store, policies: TenantPolicies, measure: Measure
) -> Quota:
    """What tenants may use; `measure` says what they keep. Raises ValueError for a Redis that has no URL."""
    url = settings.limits.rates_url
    rates = Rates(url.get_secret_value() if url else "")
    prices = Prices(settings.models.prices)
    return Quota(settings.limits, policies, rates, store.ledger, prices, measure)


def has_credential(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the provider can be used. Raises OSError and ValueError for a bad credential."""
    provider = settings.provider
    return provider.kind == "loopback" or operator_credential(provider, environ) is not None


def archive_limits(sandbox: SandboxSettings) -> ArchiveLimits:
    """What is kept of a session's files: no more than fits in the sandbox of the next process."""
    most = ArchiveLimits()
    if sandbox.level == "none":
        return most
    # The rest is for what the CLI itself stores.
    total = min(most.total_bytes, sandbox.disk_bytes // 8 * 7)
    return replace(most, total_bytes=total, members=min(most.members, sandbox.files // 8 * 7))


def make_slots_root(data_dir: Path) -> Path:
    """The directory of slots, private to the service."""
    root = data_dir.expanduser().absolute()
    slots = root / "slots"
    slots.mkdir(parents=True, exist_ok=True, mode=0o700)
    slots.chmod(0o700)
    return slots


def own_node_id(root: Path) -> str:
    """Names this service among those that share a database: the same after every restart.

    The directory of slots has been claimed, so no other running service has the same directory.
    """
    path = root / "node-id"
    try:
        return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except (FileNotFoundError, ValueError):
        pass
    node_id = str(uuid.uuid4())
    path.write_text(f"{node_id}\n", encoding="ascii")
    return node_id
