"""Servers for the tests of the transport, with TLS and without."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
import requests
import trustme

import transferkit as tk
from tests.unit.transport.rig import Serve, TLSServer
from transferkit.testing import scripted_server


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "registry.example").configure_cert(context)
    return context


@pytest.fixture
def trust(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with authority.cert_pem.tempfile() as file:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", file)
        yield


@pytest.fixture(params=["plain", "tls"])
def serve(request: pytest.FixtureRequest, server_context: ssl.SSLContext, trust: None) -> Serve:
    """Make a scripted server, plain or behind TLS."""
    if request.param == "plain":
        return scripted_server
    return lambda *args, **kwargs: TLSServer(server_context, *args, **kwargs)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session of the user's with one pooled adapter."""
    with requests.Session() as session:
        adapter = tk.PooledAdapter()
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        yield session


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens, nor can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
