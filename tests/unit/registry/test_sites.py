"""Where names lead to: the scheme that a host speaks, its mirrors, and what is one host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.unit.remote.rig import Flow
from transferkit.errors import CancelledError
from transferkit.names import Reference
from transferkit.options import HostOptions, RetryOptions, TransferOptions, TransportOptions
from transferkit.registry.sites import Sites, is_local, same_host
from transferkit.remote.mirrors import MirroredRepository
from transferkit.testing import answer, running_registry, scripted_server
from transferkit.transport.hosts import Hosts

OPTIONS = TransferOptions(retry=RetryOptions(attempts=1, patience=0.0))


@pytest.fixture
def sites() -> Iterator[Sites]:
    given = {
        "mirrored.example": HostOptions(mirrors=("https://one.example", "http://two.example:5000")),
        "plain.example": HostOptions(scheme="http"),
    }
    with Hosts(hosts=given) as hosts:
        yield Sites(hosts, OPTIONS)


def origin_of(sites: Sites, name: str) -> str:
    return str(sites.find(Reference.parse(name), Flow()).repository.client.origin)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m", "https://registry.ollama.ai"),
        ("ghcr.io/a/b", "https://ghcr.io"),
        ("http://ghcr.io/a/b", "http://ghcr.io"),
        ("https+insecure://ghcr.io/a/b", "https://ghcr.io"),
        ("docker.io/library/alpine", "https://registry-1.docker.io"),
        ("plain.example/a/b", "http://plain.example"),
        ("https://plain.example/a/b", "https://plain.example"),
    ],
)
def test_a_name_leads_to_its_host(sites: Sites, name: str, expected: str) -> None:
    assert origin_of(sites, name) == expected


def test_a_host_of_this_machine_that_speaks_no_tls_is_asked_once(sites: Sites) -> None:
    with running_registry() as server:
        host = server.url.removeprefix("http://")
        assert [origin_of(sites, f"{host}/a/{model}") for model in "bc"] == [server.url] * 2
        assert len(server.log) == 0


def test_a_host_of_this_machine_that_says_nothing_to_tls_is_asked_by_http() -> None:
    options = TransportOptions(connect_timeout=0.1)
    with scripted_server(lambda _: answer(200)) as server, Hosts(options=options) as hosts:
        assert origin_of(Sites(hosts, OPTIONS), f"{server.url.removeprefix('http://')}/a/b") == server.url


def test_a_host_of_this_machine_whose_certificate_is_unknown_speaks_tls(sites: Sites, tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with running_registry(tls=(certificate, key)) as server:
        assert origin_of(sites, f"{server.url.removeprefix('https://')}/a/b") == server.url


def test_a_host_that_nobody_answers_for_is_asked_by_http(sites: Sites) -> None:
    assert origin_of(sites, "127.0.0.1:9/a/b") == "http://127.0.0.1:9"


def test_the_question_can_be_cancelled(sites: Sites) -> None:
    flow = Flow()
    flow.cut()
    with pytest.raises(CancelledError):
        sites.find(Reference.parse("127.0.0.1:9/a/b"), flow)


def test_mirrors_stand_before_a_registry(sites: Sites) -> None:
    site = sites.find(Reference.parse("mirrored.example/a/b"), Flow())
    assert isinstance(site.source, MirroredRepository)
    assert str(site.repository.client.origin) == "https://mirrored.example"
    plain = sites.find(Reference.parse("other.example/a/b"), Flow())
    assert plain.source is plain.repository


def test_two_repositories_of_one_registry_are_of_one_host(sites: Sites) -> None:
    def find(name: str) -> Any:
        return sites.find(Reference.parse(name), Flow()).repository

    assert same_host(find("ghcr.io/a/b"), find("ghcr.io/c/d:v2"))
    assert not same_host(find("ghcr.io/a/b"), find("quay.io/a/b"))
    assert not same_host(find("ghcr.io/a/b"), find("http://ghcr.io/a/b"))
    # What is known of one whose certificate is not looked at is not shared.
    assert not same_host(find("ghcr.io/a/b"), find("https+insecure://ghcr.io/a/b"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:5000", True),
        ("registry.localhost", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::2]", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("ghcr.io", False),
    ],
)
def test_what_is_this_machine(host: str, expected: bool) -> None:
    assert is_local(host) is expected
