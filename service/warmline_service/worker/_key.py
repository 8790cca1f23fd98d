"""What is fixed at spawn (the pool key), what is bound later, and what a CLI can do."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from warmline_service.config import Level
from warmline_service.worker._equipment import Debug, Plugin, SettingSource
from warmline_service.worker._options import Agent, Options, Servers
from warmline_service.worker._pending import Pending
from warmline_service.worker._transcript import Transcript


@dataclass(frozen=True)
class SystemPrompt:
    """A system prompt, instead of the CLI's own or after it; `repr` hides the text.

    `same_everywhere`: the CLI's own without what differs from machine to machine.
    """

    kind: Literal["replace", "append"]
    text: str = field(repr=False)
    same_everywhere: bool = False


@dataclass(frozen=True)
class SpawnKey:
    """The pool key: every input that is fixed at spawn. The default is a spare for anybody.

    `warmed`: has answered a side question: faster, and everything can still be bound to it.
    `primed`: has run a warm-up turn and been cleared: fastest, but takes no system prompt any more.
    `model` and `system_prompt`: set only where the CLI cannot bind them late.
    `workspace`: the directory that it works in, instead of the slot's own; `directories`: others of the
    tenant's that are open to it, set only where it cannot be shown them later.
    `tools`: the built-in tools that the model is told of. `agent`: who leads, as (name, agent).
    `setting_sources`: whose settings in the working directory count; none of them otherwise.
    `max_budget_usd`: of the process, over all turns. `bare`: without the CLI's own equipment.
    `sandbox`: what is around it, set only where that is not what is around all others.
    `resume`: the conversation that it goes on with. No other key equals one that has this.
    """

    warmed: bool = False
    primed: bool = False
    model: str | None = None
    system_prompt: SystemPrompt | None = None
    workspace: Path | None = None
    directories: tuple[Path, ...] = ()
    tools: tuple[str, ...] | None = None
    agent: tuple[str, Agent] | None = None
    fallback_models: tuple[str, ...] = ()
    betas: tuple[str, ...] = ()
    max_turns: int = 0
    max_budget_usd: float = 0.0
    bare: bool = False
    plugins: tuple[Plugin, ...] = ()
    setting_sources: tuple[SettingSource, ...] = ()
    debug: Debug | None = None
    sandbox: Level | None = None
    resume: Transcript | None = None

    @property
    def pending(self) -> Pending | None:
        """The call that it goes on from, if it begins with one."""
        return None if self.resume is None else self.resume.pending

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every directory outside of its slot that it is started with."""
        own = () if self.workspace is None else (self.workspace,)
        return (*own, *self.directories)

    @property
    def prepared(self) -> bool:
        """Whether more than a start is needed to make one."""
        return self.warmed or self.primed

    def waits_apart(self, can: Capabilities) -> bool:
        """Whether it is moved to its own directory when the files are there: they set it up."""
        late = can.late_workspace and self.resume is None
        return late and bool(self.setting_sources) and self.workspace is None

    def misses(self, other: SpawnKey) -> tuple[str, ...]:
        """The names of what this one has and the other has not, or has otherwise."""
        return tuple(
            each.name
            for each in fields(self)
            if getattr(self, each.name) not in (each.default, getattr(other, each.name))
        )


@dataclass(frozen=True)
class Binding:
    """What a conversation gives to a process that is already running.

    `workspace`: an absolute directory that exists; the process works there from now on.
    """

    model: str | None = None
    system_prompt: SystemPrompt | None = None
    workspace: Path | None = None
    options: Options = field(default_factory=Options)
    servers: Servers = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """A model that the CLI offers: `value` is the alias it takes, `id` what that stands for."""

    value: str
    id: str
    display_name: str = ""
    description: str = ""
    effort_levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What this CLI version was seen to do; what it cannot bind late needs a cold spawn.

    `mirror`: it tells what it adds to its transcript. `injection`: it takes a history in while it
    runs; without that a history needs `SpawnKey.resume`. `goes_on`: started with a transcript that
    ends in a call, it asks for the approval of that call again. `late_directories`: directories of the
    tenant's can be shown to it while it runs, which is the sandbox's to say and not the CLI's.
    """

    version: str
    models: tuple[ModelInfo, ...] = ()
    late_model: bool = False
    late_system_prompt: bool = False
    warming: bool = False
    priming: bool = False
    late_workspace: bool = False
    late_directories: bool = True
    unix_socket: bool = False
    mirror: bool = False
    injection: bool = False
    goes_on: bool = False

    @property
    def default_model(self) -> str:
        """The id of what the CLI uses when asked for nothing; "" if it does not say."""
        return next((each.id for each in self.models if each.value == "default"), "")
