"""An nginx of Debian's in front of something, as one has it who has set nothing but what is in the docs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BINARY = "/usr/sbin/nginx"
_TIMEOUT = 60.0
_SETTINGS = """
daemon off;
pid {root}/pid;
error_log {root}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {upstream}; }}
        location /v1/chat/ws {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""


@contextmanager
def running_nginx(upstream: str) -> Iterator[str]:
    """A proxy to a URL; its own. When it ends nothing is left."""
    # Not in TMPDIR, which is one test's: the proxy may be a module's.
    root = Path(tempfile.mkdtemp(prefix="wl-nginx-", dir="/tmp"))
    # Its workers are nobody, where it is started by root.
    root.chmod(0o755)
    port = _free_port()
    (root / "conf").write_text(_SETTINGS.format(root=root, port=port, upstream=upstream))
    command = [_BINARY, "-p", str(root), "-c", str(root / "conf"), "-e", str(root / "error.log")]
    process = subprocess.Popen(command)
    try:
        _await(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_TIMEOUT)
        shutil.rmtree(root)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except ConnectionRefusedError:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.02)
        else:
            return
