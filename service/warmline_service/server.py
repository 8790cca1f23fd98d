"""Wires the parts together; starts them in order, drains and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import stat
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from pydantic import SecretStr

from warmline_service.chat import (
    Conversations,
    ModelCatalog,
    ModelCredential,
    Policy,
    Runtime,
    UpstreamFault,
    spare_keys,
)
from warmline_service.config import SandboxSettings, Settings
from warmline_service.egress import Access, Credential, Egress, make_provider, operator_credential
from warmline_service.errors import WarmlineError
from warmline_service.mcp import Broker
from warmline_service.pool import Pool, SilentEvents, capacity, default_memory_budget
from warmline_service.rpc import RpcServer, build_server, read_credentials
from warmline_service.sandbox import Sandbox, SandboxMissing, Shares
from warmline_service.sessions import Journal, Keeper, Portable, Sessions, Workspaces
from warmline_service.sessions.events import Tokens
from warmline_service.store import ArchiveLimits, Archives, Blobs, Store, open_database
from warmline_service.tenants import Authenticator, SettingsKeys
from warmline_service.vault import Vault, open_vault
from warmline_service.worker import Capabilities, CliProcess, Launcher, Site, Slot, SpawnKey, probe

_log = structlog.get_logger(__name__)

# After the drain's own grace: what a stream that does not end by itself still gets.
_STREAM_GRACE = 1.0
_KEY_VARIABLE = "ANTHROPIC_API_KEY"
# Reading, and entering, for everybody.
_FOR_ALL = stat.S_IROTH | stat.S_IXOTH


class Unsafe(Exception):  # noqa: N818  # named for what is the case
    """The settings would open the service to those who should not reach it."""


@dataclass(frozen=True)
class EgressAccess:
    """The egress as conversations see it."""

    egress: Egress

    def bind(
        self, slot_id: str, tenant: str, session_id: str, credential: ModelCredential | None
    ) -> None:
        """The slot's requests are this session's from now on, with its credential or the operator's."""
        self.egress.bind(slot_id, Access(tenant, session_id, _sent(credential)))

    def renew(self, slot_id: str, credential: ModelCredential | None) -> None:
        """The slot's next request goes out with another credential."""
        self.egress.renew(slot_id, _sent(credential))

    def metered(self, slot_id: str) -> Mapping[str, Tokens]:
        """What the slot has used since it was bound, by model."""
        return {
            model: Tokens(used.input, used.output, used.cache_read, used.cache_creation)
            for model, used in self.egress.meter(slot_id).snapshot().items()
        }

    def requests(self, slot_id: str) -> int:
        """How many requests to a model the slot has made."""
        return self.egress.meter(slot_id).requests

    def last_fault(self, slot_id: str) -> UpstreamFault | None:
        """The last error of the provider, if its last answer was one."""
        error = self.egress.last_error(slot_id)
        return UpstreamFault(error.status, error.retry_after) if error else None


def _sent(credential: ModelCredential | None) -> Credential | None:
    if credential is None:
        return None
    return Credential(SecretStr(credential.secret), credential.oauth)


class FirstSpares(SilentEvents):
    """Waits for the spares of the start: until each is up or has failed to come up."""

    def __init__(self, capacity: int, each: int) -> None:
        self._capacity = capacity
        self._each = each
        self._ended = 0
        self._changed = asyncio.Event()

    async def up(self, kinds: int, timeout: float) -> None:
        """Wait for so many kinds, at most `timeout` seconds: without spares starts are cold."""
        wanted = min(self._capacity, kinds * self._each)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._ended < wanted:
                    self._changed.clear()
                    await self._changed.wait()

    def started(self, key: SpawnKey, seconds: float) -> None:
        """One is up."""
        del key, seconds
        self._one_more()

    def start_failed(self, key: SpawnKey) -> None:
        """One did not come up."""
        del key
        self._one_more()

    def _one_more(self) -> None:
        self._ended += 1
        self._changed.set()


class Service:
    """The whole service in one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = 0
        self._sandbox: Sandbox | None = None
        self._site: Site | None = None
        self._egress: Egress | None = None
        self._launcher: Launcher | None = None
        self._pool: Pool[CliProcess] | None = None
        self._store: Store | None = None
        self._journal: Journal | None = None
        self._archives: Archives | None = None
        self._workspaces: Workspaces | None = None
        self._keeper: Keeper | None = None
        self._own_credential = False
        self._vault: Vault | None = None
        self._broker: Broker | None = None
        self._conversations: Conversations | None = None
        self._rpc: RpcServer | None = None

    async def start(self) -> None:
        """Start everything; on return the port is open.

        Raises Unsafe, OSError (port, data directory) and WarmlineError (CLI_NOT_FOUND, CLI_CRASHED),
        and leaves nothing behind then.
        """
        check_exposure(self.settings)
        try:
            await self._start()
        except BaseException:
            await self.stop(grace=0.0)
            raise

    async def _start(self) -> None:
        settings = self.settings
        slots = await asyncio.to_thread(make_slots_root, settings.data_dir)
        self._sandbox = await asyncio.to_thread(find_sandbox, settings)
        await asyncio.to_thread(check_readable, settings, self._sandbox)
        # What a killed service left in its slots is saved first; for that the store has to be open.
        self._site = await Site.prepare(
            settings.cli,
            slots,
            salvage=self._salvage,
            claimed=self._open_store,
            sandbox=self._sandbox,
        )
        capabilities = await probe(self._site)
        _log.info("cli probed", path=str(self._site.binary), version=capabilities.version)
        if not settings.pool.warm_up:
            capabilities = replace(capabilities, warming=False, priming=False)
        egress = await self._start_egress()
        first = await self._start_pool(self._site, egress, capabilities)
        catalog = ModelCatalog(capabilities.models, settings.models)
        conversations = await self._start_conversations(egress, catalog, capabilities)
        keys = SettingsKeys(settings.tenants) if has_keys(settings) else None
        tls = settings.tls
        credentials = await asyncio.to_thread(read_credentials, tls) if tls else None
        self._rpc = build_server(settings, conversations, catalog, Authenticator(keys), credentials)
        # Ready means warm: who connects at once shall not wait for a process.
        await first.up(len(self._kinds(capabilities)), settings.cli.start_timeout)
        await self._rpc.start()
        self.port = self._rpc.port

    async def _start_egress(self) -> Egress:
        settings = self.settings
        # Taken out of the service's own environment, so that nothing can inherit it.
        key = {_KEY_VARIABLE: os.environ.pop(_KEY_VARIABLE, "")}
        self._own_credential = await asyncio.to_thread(has_credential, settings, key)
        if not self._own_credential and not settings.provider.caller_credentials:
            raise Unsafe(
                "There is no model credential: set ANTHROPIC_API_KEY or provider.api_key_file, or "
                "use `--provider loopback`, which needs none."
            )
        provider = await asyncio.to_thread(make_provider, settings.provider, key)
        self._egress = Egress(provider)
        await self._egress.start()
        return self._egress

    async def _start_pool(
        self, site: Site, egress: Egress, capabilities: Capabilities
    ) -> FirstSpares:
        settings = self.settings
        self._launcher = Launcher(site, egress.open_endpoint, capabilities)
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
        return spare_keys(capabilities, bare=self.settings.pool.bare_spares)

    async def _start_conversations(
        self, egress: Egress, catalog: ModelCatalog, capabilities: Capabilities
    ) -> Conversations:
        settings, store, workspaces = self.settings, self._store, self._workspaces
        assert store is not None
        assert workspaces is not None
        assert self._journal is not None
        assert self._vault is not None
        sessions = Sessions(store, settings.limits, settings.retention, self._vault)
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
            Portable(store, sessions, workspaces, settings.limits, settings.store),
            self._broker,
            self._vault,
            Policy(
                settings.limits,
                settings.cli,
                settings.sandbox,
                settings.mcp,
                settings.provider,
                self._own_credential,
            ),
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
        key_file = settings.vault.key_file or root / "vault.key"
        self._vault = await asyncio.to_thread(open_vault, key_file)
        blobs = Blobs(settings.store.blob_url, root / "blobs")
        self._store = Store(open_database(url, root / "warmline.db"), blobs, node_id)
        await self._store.open()
        if not url:
            await self._store.be_alone()
        self._archives = Archives(archive_limits(settings.sandbox))
        self._workspaces = Workspaces(self._store, self._archives, root, group_of(self._sandbox))
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
        self._keeper = self._journal = self._store = None
        if journal is not None:
            await journal.aclose()
        if keeper is not None:
            await keeper.aclose()
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


def has_keys(settings: Settings) -> bool:
    """Whether anybody has to authenticate."""
    return any(tenant.keys for tenant in settings.tenants)


def check_exposure(settings: Settings) -> None:
    """Without a key anybody is served, so only this machine may reach the port; raises Unsafe."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    if has_keys(settings) or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Unsafe(
            f"listen = {settings.listen!r} is not loopback and no API key is configured: anybody "
            "could use the service. Add a key (`warmline new-key`) or listen on 127.0.0.1."
        )


def has_credential(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the provider can be used. Raises OSError and ValueError for a bad credential."""
    provider = settings.provider
    return provider.kind == "loopback" or operator_credential(provider, environ) is not None


def find_sandbox(settings: Settings) -> Sandbox | None:
    """What processes are put into; None where the operator wants none. Blocks; raises Unsafe."""
    if settings.sandbox.level == "none":
        return None
    root = settings.data_dir.expanduser().absolute()
    try:
        name = f"warmline-{zlib.crc32(os.fsencode(root)):08x}"
        return Sandbox.find(settings.sandbox, Shares(root / "shares", root / "tenants"), name)
    except SandboxMissing as error:
        raise Unsafe(
            f"There can be no sandbox around CLI processes. {error} To run them without one, as this user, "
            "with all that it may read: `--sandbox none`."
        ) from error


def check_readable(settings: Settings, sandbox: Sandbox | None) -> None:
    """What the operator installed has to be readable for processes of other users; raises Unsafe."""
    if group_of(sandbox) is None:
        return
    for name, path in settings.cli.plugins.items():
        if path.stat().st_mode & _FOR_ALL != _FOR_ALL:
            raise Unsafe(
                f"cli.plugins.{name}: CLI processes run as users of their own, which cannot read {path}. "
                f"Let them: chmod -R o+rX {path}"
            )


def archive_limits(sandbox: SandboxSettings) -> ArchiveLimits:
    """What is kept of a session's files: no more than fits in the sandbox of the next process."""
    most = ArchiveLimits()
    if sandbox.level == "none":
        return most
    # The rest is for what the CLI itself stores.
    total = min(most.total_bytes, sandbox.disk_bytes // 8 * 7)
    return replace(most, total_bytes=total, members=min(most.members, sandbox.files // 8 * 7))


def group_of(sandbox: Sandbox | None) -> int | None:
    """The group that processes of users of their own share."""
    owner = None if sandbox is None else sandbox.owner("0")
    return None if owner is None else owner.gid


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
