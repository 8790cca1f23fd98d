"""At level `strict` there is no network: one socket leads to the model, and nothing else anywhere."""

import socket
import threading
from collections.abc import Iterator

import pytest
from inside import python
from shared import ServiceThread
from warmline_client import Conversation

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]


class Listener:
    """Somebody on this machine who notes that it was reached."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.bind(address)
        self._socket.listen()
        self.address = self._socket.getsockname()
        self.reached = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        self.reached.set()
        connection.close()


@pytest.fixture
def on_a_port() -> Iterator[Listener]:
    """Listens on this machine's loopback device."""
    listener = Listener(("127.0.0.1", 0))
    yield listener
    listener.close()


@pytest.fixture
def abstract() -> Iterator[Listener]:
    """Listens at a name that is in no directory: no mount hides it."""
    listener = Listener("\0warmline-test-of-the-sandbox")
    yield listener
    listener.close()


_CONNECT = """
import socket
for family, address in ADDRESSES:
    try:
        with socket.socket(family) as one:
            one.settimeout(1)
            one.connect(address)
            print("REACHED", address)
    except OSError as error:
        print("not", address, error)
print("done")
"""


async def test_nothing_can_be_connected_to(
    thread: ServiceThread,
    on_a_port: Listener,
    abstract: Listener,
    attacker: Conversation,
) -> None:
    """Not the service's port, this machine's loopback, the cloud's metadata, the internet."""
    inet, unix = int(socket.AF_INET), int(socket.AF_UNIX)
    addresses = [
        (inet, ("127.0.0.1", thread.port)),
        (inet, on_a_port.address),
        (inet, ("169.254.169.254", 80)),
        (inet, ("1.1.1.1", 443)),
        (inet, (socket.gethostbyname(socket.gethostname()), thread.port)),
        (unix, b"\0warmline-test-of-the-sandbox"),
    ]
    told = await python(attacker, _CONNECT.replace("ADDRESSES", repr(addresses)))
    assert "done" in told
    assert "REACHED" not in told
    assert told.count("not (") == 5
    assert not on_a_port.reached.is_set()
    assert not abstract.reached.is_set()


async def test_there_is_no_device_and_no_name(attacker: Conversation) -> None:
    """Only its own loopback device; no datagram leaves, no name is found, no device can be added."""
    told = await python(
        attacker,
        """
import fcntl, os, socket, struct
print("devices", [name for _, name in socket.if_nameindex()])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    try:
        one.sendto(b"x", ("8.8.8.8", 53))
        print("SENT")
    except OSError as error:
        print("not sent", error)
try:
    print("FOUND", socket.getaddrinfo("example.com", 80))
except OSError as error:
    print("not found", error)
try:
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH", b"tun0", 1))
    print("ADDED")
except OSError as error:
    print("not added", error)
""",
    )
    assert "devices ['lo']" in told
    assert "not sent" in told
    assert "not found" in told
    assert "not added" in told


async def test_other_kinds_of_socket_are_refused(attacker: Conversation) -> None:
    """A namespace of the network keeps in some that are the machine's, such as its hypervisor's."""
    told = await python(
        attacker,
        """
import socket
for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET, 29, 31, 44):
    for make in (socket.socket, socket.socketpair):
        try:
            make(family, socket.SOCK_STREAM)
            print("MADE", family)
        except OSError as error:
            print("not", family, error.errno)
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    print("MADE raw")
except OSError:
    print("done")
""",
    )
    assert "done" in told
    assert "MADE" not in told
    assert told.count(" 97") == 12


async def test_the_way_to_the_model_is_no_proxy(attacker: Conversation) -> None:
    """What is asked for there is the model, as the session; another address or path leads nowhere."""
    told = await python(
        attacker,
        """
import os, socket
def ask(head):
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(3)
        one.connect(os.environ["ANTHROPIC_UNIX_SOCKET"])
        one.sendall(head.encode() + b"\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
        try:
            return one.recv(200).split(b"\\r\\n")[0].decode()
        except OSError as error:
            return str(error)
print("connect:", ask("CONNECT 169.254.169.254:80 HTTP/1.1"))
print("absolute:", ask("GET http://169.254.169.254/latest/meta-data HTTP/1.1"))
print("admin:", ask("GET /../../metrics HTTP/1.1"))
print("metadata:", ask("GET /latest/meta-data HTTP/1.1"))
""",
    )
    for kind in ("connect", "absolute", "admin", "metadata"):
        line = next(line for line in told.splitlines() if line.startswith(f"{kind}:"))
        assert " 200" not in line, told
