"""Manifests on the wire: verified before they are parsed, and pushed byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.remote.rig import WHERE, Flow
from transferkit.content.manifest import Index, Manifest
from transferkit.errors import (
    DigestMismatchError,
    InvalidDigestError,
    InvalidManifestError,
    InvalidNameError,
    ManifestNotFoundError,
    ProtocolError,
    ServerError,
    TransferKitError,
)
from transferkit.options import TransportOptions
from transferkit.remote.repository import Repository
from transferkit.testing import answer, scripted_server
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

RAW = b'{"schemaVersion": 2, "layers": []}'
# printf '{"schemaVersion": 2, "layers": []}' | sha256sum
DIGEST = "sha256:398978c14b2f065541bf5c6130ec60d229636193b0779712e008b80b26db4813"
OTHER = "sha256:" + 64 * "b"
INDEX = b'{"schemaVersion": 2, "manifests": []}'
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
# What can be no digest of ours, and so contradicts nothing.
BESIDES = ["", "x", "sha256:x", f"{DIGEST}, {OTHER}", "md5:abc", f'"{DIGEST}"']


def test_a_manifest_is_asked_for_with_all_types(repository_of: Any, flow: Flow) -> None:
    reply = answer(200, RAW, {"Content-Type": f"{OCI_MANIFEST}; charset=utf-8", "Docker-Content-Digest": DIGEST})
    with scripted_server([reply]) as server:
        manifest = repository_of(server.url).fetch_manifest("latest", flow=flow)
        (request,) = server.requests
    assert isinstance(manifest, Manifest)
    assert (manifest.raw, manifest.digest, manifest.media_type) == (RAW, DIGEST, OCI_MANIFEST)
    assert (request.method, request.target) == ("GET", f"/v2/{WHERE}/manifests/latest")
    assert request.headers["accept"] == ", ".join([OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX])
    assert flow.held == set()


def test_an_index_is_one(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, INDEX, {"Content-Type": OCI_INDEX})]) as server:
        index = repository_of(server.url).fetch_manifest("latest", flow=flow)
    assert isinstance(index, Index)
    assert (index.raw, index.manifests, index.media_type) == (INDEX, (), OCI_INDEX)


@pytest.mark.parametrize("said", [*BESIDES, "sha512:" + 128 * "a"])
def test_what_is_announced_counts_only_where_it_can_be_compared(repository_of: Any, flow: Flow, said: str) -> None:
    with scripted_server([answer(200, RAW, {"Docker-Content-Digest": said})]) as server:
        repository = repository_of(server.url)
        if said.startswith("sha512:"):
            with pytest.raises(DigestMismatchError):
                repository.fetch_manifest("latest", flow=flow)
        else:
            assert repository.fetch_manifest("latest", flow=flow).raw == RAW


@pytest.mark.parametrize(
    ("reference", "reply", "error", "text"),
    [
        ("latest", answer(404), ManifestNotFoundError, "responded with status 404"),
        ("latest", answer(200, RAW, {"Docker-Content-Digest": OTHER}), DigestMismatchError, "not sha256:bbbbbbbbbbbb"),
        (OTHER, answer(200, RAW), DigestMismatchError, "has the digest sha256:398978c14b2f, not sha256:bbbbbbbbbbbb"),
        (OTHER, answer(200, RAW, {"Docker-Content-Digest": DIGEST}), DigestMismatchError, "not sha256:bbbbbbbbbbbb"),
        ("latest", answer(200, RAW[1:], {"Content-Encoding": "gzip"}), ProtocolError, "Content-Encoding 'gzip'"),
        (DIGEST, answer(200, RAW + b" ", {"Content-Encoding": "br"}), ProtocolError, "Content-Encoding 'br'"),
        ("latest", answer(200, bytes(4 * 1024 * 1024 + 1)), ProtocolError, "more than the 4194304 bytes"),
        ("latest", answer(200, b"{}"), InvalidManifestError, "it has no layers and no config"),
        ("latest", answer(200, b'{"errors": [{"code": "DENIED"}]}'), InvalidManifestError, "an error and no manifest"),
        (
            "latest",
            answer(200, b"<html>"),
            InvalidManifestError,
            "sent an HTML page and no manifest for latest; is it a registry",
        ),
    ],
)
def test_what_is_not_the_manifest_is_refused(
    repository_of: Any, flow: Flow, reference: str, reply: bytes, error: type[TransferKitError], text: str
) -> None:
    with scripted_server([reply]) as server:
        with pytest.raises(error, match=text) as caught:
            repository_of(server.url).fetch_manifest(reference, flow=flow)
    assert not caught.value.retryable
    assert flow.held == set()


@pytest.mark.parametrize(("reference", "error"), [("a b", InvalidNameError), ("sha256:x", InvalidDigestError)])
def test_what_is_no_reference_is_refused_before_any_request(
    repository_of: Any, flow: Flow, reference: str, error: type[TransferKitError]
) -> None:
    repository = repository_of("http://127.0.0.1:9")
    with pytest.raises(error):
        repository.fetch_manifest(reference, flow=flow)
    with pytest.raises(error):
        repository.push_manifest(RAW, reference, media_type=OCI_MANIFEST, flow=flow)


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize("said", [*BESIDES, DIGEST])
def test_a_manifest_is_pushed_byte_for_byte(repository_of: Any, flow: Flow, status: int, said: str) -> None:
    with scripted_server([answer(status, b"", {"Docker-Content-Digest": said})]) as server:
        repository = repository_of(server.url)
        assert repository.push_manifest(RAW, "v1", media_type=DOCKER_MANIFEST, flow=flow) == DIGEST
        (request,) = server.requests
    assert (request.method, request.target) == ("PUT", f"/v2/{WHERE}/manifests/v1")
    assert (request.headers["content-type"], request.body) == (DOCKER_MANIFEST, RAW)
    assert flow.counter.position == 0  # a manifest is not part of the progress


@pytest.mark.parametrize("label", ["", "gzip", "identity"])
@pytest.mark.parametrize("said", ["sha512:" + 128 * "a", "sha256:x"])
def test_what_is_asked_for_by_its_digest_proves_itself(repository_of: Any, flow: Flow, label: str, said: str) -> None:
    with scripted_server([answer(200, RAW, {"Docker-Content-Digest": said, "Content-Encoding": label})]) as server:
        assert repository_of(server.url).fetch_manifest(DIGEST, flow=flow).raw == RAW


PAGE = answer(200, b"<p>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize("reply", [PAGE, answer(202), answer(203), answer(206)], ids=["page", "202", "203", "206"])
def test_an_answer_that_proves_nothing_is_asked_about(repository_of: Any, flow: Flow, reply: bytes) -> None:
    with scripted_server([reply, answer(200, RAW)]) as server:
        assert repository_of(server.url).push_manifest(RAW, "v1", media_type=OCI_MANIFEST, flow=flow) == DIGEST
        assert [(r.method, r.target) for r in server.requests] == [
            ("PUT", f"/v2/{WHERE}/manifests/v1"),
            ("GET", f"/v2/{WHERE}/manifests/v1"),
        ]
    for there in (answer(404), answer(403), PAGE, answer(200, INDEX)):
        with scripted_server([reply, there]) as server:
            with pytest.raises(ProtocolError, match="does not have it"):
                repository_of(server.url).push_manifest(RAW, "v1", media_type=OCI_MANIFEST, flow=flow)
    with scripted_server([reply, answer(503)]) as server:
        with pytest.raises(ServerError) as caught:
            repository_of(server.url).push_manifest(RAW, "v1", media_type=OCI_MANIFEST, flow=flow)
    assert caught.value.retryable


def test_a_registry_that_stored_another_manifest_is_caught(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(201, b"", {"Docker-Content-Digest": OTHER})]) as server:
        with pytest.raises(DigestMismatchError, match="not sha256:bbbbbbbbbbbb"):
            repository_of(server.url).push_manifest(RAW, "v1", media_type=OCI_MANIFEST, flow=flow)
    assert flow.counter.position == 0


def test_what_cannot_be_pushed_is_refused_before_any_request(repository_of: Any, flow: Flow) -> None:
    repository = repository_of("http://127.0.0.1:9")
    with pytest.raises(DigestMismatchError):
        repository.push_manifest(RAW, OTHER, media_type=OCI_MANIFEST, flow=flow)
    with pytest.raises(InvalidManifestError, match="4194305 bytes"):
        repository.push_manifest(bytes(4 * 1024 * 1024 + 1), "v1", media_type=OCI_MANIFEST, flow=flow)


@pytest.mark.parametrize(("reference", "kind"), [(DIGEST, "blobs"), ("latest", "manifests")])
def test_ollamas_registry_has_pinned_manifests_where_the_blobs_are(flow: Flow, reference: str, kind: str) -> None:
    with scripted_server([answer(200, RAW)]) as server, Hosts(options=options_of(server)) as hosts:
        repository = Repository(Client(server.url, hosts), WHERE)
        assert repository.fetch_manifest(reference, flow=flow).raw == RAW
        assert server.requests[0].target == f"/v2/{WHERE}/{kind}/{reference}"


def options_of(server: Any) -> TransportOptions:
    return TransportOptions(ollama_hosts=frozenset({server.url.removeprefix("http://")}))
