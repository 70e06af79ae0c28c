"""Connecting: nobody there, nobody known, and no socket left."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.transport.rig import (
    ANY,
    HELLO,
    LIMIT,
    Serve,
    TLSServer,
    ask,
    client_of,
    everything,
    send,
    sockets,
    until,
)
from transferkit.errors import CancelledError, CertificateError, ConnectError, TransportTimeout
from transferkit.testing import scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.sockets import READ, WRITE, new_poll


def test_nobody_there_is_an_error_of_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectError, match="cannot connect"):
        ask(client)


def test_a_certificate_of_nobody_we_know_is_refused(server_context: ssl.SSLContext) -> None:
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        with pytest.raises(CertificateError, match="does not verify"):
            ask(client)
        assert [] == server.requests


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_bundle_of_the_environment_counts(
    server_context: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    kind: str,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    if kind == "folder":
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl, to name the files of a folder")
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
    monkeypatch.setenv(variable, str(bundle if kind == "file" else tmp_path))
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_cannot_be_read_is_named(
    server_context: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        with pytest.raises(
            CertificateError, match=r"the CA bundle .*ca\.pem cannot be read: .+; set REQUESTS_CA_BUNDLE"
        ):
            ask(client)
        assert [] == server.requests


def test_a_certificate_of_another_name_is_refused(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TLSServer(server_context, [HELLO]) as server:
        leads_to(monkeypatch, [(socket.AF_INET, "127.0.0.1", server.port)])
        with client_of(f"https://elsewhere.example:{server.port}") as client:
            with pytest.raises(CertificateError, match=r"not valid for 'elsewhere.example'"):
                ask(client)
        with client_of(f"https://registry.example:{server.port}") as client:
            assert (200, b"hello") == ask(client)


@pytest.mark.parametrize("lane", ["fast", "ordinary"])
def test_a_certificate_with_a_common_name_alone_is_refused(
    authority: trustme.CA, trust: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    """OpenSSL would look at the common name where there is no other; RFC 9110 4.3.4 has the other alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certify(context, authority, tmp_path / "server.pem", common_name="registry.example")
    with TLSServer(context, [HELLO]) as server, requests.Session() as session:
        leads_to(monkeypatch, [(socket.AF_INET, "127.0.0.1", server.port)])
        given = session if lane == "ordinary" else None
        with client_of(f"https://registry.example:{server.port}", session=given) as client:
            with pytest.raises(CertificateError, match=r"registry\.example"):
                ask(client)
        assert [] == server.requests


def certify(context: ssl.SSLContext, authority: trustme.CA, path: Path, *, common_name: str) -> None:
    """Give a server a certificate without an alternative name."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    issuer_key: Any = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(issuer_key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()) + certificate.public_bytes(pem))
    context.load_cert_chain(path)


def leads_to(monkeypatch: pytest.MonkeyPatch, addresses: list[tuple[int, str, int]]) -> None:
    """Let every host name have these addresses."""
    found = [(family, socket.SOCK_STREAM, 6, "", (host, port)) for family, host, port in addresses]
    monkeypatch.setattr("transferkit.transport.sockets.socket.getaddrinfo", lambda *_: found)


@pytest.mark.parametrize("family", [socket.AF_INET, 12345])
def test_the_next_address_is_asked_where_nobody_is_at_the_first(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """Also where the system does not know the first one's family: no IPv6 in many a container."""
    with scripted_server([HELLO]) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        leads_to(monkeypatch, [(family, "127.0.0.1", port), (socket.AF_INET, "127.0.0.1", server.port)])
        with client_of(f"http://registry.example:{server.port}") as client:
            assert (200, b"hello") == ask(client)


def test_the_next_address_is_asked_where_the_system_refuses_the_first_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way to a broadcast address by TCP: the error comes from the call itself, and is in no SO_ERROR."""
    with scripted_server([HELLO]) as server:
        nowhere = (socket.AF_INET, "255.255.255.255", server.port)
        leads_to(monkeypatch, [nowhere, (socket.AF_INET, "127.0.0.1", server.port)])
        with client_of(f"http://registry.example:{server.port}") as client:
            assert (200, b"hello") == ask(client)
        leads_to(monkeypatch, [nowhere])
        with client_of(f"http://registry.example:{server.port}") as client:
            with pytest.raises(ConnectError, match=r"cannot connect to .*: (Network is unreachable|Permission denied)"):
                ask(client)


def test_a_handshake_that_never_comes_ends_in_time(trust: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with client_of(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.2) as client:
            with pytest.raises(TransportTimeout, match="no connection to"):
                ask(client)


def test_a_handshake_is_woken_by_a_cancel(trust: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flow = WorkerFlow()
        ended: list[Any] = []

        def attempt() -> None:
            with client_of(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=LIMIT) as client:
                try:
                    ask(client, flow=flow)
                except CancelledError as error:
                    ended.append(error)

        thread = threading.Thread(target=attempt, name="transferkit-test-handshake")
        thread.start()
        there, _ = listener.accept()
        assert there.recv(1) == b"\x16"  # of the client's first record: it waits for ours
        reason = CancelledError("now")
        flow.cut(reason, final=True)
        thread.join(LIMIT)
        assert [reason] == ended
        there.close()


@pytest.mark.parametrize("ended", [True, False])
def test_a_client_that_is_closed_leaves_no_socket(serve: Serve, ended: bool) -> None:
    with serve([HELLO] * 6) as server:
        before = sockets()
        with client_of(server) as client:
            several = [send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(6)]
            for each in several:
                everything(each) if ended else each.close()
        assert until(lambda: sockets() <= before)  # the server's ends go when it has seen ours go, and others meanwhile


# -- where gevent or eventlet have taken over


def test_what_takes_the_place_of_poll_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.poll")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poll = new_poll()
        poll.register(ours, READ)
        assert [] == poll.poll(0)
        poll.modify(ours, READ | WRITE)
        assert [(ours.fileno(), WRITE)] == poll.poll(0)
        theirs.send(b"x")
        assert [(ours.fileno(), READ | WRITE)] == poll.poll(1000)
        poll.unregister(ours.fileno())
        assert [] == poll.poll(0)


def test_a_request_needs_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.poll")
    with scripted_server([HELLO, HELLO]) as server, client_of(server) as client:
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
