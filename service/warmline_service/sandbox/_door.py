"""A door of a box: a socket that listens in its network, and is the service's."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from warmline_service.sandbox._init import Init

# What is in the box begins when it listens, and the network is new: no other can have the port.
_PORT = 3128
_PROXY = f"http://127.0.0.1:{_PORT}"
_OWN = "localhost,127.0.0.1,::1"
# How programs find it. Some know a variable in capitals only, some the other way round.
DOOR_ENVIRONMENT: Mapping[str, str] = {
    "HTTPS_PROXY": _PROXY,
    "HTTP_PROXY": _PROXY,
    "NO_PROXY": _OWN,
    "https_proxy": _PROXY,
    "http_proxy": _PROXY,
    "no_proxy": _OWN,
}
_BACKLOG = 64
_TIMEOUT = 10.0
# From ioctl_ns(2): the namespace of users whose root has a say in a namespace.
_NS_GET_USERNS = 0xB701
# A thread of the service cannot go into another namespace of users, so a program does; it needs no modules.
_LISTEN = f"""
import _socket, sys
listener = _socket.socket()
listener.bind(("127.0.0.1", {_PORT}))
listener.listen({_BACKLOG})
rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.fileno().to_bytes(4, sys.byteorder))
_socket.socket(fileno=int(sys.argv[1])).sendmsg([b"."], [rights])
"""


class Door:
    """What is in a box does not begin before this is opened, or closed; `held` is what it waits for."""

    def __init__(self, nsenter: str, init: Init, held: int) -> None:
        self._nsenter = nsenter
        self._init = init
        self._held = held

    def open(self) -> socket.socket:
        """A socket that listens in the box's network; what is in the box begins.

        Blocks, for half a minute at most. Raises OSError, after which there is no way in.
        """
        try:
            pid = self._init.pid(_TIMEOUT)
            if pid is None:
                raise OSError("a sandbox did not say where it is")
            network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return self._listen(network)
            finally:
                os.close(network)
        finally:
            self.close()

    def close(self) -> None:
        """Have what is in the box begin. May be called twice."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _listen(self, network: int) -> socket.socket:
        entering = [self._nsenter, f"--net=/proc/self/fd/{network}"]
        users = None
        if os.geteuid() != 0:
            # Who has no rights here has them in the namespace of users that is its own.
            users = fcntl.ioctl(network, _NS_GET_USERNS)
            entering += [f"--user=/proc/self/fd/{users}", "--preserve-credentials"]
        ours, theirs = socket.socketpair()
        try:
            with ours, theirs:
                program = (_python(), "-I", "-S", "-c", _LISTEN, str(theirs.fileno()))
                given = (network, theirs.fileno()) + (() if users is None else (users,))
                _run((*entering, "--", *program), given)
                theirs.close()
                _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
        finally:
            if users is not None:
                os.close(users)
        return socket.socket(fileno=listener)


def _run(argv: tuple[str, ...], fds: tuple[int, ...]) -> None:
    try:
        done = subprocess.run(
            argv,
            pass_fds=fds,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError("the network of a sandbox could not be entered in time") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:] or f"code {done.returncode}"
        raise OSError(f"the network of a sandbox could not be entered: {said}")


def _python() -> str:
    """The service's own, or the system's where only the service may run that."""
    own = Path(sys.executable)
    if os.access(own, os.X_OK):
        return str(own)
    return shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or str(own)
