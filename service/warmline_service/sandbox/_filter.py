"""The system calls that a sandboxed process may not make, as the program that the kernel runs for each.

Everything is allowed but what is named here: what makes namespaces and mounts, looks into other
processes, or is a door into the kernel that no tool of a session needs. Made here, in the 8-byte
instructions of classic BPF, because no kept library makes it (decision 19).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

# The kernel's words: what an instruction does, and what it answers with.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# Where `struct seccomp_data` has the call's number, its architecture, and the low half of an argument.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

# Any of the flags by which `clone` makes a namespace.
_NEW_NAMESPACES = 0x7E020000
# Typing into, and selecting on, a terminal that the process does not have.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# A namespace of the network keeps the others of these out as well, but not all: AF_VSOCK is the host's.
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

# By name: the number on x86_64 and that on aarch64, None where there is no such call.
DENIED: dict[str, tuple[int, int | None]] = {
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # Doors into the kernel.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "fanotify_init": (300, 262),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "lookup_dcookie": (212, 18),
    "uselib": (134, None),
    "modify_ldt": (154, None),
    "ioperm": (173, None),
    "iopl": (172, None),
    # What is the machine's.
    "acct": (163, 89),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
}


@dataclass(frozen=True)
class _Machine:
    """What differs between architectures; `column` is that of the table above."""

    architecture: int
    column: int
    clone: int
    ioctl: int
    socket: int
    socketpair: int
    # From here on numbers are those of another ABI.
    bound: int | None


_CLONE3 = 435
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 56, 16, 41, 53, 0x40000000),
    "aarch64": _Machine(0xC00000B7, 1, 220, 29, 198, 199, None),
}


def machines() -> tuple[str, ...]:
    """The machines, by the names of `uname -m`, for which there is a filter."""
    return tuple(_MACHINES)


def filter_program(machine: str | None = None) -> bytes:
    """The program for a machine, by default this one. Raises KeyError where there is none."""
    its = _MACHINES[machine or os.uname().machine]
    program = [
        _load(_ARCHITECTURE),
        # A call by the rules of another architecture would have other numbers.
        _step(_EQUAL, its.architecture, 1, 0),
        _answer(_KILL),
        _load(_NUMBER),
    ]
    if its.bound is not None:
        program += [_step(_AT_LEAST, its.bound, 0, 1), _answer(_KILL)]
    for numbers in DENIED.values():
        number = numbers[its.column]
        if number is not None:
            program += [_step(_EQUAL, number, 0, 1), _answer(_error(errno.EPERM))]
    # Its flags are in memory, where a filter cannot look: without it callers use `clone`.
    program += [_step(_EQUAL, _CLONE3, 0, 1), _answer(_error(errno.ENOSYS))]
    program += _where(its.clone, _load(_ARGUMENTS), _denied(_ANY_BIT, _NEW_NAMESPACES))
    second = _load(_ARGUMENTS + 8)
    program += _where(its.ioctl, second, _denied(_EQUAL, _TIOCSTI) + _denied(_EQUAL, _TIOCLINUX))
    for call in (its.socket, its.socketpair):
        program += _where(call, _load(_ARGUMENTS), _only(_FAMILIES))
    program.append(_answer(_ALLOW))
    return b"".join(program)


def _where(number: int, load: bytes, then: list[bytes]) -> list[bytes]:
    """For one call alone: look at an argument, and allow what `then` does not answer."""
    body = [load, *then, _answer(_ALLOW)]
    return [_step(_EQUAL, number, 0, len(body)), *body]


def _denied(test: int, value: int) -> list[bytes]:
    return [_step(test, value, 0, 1), _answer(_error(errno.EPERM))]


def _only(values: tuple[int, ...]) -> list[bytes]:
    tests = [_step(_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [*tests, _answer(_error(errno.EAFNOSUPPORT))]


def _error(number: int) -> int:
    return _ERROR | number


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _step(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", test, if_true, if_false, value)


def _answer(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
