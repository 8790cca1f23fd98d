"""Whoever comes next finds a process that nobody had, and a place where nobody was."""

import json
from collections.abc import Iterator

import pytest
from conversing import Model
from inside import bash, python, sandboxed
from kept import paths
from parking import say, work_of
from running import until
from shared import ServiceThread, shared_service
from warmline_client import Client, Conversation

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]


@pytest.fixture(scope="module")
def thread(model: Model) -> Iterator[ServiceThread]:
    """A service that replaces a spare at once."""
    settings = sandboxed()
    pool = settings["pool"] | {"refill_delay": 0}
    with shared_service(model, **settings | {"pool": pool}) as thread:
        yield thread


async def test_nothing_is_left_for_the_next_session(
    client: Client, thread: ServiceThread, attacker: Conversation, model: Model
) -> None:
    """No file where any process might look, no setting, no listening socket."""
    hooks = json.dumps(
        {
            "hooks": {
                "UserPromptSubmit": [{"hooks": [{"type": "command", "command": "echo PLANTED"}]}]
            }
        }
    )
    told = await bash(
        attacker,
        f"echo '{hooks}' > $CLAUDE_CONFIG_DIR/settings.json; mkdir -p ~/.claude && "
        "cp $CLAUDE_CONFIG_DIR/settings.json ~/.claude/; echo 'echo PLANTED' > ~/.bashrc; "
        "for place in ~ /tmp /dev/shm /var/tmp $TMPDIR ..; do echo PLANTED > $place/planted; done; "
        "echo PLANTED > $CLAUDE_CONFIG_DIR/CLAUDE.md; echo planted",
    )
    assert "planted" in told
    async with client.chat() as chat:
        await say(chat, "::say nothing")
        assert "::say nothing" in str(model.asked[-1])
        assert "PLANTED" not in str(model.asked[-1])
        slot = (await work_of(thread.service, chat.session_id)).parent
    names = {path.name for path in paths(slot)}
    assert ".claude.json" in names
    assert "planted" not in names
    assert "PLANTED" not in (slot / "config" / ".claude.json").read_text()


async def test_a_spare_cannot_be_touched(thread: ServiceThread, attacker: Conversation) -> None:
    """Neither those that wait now, whose paths the attacker knows, nor those that are made meanwhile."""
    slots = thread.service.settings.data_dir / "slots"
    # The attacker's, the victim's, and that of one who waits.
    await until(lambda: sum(1 for _ in slots.glob("*/")) >= 3)
    before = sorted(path.name for path in slots.glob("*/"))
    told = await python(
        attacker,
        f"""
import os, time
end = time.monotonic() + 1
seen = set()
while time.monotonic() < end:
    seen.update(os.listdir({str(slots)!r}))
    for name in {before!r}:
        for part in ("config/settings.json", "work/CLAUDE.md", "home/.bashrc", "sock"):
            try:
                open(os.path.join({str(slots)!r}, name, part), "a").write("PLANTED")
                if name not in seen:
                    print("WROTE", name)
            except OSError:
                pass
    try:
        os.mkdir({str(slots / "0123456789abcdef")!r})
        print("MADE")
    except OSError:
        pass
print("seen", len(seen))
""",
    )
    assert "seen 1" in told
    assert "WROTE" not in told
    assert "MADE" not in told
