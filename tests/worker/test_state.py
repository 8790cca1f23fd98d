"""One mover, one table of legal moves, and keys that say where they differ."""

import itertools

import pytest
from warmline_service.worker import (
    LEGAL_MOVES,
    IllegalMove,
    Life,
    ProcessState,
    SpawnKey,
    SystemPrompt,
)

PATHS: dict[ProcessState, list[ProcessState]] = {ProcessState.STARTING: []}
for _ in ProcessState:
    for origin, to in itertools.product(list(PATHS), ProcessState):
        if to in LEGAL_MOVES[origin]:
            PATHS.setdefault(to, [*PATHS[origin], to])


def life_in(state: ProcessState) -> Life:
    """A Life that has come to `state` by legal moves."""
    life = Life()
    for step in PATHS[state]:
        life.move(step)
    return life


def test_every_state_can_be_reached() -> None:
    """No state is there for nothing."""
    assert set(PATHS) == set(ProcessState) == set(LEGAL_MOVES)


@pytest.mark.parametrize(("origin", "to"), list(itertools.product(ProcessState, ProcessState)))
def test_the_table_decides_every_move(origin: ProcessState, to: ProcessState) -> None:
    """A legal move is made and told; an illegal one raises and changes nothing."""
    life = life_in(origin)
    if to in LEGAL_MOVES[origin]:
        life.move(to)
        assert life.state is to
    else:
        with pytest.raises(IllegalMove, match=f"{origin} process cannot become {to}"):
            life.move(to)
        assert life.state is origin


def test_moves_are_told_to_the_observer() -> None:
    """`on_move` hears each move once, after it was made."""
    heard: list[tuple[ProcessState, ProcessState]] = []
    life = Life(lambda origin, to: heard.append((origin, to)))
    life.move(ProcessState.SPARE)
    assert heard == [(ProcessState.STARTING, ProcessState.SPARE)]
    assert repr(life) == "Life(spare)"


def test_a_stopped_process_never_comes_back() -> None:
    """From STOPPING there is only GONE, from GONE nothing."""
    assert LEGAL_MOVES[ProcessState.STOPPING] == {ProcessState.GONE}
    assert not LEGAL_MOVES[ProcessState.GONE]


def test_a_key_names_what_another_lacks() -> None:
    """Every miss of the pool says which input it was; what was not wanted is none."""
    prompt = SystemPrompt("replace", "secret plan")
    assert SpawnKey().misses(SpawnKey()) == ()
    wanted = SpawnKey(model="haiku", system_prompt=prompt)
    assert wanted.misses(SpawnKey(primed=True)) == ("model", "system_prompt")
    assert SpawnKey(primed=True).misses(SpawnKey(warmed=True)) == ("primed",)
    assert "secret" not in repr(wanted)
