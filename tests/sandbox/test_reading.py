"""A tenant with a shell finds nothing of other tenants, of the service, or of the machine's users."""

import os
from pathlib import Path

import pytest
from inside import bash, python
from parking import work_of
from shared import ServiceThread
from warmline_client import Conversation

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]


async def test_another_tenants_slot_is_not_there(
    thread: ServiceThread, victim: Conversation, attacker: Conversation
) -> None:
    """Neither by its path, which the attacker knows, nor by a search of all that there is."""
    await bash(victim, "echo victims-secret > notes")
    slot = (await work_of(thread.service, victim.session_id)).parent
    assert (slot / "work" / "notes").read_text() == "victims-secret\n"
    told = await bash(
        attacker,
        f"cat {slot}/work/notes; ls {slot} {slot}/config; ls {slot.parent}; "
        "find / -xdev -name notes 2>/dev/null; "
        "grep -rsl victims-secret /tmp /dev/shm /var /proc/*/root/tmp 2>/dev/null; echo done",
    )
    assert "done" in told
    assert "victims-secret" not in told
    assert "/work/notes\n" not in told.replace("cat: ", "")
    own = (await work_of(thread.service, attacker.session_id)).parent
    assert own.name in told
    assert f"\n{slot.name}" not in told


async def test_nothing_of_the_service_can_be_read(
    thread: ServiceThread, attacker: Conversation
) -> None:
    """Database, vault key, content, what it says of itself; nor whatever else is in its directory."""
    data = thread.service.settings.data_dir
    for name in ("warmline.db", "vault.key", "node-id"):
        assert (data / name).is_file()
    told = await bash(
        attacker,
        f"cat {data}/warmline.db {data}/vault.key {data}/node-id; ls -A {data}; "
        f"ls -A {data}/slots; ls -A {data}/tenants; cat {data}/../*/vault.key; "
        f"cat {data}/slots/../vault.key /proc/self/cwd/../../../vault.key; echo done",
    )
    assert "done" in told
    assert (data / "vault.key").read_text().strip() not in told
    for name in ("node-id", "blobs", "warmline.db-wal"):
        assert name not in told.replace(f"{data}/node-id", "")


async def test_no_process_but_its_own_is_seen(victim: Conversation, attacker: Conversation) -> None:
    """Not the service's, whose number the attacker knows, nor another tenant's, nor what began its own."""
    await bash(victim, "echo in use")
    told = await python(
        attacker,
        f"""
import os, pathlib
numbers = sorted(int(each) for each in os.listdir("/proc") if each.isdigit())
print("seen", len(numbers), "highest", numbers[-1] < 1000)
for pid in ({os.getpid()}, {os.getppid()}, 1):
    for name in ("environ", "mem", "maps", "cmdline", "root", "cwd", "fd"):
        path = pathlib.Path("/proc") / str(pid) / name
        try:
            print("LOOKED", path, list(os.listdir(path)) if name == "fd" else os.open(path, os.O_RDONLY))
        except OSError as error:
            pass
    try:
        os.kill(pid, 0)
        print("SIGNALLED" if pid != 1 else "init is there", pid)
    except OSError:
        pass
""",
    )
    seen = int(told.split("seen ")[1].split()[0])
    assert 3 <= seen <= 12, told
    assert "highest True" in told
    assert "LOOKED" not in told
    assert "SIGNALLED" not in told


async def test_no_environment_holds_a_secret(canary: str, attacker: Conversation) -> None:
    """What the service has in its own is in none that can be read, and no credential is."""
    assert canary == os.environ["WARMLINE_TEST_CANARY"]
    told = await bash(attacker, "cat /proc/*/environ | tr '\\0' '\\n'; env")
    assert "WARMLINE_SLOT=" in told
    assert canary not in told
    assert "WARMLINE_TEST" not in told
    keys = [line for line in told.splitlines() if line.startswith("ANTHROPIC_API_KEY=")]
    assert all("placeholder" in line for line in keys)


async def test_nothing_is_inherited(attacker: Conversation) -> None:
    """A tool's descriptors are its own three, and the one that looks."""
    told = await bash(attacker, "ls -l /proc/self/fd")
    more = await python(
        attacker,
        "import os\nfor pid in sorted(filter(str.isdigit, os.listdir('/proc')), key=int)[1:2]:\n"
        "    for fd in os.listdir(f'/proc/{pid}/fd'):\n"
        "        print(os.readlink(f'/proc/{pid}/fd/{fd}'))",
    )
    fds = [line.split()[8] for line in told.splitlines() if " -> " in line]
    assert set(fds) <= {"0", "1", "2", "3"}  # The last is the directory that is listed.
    for said in (told, more):
        assert "user:[" not in said
        assert "memfd" not in said
        assert "warmline.db" not in said


async def test_no_socket_but_its_own_answers(
    thread: ServiceThread, victim: Conversation, attacker: Conversation
) -> None:
    """Not another tenant's way to the model, by which requests would be that tenant's."""
    await bash(victim, "echo in use")
    slot = (await work_of(thread.service, victim.session_id)).parent
    assert (slot / "sock").is_socket()
    own = (await work_of(thread.service, attacker.session_id)).parent
    told = await python(
        attacker,
        f"""
import glob, os, socket
found = []
for at, below, names in os.walk("/"):
    below[:] = [each for each in below if at != "/" or each not in ("usr", "proc")]
    found += [os.path.join(at, name) for name in names]
found = [path for path in found if os.path.lexists(path) and (os.lstat(path).st_mode & 0o170000) == 0o140000]
print("sockets", found)
for path in ({str(slot / "sock")!r}, {str(own / "sock")!r}):
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            print("connected", path)
    except OSError as error:
        print("refused", path, error)
""",
    )
    assert f"refused {slot}/sock" in told
    assert f"connected {own}/sock" in told
    listed = told.split("sockets [")[1].split("]")[0]
    assert str(own / "sock") in listed
    assert slot.name not in listed
    assert all(own.name in each for each in listed.split(", "))


async def test_the_systems_users_are_not_known(attacker: Conversation) -> None:
    """No account of the machine, no home, no configuration but what programs need to run."""
    told = await bash(
        attacker,
        "cat /etc/passwd /etc/shadow /etc/hostname /etc/resolv.conf; hostname; "
        "ls -A /etc /root /home /sys /run /boot /mnt /srv; id -u; stat -c %u /proc/self",
    )
    assert Path("/etc/hostname").read_text().strip() not in told
    assert "shadow: No such file" in told
    assert "daemon:" not in told
    for place in ("home", "sys", "run", "boot", "mnt", "srv"):
        assert f"'/{place}': No such file" in told
    assert "sandbox\n" in told
