"""What a tenant takes of the machine is bounded, and taking more ends its own process alone.

Each bomb is bounded by itself as well, so that a defence that fails does not take the machine with it.
"""

import asyncio
import secrets
import shutil

import pytest
from inside import as_python, attack, bash, crash, python, results, running
from parking import ended, kill_cli
from running import until
from shared import ServiceThread
from warmline_client import Client, Conversation
from warmline_service.config import MIB

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]
_PROCESSES, _FILES, _DISK, _CPU = 160, 3000, 64 * MIB, 15


@pytest.fixture(scope="module")
def limits() -> dict[str, int]:
    """Low ones, which are reached soon."""
    return {
        "processes": _PROCESSES,
        "memory_bytes": 1024 * MIB,
        "disk_bytes": _DISK,
        "files": _FILES,
        "scratch_bytes": 8 * MIB,
        "cpu_seconds": _CPU,
    }


async def test_a_fork_bomb_stops_at_the_limit(attacker: Conversation, victim: Conversation) -> None:
    """At 200 of its own at the latest; meanwhile and afterwards others have their turns."""
    bombing = asyncio.create_task(
        python(
            attacker,
            """
import os, signal, time
made = []
try:
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            time.sleep(3)
            os._exit(0)
        made.append(pid)
except OSError as error:
    print("stopped", error)
print("made", len(made), flush=True)
time.sleep(1)
for pid in made:
    os.kill(pid, signal.SIGKILL)
""",
        )
    )
    assert "fine" in await bash(
        victim, "for i in 1 2 3 4 5; do /usr/bin/true || exit; done; echo fine"
    )
    told = await bombing
    assert "stopped" in told
    assert int(told.split("made ")[1].split()[0]) < _PROCESSES


async def test_one_process_gets_no_more_memory_than_all_may_have(attacker: Conversation) -> None:
    """Its program is told so; the session goes on."""
    told = await python(
        attacker,
        "try:\n    print('GOT', len(bytearray(1200 * 2**20)))\n"
        "except MemoryError:\n    print('no memory')",
    )
    assert "no memory" in told
    assert "still here" in await bash(attacker, "echo still here")


@pytest.mark.parametrize(
    ("held", "cause"),
    [
        ("bytearray(b'x') * (350 * 2**20)", "used more than 1024 MiB of memory"),
        # In memory that belongs to no process, but to a file that has no name.
        ("os.posix_fallocate(os.memfd_create('x'), 0, 50 * 2**20)", "stored more than 64 MiB"),
    ],
    ids=["anonymous", "memfd"],
)
async def test_a_memory_bomb_ends_its_own_session(
    held: str, cause: str, attacker: Conversation
) -> None:
    """Many processes that each stay below the limit, together above it: the turn fails and says why."""
    events = await attack(
        attacker,
        as_python(
            "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
            f"        held = {held}\n        time.sleep(8)\n        os._exit(0)\n"
            "time.sleep(8)\nprint('SURVIVED')"
        ),
    )
    assert cause in crash(events)
    assert "SURVIVED" not in results(events)


@pytest.mark.parametrize("kind", ["files", "without a name", "small"])
async def test_who_fills_the_disk_is_stopped(
    thread: ServiceThread, kind: str, attacker: Conversation
) -> None:
    """At little more than the limit, whether files have names or not, or are many; all of it is freed."""
    programs = {
        "files": """
for number in range(6):
    with open(f"fill{number}", "wb") as out:
        for _ in range(50):
            out.write(bytes(2**20))
    time.sleep(0.3)
""",
        "without a name": """
held = []
for number in range(6):
    held.append(open("fill", "wb"))
    os.unlink("fill")
    for _ in range(50):
        held[-1].write(bytes(2**20))
    held[-1].flush()
    time.sleep(0.3)
""",
        "small": """
for number in range(20_000):
    open(f"{number}", "w").close()
    if number % 500 == 0:
        time.sleep(0.1)
""",
    }
    data = thread.service.settings.data_dir
    before = await asyncio.to_thread(shutil.disk_usage, data)
    events = await attack(
        attacker,
        as_python(f"import os, time\n{programs[kind]}\ntime.sleep(8)\nprint('SURVIVED')"),
    )
    assert "stored more than" in crash(events)
    assert "SURVIVED" not in results(events)
    await until(lambda: shutil.disk_usage(data).free > before.free - 100 * MIB)


async def test_who_spins_without_end_is_stopped(
    attacker: Conversation, victim: Conversation
) -> None:
    """Its program is killed when its time is up, cannot have more, and the session goes on."""
    assert (
        await bash(attacker, "ulimit -t; ulimit -t 20 2>&1 | grep -o cannot") == f"{_CPU}\ncannot"
    )
    spinning = asyncio.create_task(
        bash(attacker, "timeout 120 sh -c 'while :; do :; done'; echo code $?")
    )
    assert "fine" in await bash(victim, "echo fine")
    # 128 and SIGKILL: the limit that cannot be raised is the same as the one that only warns.
    assert "code 137" in await spinning
    assert await bash(attacker, "echo still here") == "still here"


async def test_one_file_is_no_larger_than_all_may_be(attacker: Conversation) -> None:
    """The write fails; so it does where memory passes for a disk."""
    told = await bash(
        attacker,
        "head -c 100M /dev/zero > big; stat -c 'big %s' big; rm big; "
        "head -c 50M /dev/zero > /tmp/big; head -c 50M /dev/zero > /dev/shm/big; "
        "stat -c '%n %s' /tmp/big /dev/shm/big; rm /tmp/big /dev/shm/big",
    )
    assert f"big {_DISK}\n" in told
    for place in ("/tmp/big", "/dev/shm/big"):
        assert int(told.split(f"\n{place} ")[1].split()[0]) <= 8 * MIB
    assert told.count("No space left") == 2


async def test_signals_reach_nobody_else(attacker: Conversation, victim: Conversation) -> None:
    """`kill -9 -1` ends the session's own process; its neighbour does not notice."""
    await bash(victim, "echo before > kept")
    events = await attack(attacker, "kill -9 -1; kill -9 1; kill -9 0")
    assert events[-1].HasField("turn_failed")
    assert "before" in await bash(victim, "cat kept")


@pytest.mark.parametrize("end", ["killed", "deleted"])
async def test_nothing_outlives_its_session(
    client: Client, thread: ServiceThread, end: str, attacker: Conversation
) -> None:
    """What has left its group, its terminal and its parents, and ignores signals, ends with the process."""
    mark = f"3600.{secrets.randbelow(10**9)}"
    told = await bash(
        attacker,
        f"for i in 1 2 3; do (trap '' TERM HUP INT; setsid setsid nohup sleep {mark} "
        ">/dev/null 2>&1 &); done; sleep 0.5; echo begun",
    )
    assert "begun" in told
    assert len(running(mark)) == 3
    if end == "killed":
        kill_cli(thread.service, attacker.session_id)
        await ended(thread.service, attacker.session_id)
    else:
        await client.delete(attacker.session_id)
    await until(lambda: not running(mark), 5)
