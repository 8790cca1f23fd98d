"""What a process would need to get out is refused by the kernel, whichever program asks for it."""

import pytest
from inside import bash, python
from warmline_client import Conversation
from warmline_service.sandbox._filter import DENIED

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

_CALL = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    given = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return errno.errorcode.get(ctypes.get_errno(), "OK") if given == -1 else "OK"
column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
"""


async def test_every_call_of_the_filter_is_refused(attacker: Conversation) -> None:
    """By the kernel, before it looks at any argument: EPERM, not what the arguments deserve."""
    told = await python(
        attacker,
        f"{_CALL}\nfor name, numbers in {DENIED!r}.items():\n"
        "    if numbers[column] is not None:\n"
        "        print(name, call(numbers[column], 0, 0, 0, 0, 0, 0))\nprint('done')",
    )
    answers = dict(line.split() for line in told.splitlines() if " " in line)
    assert len(answers) > 40
    assert {name: said for name, said in answers.items() if said != "EPERM"} == {}


async def test_no_namespace_can_be_made(attacker: Conversation) -> None:
    """By no way that there is, alone or with others; a plain child still can."""
    told = await python(
        attacker,
        _CALL
        + """
clone = (56, 220)[column]
child = 17
for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x10020000):
    print(hex(flag), call(clone, flag | child, 0, 0, 0, 0))
print("clone3", call(435, 0, 0))
print("fork", os.waitpid(os.posix_spawn("/usr/bin/true", ["true"], {}), 0)[1])
""",
    )
    lines = told.splitlines()
    assert sum(line.endswith("EPERM") for line in lines) == 8, told
    assert "clone3 ENOSYS" in told
    assert "fork 0" in told


async def test_there_is_no_right_to_take(attacker: Conversation) -> None:
    """No capability is left, none can be had, and no program brings another user's rights."""
    told = await bash(
        attacker,
        "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; "
        "cp /usr/bin/id mine && chmod 6755 mine && ./mine -u; id -u; "
        "su -c id root </dev/null; mount; mount -t tmpfs x /tmp; mount -o remount,rw /usr; "
        "unshare -Ur id; nsenter -t 1 -m id; chroot / id; dmesg; mknod sda b 8 0; echo done",
    )
    assert "uid=0" not in told
    for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{name}:\t{'0' * 16}" in told
    assert "NoNewPrivs:\t1" in told
    assert "Seccomp:\t2" in told
    assert "done" in told


async def test_the_system_cannot_be_changed(attacker: Conversation) -> None:
    """Not its programs, its settings, the CLI itself, what the sandbox made, or the kernel's switches."""
    told = await python(
        attacker,
        """
import os
pids = sorted((each for each in os.listdir("/proc") if each.isdigit()), key=int)
clis = [os.readlink(f"/proc/{pid}/exe") for pid in pids if os.path.exists(f"/proc/{pid}/exe")]
for path in (*set(clis), "/usr/bin/env", "/etc/passwd", "/etc/new", "/new", "/usr/new", "/dev/new",
             "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/mem", "/proc/1/oom_score_adj",
             "/proc/sys/user/max_user_namespaces", "/proc/self/uid_map"):
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(file, b"0 0 1")
        print("WROTE", path)
    except OSError as error:
        print("not", path)
for path in ("/usr/bin/env", "/etc/passwd", "/dev/null", "/proc/1"):
    try:
        os.rename(path, path + "-")
        print("MOVED", path)
    except OSError:
        pass
print("claude" in str(clis), "done")
""",
    )
    assert "True done" in told
    assert "WROTE" not in told
    assert "MOVED" not in told
