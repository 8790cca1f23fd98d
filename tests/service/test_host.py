"""What the service asks of the machine for itself."""

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, os, struct, subprocess, sys, threading
from warmline_service.host import be_prompt

def slice_of(tid):
    about = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(ctypes.c_long(number), tid, about, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", about.raw)[5]

asked, ended = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (asked.set(), ended.wait()))
thread.start()
asked.wait()
os.nice(3)
before = slice_of(0)
be_prompt()
child = subprocess.Popen(["sleep", "60"])
print(before, slice_of(0), slice_of(thread.native_id), slice_of(child.pid), os.nice(0))
child.kill()
ended.set()
"""


def test_the_threads_of_the_service_have_short_slices_and_its_processes_have_not() -> None:
    """Where the kernel has slices; nothing else about them is changed."""
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, timeout=60, check=True
    ).stdout
    before, main, thread, child, nice = map(int, said.split())
    # An older kernel says 0 of all.
    assert (main, thread) == ((200_000, 200_000) if before else (0, 0))
    assert child == before
    assert nice == 3


@pytest.mark.parametrize("module", ["warmline_service.host", "warmline_http._serve"])
def test_as_many_files_as_the_machine_allows(module: str) -> None:
    """A shell's usual bound is below what many processes, or streams of HTTP, take."""
    program = f"""
import resource
from {module} import open_many_files
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
open_many_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True
    ).stdout
    assert said == b"True\n"
