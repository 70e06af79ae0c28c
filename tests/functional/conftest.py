"""Helpers of the functional tests: the whole stack over loopback."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

import transferkit as tk
from transferkit.testing.scripted import Script, ScriptedServer

TakeLittle = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="session")
def take_little() -> TakeLittle:
    """``take_little(patch)`` gives the servers that start from then on small buffers.

    A body of some MiB does not disappear in them where nobody reads it. Linux lets a buffer grow to 32 MiB.
    """
    real = socket.socket.listen

    def listen(sock: socket.socket, *backlog: int) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # what it accepts has the same
        real(sock, *backlog)

    return lambda patch: patch.setattr(socket.socket, "listen", listen)


@pytest.fixture
def small_buffers(take_little: TakeLittle, monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers of the test take little: ``usefixtures`` brings it before those that start one."""
    take_little(monkeypatch)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Return, for each blob in a folder, its file name and the digest that ``hashlib`` finds."""

    def look(folder: Path) -> dict[str, str]:
        return {
            file.name: "sha256-" + hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.iterdir()
            if file.is_file()
        }

    return look


@pytest.fixture
def assert_exactly(contents: Callable[[Path], dict[str, str]]) -> Callable[[Path, list[tk.Blob]], None]:
    """Assert that a folder holds just these blobs, each with the right bytes, and nothing unfinished."""

    def check(folder: Path, blobs: list[tk.Blob]) -> None:
        expected = {blob.digest.replace(":", "-"): blob.digest.replace(":", "-") for blob in blobs}
        assert expected == contents(folder)
        leftovers = [file.name for file in (folder / ".partial").iterdir() if file.name != "verified"]
        assert leftovers == []

    return check


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every host but ``nowhere.example`` leads to 127.0.0.1, so that a registry can have a public name.

    The fixture is the list of the hosts that were asked for.
    """
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host.decode() if isinstance(host, bytes) else host)
        if asked[-1] == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", int(port)))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.fixture
def serve() -> Iterator[Callable[[Script], ScriptedServer]]:
    """``serve(script)`` starts a scripted server that runs until the test ends."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedServer(script))


class TLSServer(ScriptedServer):
    """A scripted server under TLS, which asks for a client certificate; ``certificates`` tells who showed one."""

    def __init__(self, script: Script, context: ssl.SSLContext) -> None:
        super().__init__(script)
        self.context = context
        self.certificates: list[bool] = []

    def _serve(self, sock: socket.socket, number: int) -> None:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._live.discard(sock)
            self._live.add(wrapped)
        try:
            wrapped.do_handshake()
            self.certificates.append(bool(wrapped.getpeercert()))
        except OSError:
            pass  # the client did not like it; the first read will say so again
        super()._serve(wrapped, number)


class Authority:
    """A certificate authority: ``bundle`` is the path of its certificate."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.bundle = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.bundle)
        self.client_certificate = str(folder / "client.pem")
        self.ca.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(self.client_certificate)

    def server(self, script: Script) -> TLSServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        hosts = ("registry.example", "storage.example", "auth.example", "proxy.example", "127.0.0.1")
        self.ca.issue_cert(*hosts).configure_cert(context)
        self.ca.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        return TLSServer(script, context)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


@pytest.fixture
def serve_tls(authority: Authority) -> Iterator[Callable[[Script], TLSServer]]:
    """``serve_tls(script)`` starts a server under TLS whose certificates are of ``authority``."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(authority.server(script))


@pytest.fixture
def failure() -> Callable[[Callable[[], object]], tk.TransferKitError]:
    """``failure(call)`` returns the error that a call ends with: of the one blob, where that is what failed."""

    def of(call: Callable[[], object]) -> tk.TransferKitError:
        with pytest.raises(tk.TransferKitError) as caught:
            call()
        error = caught.value
        if isinstance(error, tk.IncompleteError):
            (error,) = error.failures.values()
        return error

    return of
