"""nginx, docker-registry and our own server on free ports of 127.0.0.1: configuration, start and end.

Ends only what it started. Knows no contestant and no figure but what nginx logs: connection and request.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.slowness import LIMITED, SCRIPTED, SHARED

UP_WITHIN = 20.0  # seconds
# The log is written in blocks (a line a request costs a system call otherwise), at the latest after this time.
LOG_FLUSH = 0.1
NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
PATTERN = "^/v2/bench/(?<set>[^/]+)/blobs/sha256:(?<hex>[0-9a-f]+)$"

NGINX = """
{modules}
{user}
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format counted '$connection $status $bytes_sent $request_length';
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 300;
  client_max_body_size 0; default_type application/octet-stream;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  ssl_protocols TLSv1.3;
  {servers}
}}
"""
FILES = """
  {shared}
  server {{
    listen 127.0.0.1:{port}{tls} backlog=4096;
    {certificate}
    access_log {folder}/{name}.log counted buffer=256k flush=100ms;
    location ~ {pattern} {{ {slow} alias {blobs}/$set/sha256-$hex; }}
  }}
"""
PROXY = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    access_log {folder}/{name}.log counted buffer=256k flush=100ms;
    location / {{
      proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_buffering off;
    }}
  }}
"""


class ServerError(Exception):
    """A server is not installed, or did not start."""


@dataclass(frozen=True, slots=True)
class Traffic:
    requests: int
    connections: int
    size: int = 0
    """Bytes in both directions, with the heads."""


class Counter:
    """Reads a log of nginx, each time from where it ended the last time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = 0

    def count(self) -> Traffic:
        """Return what there was since the last call."""
        time.sleep(2 * LOG_FLUSH)
        with self._log.open("rb") as file:
            file.seek(self._position)
            lines = [line.split() for line in file]
            self._position = file.tell()
        size = sum(int(sent) + int(received) for _, _, sent, received in lines)
        return Traffic(len(lines), len({line[0] for line in lines}), size)


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers. ``counter`` is there where nginx sees the requests."""

    url: str
    counter: Counter | None = None
    ca: Path | None = None
    storage: Path | None = None
    """Where a registry keeps its blobs."""


def has_lua() -> bool:
    return any((Path(folder) / "ngx_http_lua_module.so").exists() for folder in NGINX_MODULES)


def nginx_path() -> str | None:
    # Debian has it in a folder that is not on everybody's path.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def file_server(kind: str, blobs: Path, folder: Path) -> Iterator[Server]:
    """nginx with the blobs: ``loopback``, ``cdn``, ``pinned``, ``silent``, ``tls``, ``limited-1`` or ``limited-2``.

    ``cdn`` has 20 ms to the first byte and 40 MB/s a connection; ``pinned`` as well, but for its first connection since
    it was started, which has 50 KB/s; and ``silent``, but for the first request for the end of a blob, whose answer
    stops halfway. The limited ones serve one connection, or two, with 1 MB/s each.
    """
    modules = certificate = ""
    ca: Path | None = None
    if kind in SCRIPTED:
        if not has_lua():
            raise ServerError("nginx has no lua module")
        where = next(Path(m) for m in NGINX_MODULES if (Path(m) / "ngx_http_lua_module.so").exists())
        modules = f"load_module {where}/ndk_http_module.so; load_module {where}/ngx_http_lua_module.so;"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tls":
        ca = folder / "ca.pem"
        _certificates(folder)
        certificate = f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;"
    (port,) = free_ports(1)
    server = FILES.format(
        port=port,
        tls=" ssl" if ca else "",
        certificate=certificate,
        folder=folder,
        name=kind,
        pattern=f'"{PATTERN}"',
        slow={**SCRIPTED, **LIMITED}.get(kind, ""),
        shared=SHARED.get(kind, ""),
        blobs=blobs,
    )
    with _nginx(folder, server, port, modules):
        yield Server(f"http{'s' if ca else ''}://127.0.0.1:{port}", Counter(folder / f"{kind}.log"), ca)


@contextmanager
def counting_proxy(target: str, folder: Path) -> Iterator[Server]:
    """nginx before a registry, to count what reaches it. It costs time: not for figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    with _nginx(folder, PROXY.format(port=port, folder=folder, name="proxy", target=target), port, ""):
        yield Server(f"http://127.0.0.1:{port}", Counter(folder / "proxy.log"))


@contextmanager
def registry(folder: Path) -> Iterator[Server]:
    """docker-registry, with a storage of its own on disk, empty."""
    executable = shutil.which("docker-registry")
    if executable is None:
        raise ServerError("docker-registry is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    configuration = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data"), "maxthreads": 200},
            "delete": {"enabled": True},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.yml").write_text(json.dumps(configuration))  # every JSON text is YAML
    # AWS_CA_BUNDLE alone ends it, and each REGISTRY_... overrides a line of the file.
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "REGISTRY_"))}
    with _running([executable, "serve", str(folder / "registry.yml")], port, folder / "log", environment):
        yield Server(f"http://127.0.0.1:{port}", storage=folder / "data/docker/registry/v2")


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Server]:
    """``transferkit serve``, with a registry in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "transferkit", "serve", "--port", str(port), "--registry", str(folder / "data")]
    command += options
    with _running(command, port, folder / "log", dict(os.environ)):
        yield Server(f"http://127.0.0.1:{port}", storage=folder / "data")


@contextmanager
def _nginx(folder: Path, servers: str, port: int, modules: str) -> Iterator[None]:
    executable = nginx_path()
    if executable is None:
        raise ServerError("nginx is not installed")
    # The workers of an nginx that root starts run as somebody else, who cannot read the blobs.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = NGINX.format(modules=modules, user=user, folder=folder, servers=servers)
    (folder / "nginx.conf").write_text(configuration)
    # Before it has read its configuration it writes to the error log it was built with, unless -e names one.
    command = [executable, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with _running(command, port, folder / "error.log", dict(os.environ)):
        yield


@contextmanager
def _running(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + UP_WITHIN
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()[-300:]
                raise ServerError(f"{Path(command[0]).name} did not start: {said}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that systems give to connections of their choice."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        if port not in found and not _listens(port):
            found.append(port)
    return found


def _certificates(folder: Path) -> None:
    """A certificate authority that no system knows, and a certificate of it for 127.0.0.1."""
    try:
        import trustme
    except ImportError:
        raise ServerError("trustme is not installed") from None
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "server.pem"), append=True)
    ssl.create_default_context(cafile=str(folder / "ca.pem"))
