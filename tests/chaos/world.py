"""All that a run consists of, and what is said in it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.database import Postgres
from chaos.model import CountingModel, mark
from chaos.proxy import FaultProxy
from chaos.service import ServiceProcess
from chaos.talker import Line, Message, Talker

_WORDS = "amber birch copper delta ember fjord garnet harbour indigo juniper".split()  # noqa: SIM905  # reads better


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    faults: int
    seed: int
    store: str
    sessions: int
    real_cli: bool
    # Where SQLite's disk is a small one of its own.
    disk: bool

    @property
    def command(self) -> str:
        """Runs the same again."""
        real = " --real-cli" if self.real_cli else ""
        given = f"--faults {self.faults} --seed {self.seed} --store {self.store}"
        return f'make chaos ARGS="{given} --sessions {self.sessions}{real}"'


@dataclass
class Tally:
    """What was done: each fault with its time, and how many of each kind."""

    told: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)


@dataclass
class World:
    """The parts of a run."""

    options: Options
    model: CountingModel
    service: ServiceProcess
    # `clients` and `observers` have a proxy for each line.
    clients: Sequence[FaultProxy]
    observers: Sequence[FaultProxy]
    postgres: Postgres | None
    lines: list[Line] = field(default_factory=list)
    talkers: dict[int, Talker] = field(default_factory=dict)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    stopping: bool = False
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def data_dir(self) -> Path:
        """Where the service keeps its data."""
        return self.service.data_dir

    def talk(self, line: Line, rng: random.Random, messages: int | None = None) -> Talker:
        """A client that sends so many messages, or goes on until the run stops."""

        def batch() -> list[Message]:
            nonlocal messages
            if messages is None:
                if self.stopping:
                    return []
                return [self._message(line, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
            count, messages = messages, 0
            return [self._message(line, rng) for _ in range(count)]

        talker = Talker(line, self.clients[line.number].address, batch, rng)
        task = asyncio.create_task(talker.run(), name=f"session {line.number}")
        self.running.add(task)
        return talker

    def _message(self, line: Line, rng: random.Random) -> Message:
        name = mark(line.number, next(self.numbers))
        words = " ".join([*rng.sample(_WORDS, rng.randint(1, 8)), name])
        count, pause, times = rng.randint(1, 25), rng.randint(2, 25), rng.randint(1, 20)
        answer = " ".join([words] * times)
        text = f"!paced {count} {pause} {times} {words}"
        if self.options.real_cli:
            text = f"::pace {pause}ms\n::say {answer[:400]} {name}"
            answer = f"{answer[:400]} {name}"
        message = Message(name, text, answer, key=f"key-{name}")
        line.messages.append(message)
        return message
