"""The parts of a sandbox, each for itself: the filter, the kinds, what is shown later, control groups."""

import errno
import os
import secrets
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from warmline_service.config import SandboxSettings
from warmline_service.sandbox import DOOR_ENVIRONMENT, Box, Sandbox, Shares
from warmline_service.sandbox._box import owner_of
from warmline_service.sandbox._cgroups import Cgroups
from warmline_service.sandbox._filter import DENIED, filter_program, machines
from warmline_service.sandbox._mounts import clear, mounts_below
from warmline_service.sandbox._sandbox import _programs

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_KINDS = ["mapped", "none"] if os.geteuid() == 0 else ["own"]
_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


def answer(machine: str, number: int, *arguments: int, architecture: int = 0) -> int:
    """What the program for a machine answers to a call, as the kernel runs it."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, architecture or _ARCHITECTURES[machine], 0, *padded)
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    at, loaded = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: loaded & value != 0}[code]
            at += if_true if holds else if_false


def refused(number: int) -> int:
    """The answer that means an error."""
    return 0x00050000 | number


@pytest.mark.parametrize("machine", machines())
def test_the_filter_refuses_what_it_names_and_nothing_else(machine: str) -> None:
    """On each machine by its own numbers; there are more calls than it names, and those pass."""
    column = list(machines()).index(machine)
    denied = {numbers[column] for numbers in DENIED.values()} - {None}
    special = {"x86_64": {56, 16, 41, 53}, "aarch64": {220, 29, 198, 199}}[machine] | {435}
    for number in range(500):
        said = answer(machine, number)
        if number in denied:
            assert said == refused(errno.EPERM), number
        elif number not in special:
            assert said == _ALLOW, number


@pytest.mark.parametrize("machine", machines())
def test_the_filter_looks_at_arguments(machine: str) -> None:
    """Threads but no namespaces, a terminal but no typing into it, sockets of four families."""
    clone, ioctl, socket, pair = (56, 16, 41, 53) if machine == "x86_64" else (220, 29, 198, 199)
    assert answer(machine, clone, 0x3D0F00) == _ALLOW
    assert answer(machine, clone, 0x10000000 | 17) == refused(errno.EPERM)
    assert answer(machine, 435) == refused(errno.ENOSYS)
    assert answer(machine, ioctl, 0, 0x5401) == _ALLOW
    assert answer(machine, ioctl, 0, 0x5412) == refused(errno.EPERM)
    for call in (socket, pair):
        allowed = [each for each in range(64) if answer(machine, call, each) == _ALLOW]
        assert allowed == [1, 2, 10, 16]
        assert answer(machine, call, 40) == refused(errno.EAFNOSUPPORT)


def test_another_architectures_calls_end_the_process() -> None:
    """Its numbers mean something else: 32-bit calls, and those of x32."""
    assert answer("x86_64", 0, architecture=0x40000003) == _KILL
    assert answer("x86_64", 0x40000000 | 101) == _KILL
    assert answer("aarch64", 0, architecture=0x40000028) == _KILL


@pytest.mark.parametrize("kind", _KINDS)
def test_each_kind_holds(kind: str) -> None:
    """As the kernel tells it: user, capabilities, filter, network."""
    sandbox = Sandbox(SandboxSettings(), _programs(), kind, None)  # type: ignore[arg-type]
    assert sandbox.try_out("strict") is None
    assert sandbox.try_out("network") is None
    assert "user" in str(sandbox)


def test_a_box_begins_when_its_door_is_opened(tmp_path: Path) -> None:
    """And not before: whoever comes through it comes from that box."""
    sandbox = Sandbox.find(SandboxSettings())
    port = int(DOOR_ENVIRONMENT["HTTPS_PROXY"].rpartition(":")[2])
    ask = ("/bin/bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo inside >&3; cat <&3")
    box = Box("0f", tmp_path, ask, {"PATH": "/usr/bin"}, Path("/"), {}, door=True)
    command = sandbox.command(box)
    assert command.door is not None
    with subprocess.Popen(
        command.argv, env=dict(command.env), pass_fds=command.fds, stdout=subprocess.PIPE
    ) as process:
        command.close()
        with command.door.open() as listener:
            listener.settimeout(20)
            with listener.accept()[0] as connection:
                connection.sendall(connection.recv(100).upper())
        assert process.communicate(timeout=20)[0] == b"INSIDE\n"
    command.door.close()
    command.init.end(5)


def test_a_door_that_does_not_open_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time, and the box is not held any longer: its starter ends it."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr("warmline_service.sandbox._door._python", lambda: str(slow))
    command = Sandbox(SandboxSettings(), _programs(), _KINDS[0], None).command(  # type: ignore[arg-type]
        Box("0f", tmp_path, ("/bin/true",), {"PATH": "/usr/bin"}, Path("/"), {}, door=True)
    )
    assert command.door is not None
    with subprocess.Popen(command.argv, env=dict(command.env), pass_fds=command.fds) as process:
        command.close()
        monkeypatch.setattr("warmline_service.sandbox._door._TIMEOUT", 1.0)
        with pytest.raises(OSError, match="in time"):
            command.door.open()
        assert process.wait(20) == 0
    command.init.end(5)


def test_a_box_that_is_not_there_has_no_door(tmp_path: Path) -> None:
    """Its launcher has ended without a word: that is an error, and soon."""
    command = Sandbox.find(SandboxSettings()).command(
        Box("0f", tmp_path, ("/bin/true",), {}, Path("/"), {}, door=True)
    )
    command.close()
    assert command.door is not None
    with pytest.raises(OSError, match="did not say where it is"):
        command.door.open()
    command.init.end(5)


def test_nothing_secret_is_in_the_command_or_its_environment(tmp_path: Path) -> None:
    """What every user of the machine can read of a launcher; the variables travel by a descriptor."""
    sandbox = Sandbox.find(SandboxSettings())
    env = {"PATH": "/usr/bin", "TOKEN": "very-secret"}
    command = sandbox.command(
        Box("0f", tmp_path, ("/usr/bin/env",), env, Path("/"), {"MARK": "0f"})
    )
    try:
        assert "very-secret" not in " ".join(command.argv)
        assert command.env == {"MARK": "0f"}
        done = subprocess.run(
            command.argv,
            env=dict(command.env),
            pass_fds=command.fds,
            capture_output=True,
            check=True,
            timeout=20,
        )
    finally:
        command.close()
        command.init.end(5)
    assert b"TOKEN=very-secret" in done.stdout
    assert b"MARK" not in done.stdout


def test_each_box_has_a_user_of_its_own() -> None:
    """None is root's or the first of them, which is the group; two boxes hardly ever share one."""
    ids = [secrets.token_hex(8) for _ in range(300)]
    owners = [owner_of(each, 1_900_000_000) for each in ids]
    assert {owner.gid for owner in owners} == {1_900_000_000}
    assert len({owner.uid for owner in owners}) >= 299
    assert all(1_900_000_000 < owner.uid < 1_900_000_000 + 2**24 for owner in owners)


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[Shares]:
    """A place for late directories."""
    made = Shares(tmp_path / "shares", tmp_path / "tenants")
    made.open()
    yield made
    made.close()


@_root_only
def test_what_is_shown_is_never_removed(shares: Shares, tmp_path: Path) -> None:
    """Clearing up takes mounts and empty directories away, and what was shown keeps all it has."""
    workspace = tmp_path / "tenants" / "acme" / "workspaces" / "one"
    workspace.mkdir(parents=True)
    (workspace / "file").write_text("kept")
    place = shares.make("0f").place
    shares.show("0f", workspace)
    shares.show("0f", workspace)
    assert (place / "acme" / "workspaces" / "one" / "file").read_text() == "kept"
    assert len(mounts_below(place)) == 1
    shares.remove("0f")
    assert not place.exists()
    assert (workspace / "file").read_text() == "kept"
    shares.make("1f")
    with pytest.raises(ValueError, match="not in the subpath"):
        shares.show("1f", Path("/etc"))


@_root_only
def test_what_a_killed_service_left_mounted_is_cleared(shares: Shares, tmp_path: Path) -> None:
    """When the next one opens; a directory that is not empty stays, and is told of."""
    workspace = tmp_path / "tenants" / "a b\tc"
    workspace.mkdir(parents=True)
    (workspace / "file").touch()
    shares.make("0f")
    shares.show("0f", workspace)
    Shares(tmp_path / "shares", tmp_path / "tenants").open()
    assert [each.name for each in mounts_below(tmp_path)] == ["shares"]
    assert (workspace / "file").exists()
    (tmp_path / "shares" / "stray").touch()
    with pytest.raises(OSError, match="not empty"):
        clear(tmp_path / "shares")
    (tmp_path / "shares" / "stray").unlink(missing_ok=True)


def own_groups() -> Path | None:
    """Where this process may make control groups of version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = Path(line.split(" ")[4])
        if " - cgroup2 " in line and os.access(place / "cgroup.procs", os.W_OK):
            return place
    return None


def test_a_group_ends_all_that_is_in_it(tmp_path: Path) -> None:
    """Whatever has joined, and what that has started; where there may be no groups there are none."""
    place = own_groups()
    if place is None:
        assert Cgroups.find("x") is None
        return
    groups = Cgroups(place, f"warmline-test-{os.getpid()}", ())
    groups._boxes.mkdir()
    groups.make("0f", SandboxSettings())
    with subprocess.Popen(["/bin/sh", "-c", "setsid sleep 60 & wait"]) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            groups.join("0f", lambda: [process.pid, *map(int, children.read_text().split())])
            assert str(process.pid) in (groups._boxes / "0f" / "cgroup.procs").read_text().split()
            groups.remove("0f")
            assert process.wait(5) == -9
        finally:
            process.kill()
            groups.close()
    assert not groups._boxes.exists()
    del tmp_path


def test_the_limits_of_a_group_are_the_settings(tmp_path: Path) -> None:
    """Each by its own file, as far as the service may use its controller."""
    groups = Cgroups(tmp_path, "boxes", ("cpu", "memory", "pids"))
    names = ("cpu.max", "memory.max", "memory.oom.group", "pids.max")
    (tmp_path / "boxes").mkdir()

    def make(self: Path, *_: object, **__: object) -> None:
        os.makedirs(self)  # noqa: PTH103  # `Path.mkdir` is what this stands in for
        for name in names:
            (self / name).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", make)
        groups.make("0f", SandboxSettings(cpus=1.5, processes=100, memory_bytes=2**31))
    told = [(tmp_path / "boxes" / "0f" / name).read_text() for name in names]
    assert told == ["150000 100000", "2147483648", "1", "100"]


def test_a_group_says_whether_its_memory_ran_out(tmp_path: Path) -> None:
    """By the kernel's own count, and not for a group that is bounded otherwise."""
    groups = Cgroups(tmp_path, "boxes", ("memory",))
    group = tmp_path / "boxes" / "0f"
    group.mkdir(parents=True)
    assert not groups.ran_out("0f")
    (group / "memory.events").write_text("low 0\nmax 9\noom 0\noom_kill 0\noom_group_kill 0\n")
    assert not groups.ran_out("0f")
    (group / "memory.events").write_text("low 0\nmax 9\noom 1\noom_kill 7\noom_group_kill 1\n")
    assert groups.ran_out("0f")


def test_what_cannot_be_got_ready_leaves_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody else is in the group that the service was started in."""

    def tell(file: Path, text: str) -> None:
        del text
        if file.name == "cgroup.subtree_control":
            raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("warmline_service.sandbox._cgroups.tell_kernel", tell)
    groups = Cgroups(tmp_path, "boxes", ("memory",))
    with pytest.raises(OSError, match="busy"):
        groups.open()
    assert not groups._boxes.exists()
