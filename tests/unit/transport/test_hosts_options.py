"""What is said of single hosts holds for those alone: certificates, insecurity, header fields, proxies."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from tests.unit.transport.rig import HELLO, TLSServer, ask, everything, send
from transferkit.errors import CertificateError, ProtocolError
from transferkit.options import HostOptions
from transferkit.testing import answer, scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts


@pytest.fixture
def mutual(authority: trustme.CA) -> ssl.SSLContext:
    """TLS that asks for a client certificate, and does without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def host_of(server: Any) -> str:
    return f"127.0.0.1:{server.port}"


def follow(client: Client) -> bytes:
    with send(client, "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
        return everything(found)


def test_a_bundle_counts_for_its_host(server_context: ssl.SSLContext, bundle: str) -> None:
    with TLSServer(server_context, [HELLO]) as one, TLSServer(server_context, [HELLO]) as other:
        with Hosts(hosts={host_of(one): HostOptions(ca_bundle=bundle)}) as hosts:
            assert ask(Client(one.url, hosts)) == (200, b"hello")
            with pytest.raises(CertificateError):
                ask(Client(other.url, hosts))


def test_a_bundle_counts_before_the_environment_and_the_session(
    server_context: ssl.SSLContext, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with TLSServer(server_context, [HELLO]) as server, requests.Session() as session:
        session.verify = "/elsewhere/ca.pem"
        with Hosts(session, hosts={"127.0.0.1": HostOptions(ca_bundle=bundle)}) as hosts:
            assert ask(Client(server.url, hosts)) == (200, b"hello")


def test_insecurity_is_for_whoever_asks_for_it_and_does_not_stick(server_context: ssl.SSLContext) -> None:
    """CVE-2024-35195: a connection that was made without verification was used again by who wanted it."""
    with TLSServer(server_context, [HELLO] * 4) as server, Hosts() as hosts:
        assert ask(Client(server.url, hosts, insecure=True)) == (200, b"hello")
        with pytest.raises(CertificateError):
            ask(Client(server.url, hosts))
        assert ask(Client(server.url, hosts, insecure=True)) == (200, b"hello")
    with TLSServer(server_context, [HELLO]) as server:
        with Hosts(hosts={host_of(server): HostOptions(insecure=True)}) as hosts:
            assert ask(Client(server.url, hosts)) == (200, b"hello")


def test_an_insecure_host_does_not_make_its_storage_one(server_context: ssl.SSLContext) -> None:
    with TLSServer(server_context, [HELLO]) as storage:
        moved = answer(307, b"", {"Location": f"{storage.url}/blob"})
        with TLSServer(server_context, [moved]) as server, Hosts() as hosts:
            with pytest.raises(CertificateError):
                follow(Client(server.url, hosts, insecure=True))
            assert storage.requests == []


def test_certificate_and_fields_go_to_their_host_alone(
    mutual: ssl.SSLContext, authority: trustme.CA, bundle: str
) -> None:
    """GHSA-h3wm-jjqf-8jm2 and GHSA-whvf-jp7m-59f3: both went wherever a registry redirected to."""
    with authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.tempfile() as file:
        with TLSServer(mutual, [HELLO]) as storage:
            moved = answer(307, b"", {"Location": f"{storage.url}/blob"})
            with TLSServer(mutual, [moved]) as server:
                given = HostOptions(ca_bundle=bundle, client_cert=file, headers={"X-Secret": "s"})
                hosts = Hosts(hosts={host_of(server): given, host_of(storage): HostOptions(ca_bundle=bundle)})
                with hosts:
                    assert follow(Client(server.url, hosts)) == b"hello"
                assert (server.subjects, storage.subjects) == (["me@example.org"], [None])
                assert ["x-secret" in each.requests[0].headers for each in (server, storage)] == [True, False]


def test_a_proxy_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with scripted_server([HELLO]) as proxy, scripted_server([HELLO]) as server:
        given = {"far.example": HostOptions(proxies={"http": proxy.url}), host_of(server): HostOptions(proxies={})}
        with Hosts(hosts=given) as hosts:
            assert ask(Client("http://far.example", hosts)) == (200, b"hello")
            assert ask(Client(server.url, hosts)) == (200, b"hello")
        assert proxy.requests[0].target == "http://far.example/x"


@pytest.mark.parametrize(
    "options", [{"scheme": "ftp"}, {"mirrors": "http://m"}, {"headers": {"a": "b\r\nc"}}, {"headers": {"": "b"}}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="HostOptions"):
        HostOptions(**options)


def test_no_secret_stands_in_a_repr() -> None:
    assert "hush" not in repr(HostOptions(headers={"Authorization": "hush"}))
    assert "hush" not in repr(HostOptions(proxies={"https": "http://user:hush@proxy.example"}))


def test_a_header_field_of_a_host_that_a_peer_repeats_is_not_repeated() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: hush-hush\r\n\r\n"
    with scripted_server(lambda _: reply) as server:
        with Hosts(hosts={host_of(server): HostOptions(headers={"X-Key": "hush-hush"})}) as hosts:
            with pytest.raises(ProtocolError) as caught:
                ask(Client(server.url, hosts))
    assert "***" in str(caught.value)
    assert "hush" not in str(caught.value)
