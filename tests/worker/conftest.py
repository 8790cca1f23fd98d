"""A site with the fake CLI (or the real one), and processes that are stopped after the test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import fake_cli
import pytest
from warmline_service.config import CliSettings
from warmline_service.worker import Capabilities, CliProcess, Launcher, Site, Slot, SpawnKey

Start = Callable[..., Awaitable[CliProcess]]
NewSite = Callable[..., Awaitable[Site]]


class NoModel:
    """An endpoint that leads nowhere."""

    env: Mapping[str, str] = {"ANTHROPIC_BASE_URL": "http://localhost"}

    async def aclose(self) -> None:
        """Close nothing."""


async def no_model(slot: Slot) -> NoModel:
    """Open nothing."""
    del slot
    return NoModel()


@pytest.fixture
async def new_site(tmp_path: Path) -> AsyncIterator[NewSite]:
    """Makes a site for a fake CLI with a scenario; `cli`: settings, `guard`: the command before."""
    sites: list[Site] = []

    async def make(
        cli: Mapping[str, object] | None = None,
        guard: tuple[str, ...] | None = None,
        **scenario: object,
    ) -> Site:
        path = fake_cli.install(tmp_path / "bin", **scenario)
        settings = CliSettings.model_validate({"path": path, "stop_timeout": 1.0} | dict(cli or {}))
        site = await Site.prepare(settings, tmp_path / "slots")
        sites.append(site)
        return site if guard is None else Site(settings, site.binary, site.slots, guard)

    yield make
    for site in sites:
        site.slots.release()


@pytest.fixture
async def start(new_site: NewSite) -> AsyncIterator[Start]:
    """Starts a fake CLI: takes what `new_site` takes, and `key`."""
    started: list[CliProcess] = []

    async def run(key: SpawnKey = SpawnKey(), **site: object) -> CliProcess:  # noqa: B008  # frozen
        launcher = Launcher(await new_site(**site), no_model, Capabilities("2.1.329"))
        started.append(await launcher.start(key))
        return started[-1]

    yield run
    for process in started:
        await process.stop()
