"""What is said of single hosts, as a whole pull meets it: mirrors, certificates, schemes, proxies."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

import transferkit as tk
from transferkit.options import HostOptions
from transferkit.registry import Registry
from transferkit.storage.cache import DiskCache
from transferkit.testing import Close, answer

REPOSITORY = "library/model"
SMALL, LARGE = b"{}", random.Random(7).randbytes(300_000)
SMALL_DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # printf '{}' | sha256sum
LARGE_DIGEST = "sha256:" + hashlib.sha256(LARGE).hexdigest()
CONTENT = {SMALL_DIGEST: SMALL, LARGE_DIGEST: LARGE}
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.example", "digest": SMALL_DIGEST, "size": len(SMALL)},
        "layers": [{"mediaType": "application/vnd.example", "digest": LARGE_DIGEST, "size": len(LARGE)}],
    }
).encode()
CHUNKS = tk.TransferOptions(chunk_threshold=64 * 1024, chunk_size=64 * 1024, resume_threshold=64 * 1024)


def serving(request):
    """A registry with the model, and with ranges."""
    last = request.target.rpartition("/")[2]
    if "/manifests/" in request.target:
        return answer(200, MANIFEST)
    if last not in CONTENT or "/chunksums/" in request.target:
        return answer(404)
    data, wanted = CONTENT[last], request.headers.get("range")
    if wanted is None:
        return answer(200, data)
    first, _, end = wanted.removeprefix("bytes=").partition("-")
    part = data[int(first) : int(end) + 1 if end else len(data)]
    return answer(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"})


def blobs(server):
    return [request for request in server.requests if "/blobs/" in request.target]


@pytest.fixture
def pull(tmp_path):
    """``pull(registry, *mirrors)`` pulls the model through mirrors, and checks what is in the cache then."""

    def run(registry, *mirrors, options=None):
        host = f"127.0.0.1:{registry.port}"
        given = {host: HostOptions(mirrors=tuple(mirror.url for mirror in mirrors))}
        cache = DiskCache(tmp_path / "cache", resume_threshold=64 * 1024)
        with Registry(cache=cache, hosts=given, options=options) as client:
            client.pull(f"http://{host}/{REPOSITORY}:v1")
            for digest, data in CONTENT.items():
                assert data == Path(client.cache.path(digest)).read_bytes()

    return run


# -- mirrors


def test_the_first_mirror_is_asked_for_blobs_and_the_registry_for_the_manifest(serve, pull):
    first, second, registry = serve(serving), serve(serving), serve(serving)
    pull(registry, first, second)
    assert (2, 0, 0) == (len(blobs(first)), len(blobs(second)), len(blobs(registry)))
    assert 1 == len(registry.requests)


def test_a_mirror_without_the_blob_is_passed_over(serve, pull):
    first, second, registry = serve(lambda request: answer(404)), serve(serving), serve(serving)
    pull(registry, first, second)
    assert (2, 2, 0) == (len(blobs(first)), len(blobs(second)), len(blobs(registry)))


@pytest.mark.parametrize("options", [None, CHUNKS], ids=["whole", "chunks"])
def test_a_blob_goes_on_in_its_middle_at_the_registry(serve, pull, options):
    """The mirror breaks off for good after some bytes; those are not fetched again."""

    def breaking(request):
        whole = serving(request)
        return [whole[:-40_000], Close()] if LARGE_DIGEST in request.target and len(whole) > 60_000 else whole

    mirror, registry = serve(breaking), serve(serving)
    pull(registry, mirror, options=options)
    there = [request.headers.get("range") for request in blobs(registry)]
    assert there
    assert all(there)
    if options is None:
        assert [f"bytes={len(LARGE) - 40_000}-"] == there


@pytest.mark.parametrize(
    "trouble", [answer(500), answer(429, headers={"Retry-After": "9999"}), answer(401), Close(), b"no http\r\n\r\n"]
)
def test_the_errors_of_a_mirror_are_its_own(serve, pull, trouble):
    """Not even its wish to be left alone for hours holds anybody up."""
    mirror, registry = serve(lambda request: trouble), serve(serving)
    pull(registry, mirror)
    assert 2 == len(blobs(registry))


def test_a_mirror_that_nobody_reaches_is_passed_over(serve, pull, serve_nobody):
    registry = serve(serving)
    pull(registry, serve_nobody)
    assert 2 == len(blobs(registry))


@pytest.fixture
def serve_nobody():
    """A server that has gone."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield SimpleNamespace(url=f"http://127.0.0.1:{bound.getsockname()[1]}")


@pytest.mark.parametrize("options", [None, CHUNKS], ids=["whole", "chunks"])
def test_wrong_bytes_of_a_mirror_are_healed(serve, pull, options):
    """A mirror need not be trusted: what it sends is held to the digest, and is fetched from the registry instead."""

    def lying(request):
        return serving(request).replace(LARGE[1000:1016], bytes(16)).replace(b"\r\n\r\n{}", b"\r\n\r\n[]")

    mirror, registry = serve(lying), serve(serving)
    pull(registry, mirror, options=options)
    assert {SMALL_DIGEST, LARGE_DIGEST} == {request.target.rpartition("/")[2] for request in blobs(registry)}


def test_the_mirrors_of_docker_hub_go_by_the_name_that_references_have(names, serve, tmp_path):
    mirror = serve(serving)
    hub = serve(serving)
    given = {"docker.io": HostOptions(mirrors=(mirror.url,), scheme="http", proxies={"http": hub.url})}
    with Registry(cache=tmp_path / "cache", hosts=given) as client:
        client.pull(f"docker.io/{REPOSITORY}:v1")
    assert [f"http://registry-1.docker.io/v2/{REPOSITORY}/manifests/v1"] == [r.target for r in hub.requests]
    assert 2 == len(blobs(mirror))


# -- how a host is reached


def test_https_and_insecure_is_for_that_host_and_that_call_alone(serve_tls, tmp_path):
    one, other = serve_tls(serving), serve_tls(serving)
    with Registry(cache=tmp_path / "cache") as client:
        client.pull(f"https+insecure://127.0.0.1:{one.port}/{REPOSITORY}:v1")
        for server in (one, other):  # the connection that was made without looking is in the pool still
            with pytest.raises(tk.CertificateError):
                client.resolve(f"https://127.0.0.1:{server.port}/{REPOSITORY}:v1")
    assert [] == other.requests


def test_a_bundle_for_one_host(serve_tls, authority, tmp_path):
    server = serve_tls(serving)
    given = {f"127.0.0.1:{server.port}": HostOptions(ca_bundle=authority.bundle)}
    with Registry(cache=tmp_path / "cache", hosts=given) as client:
        client.pull(f"127.0.0.1:{server.port}/{REPOSITORY}:v1")
    assert {False} == set(server.certificates)


def test_a_scheme_for_one_host(names, serve, tmp_path):
    server = serve(serving)
    host = f"registry.example:{server.port}"
    with Registry(cache=tmp_path / "cache", hosts={host: HostOptions(scheme="http")}) as client:
        client.pull(f"{host}/{REPOSITORY}:v1")
    assert 3 == len(server.requests)


@pytest.mark.parametrize("key", ["REGISTRY.example", "registry.example:443"])
def test_a_host_is_named_in_any_case_with_its_port_or_without(names, serve, tmp_path, key):
    """A plain proxy sees where requests go; of https it sees the CONNECT, and refuses that here."""
    proxy = serve(lambda request: answer(502))
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))
    given = {key: HostOptions(proxies={"https": proxy.url})}
    with Registry(cache=tmp_path / "cache", hosts=given, options=options) as client:
        with pytest.raises(tk.ConnectError):
            client.resolve(f"registry.example/{REPOSITORY}:v1")
    assert ("CONNECT", "registry.example:443") == (proxy.requests[0].method, proxy.requests[0].target)


# -- what makes no sense


@pytest.mark.parametrize(
    ("hosts", "error", "says"),
    [
        ({"https://registry.example": HostOptions()}, ValueError, "without scheme and path"),
        ({"": HostOptions()}, ValueError, "named host or host:port"),
        ({"registry.example": {"insecure": True}}, TypeError, "'registry.example' has dict"),
        ({5: HostOptions()}, TypeError, "maps hosts to HostOptions"),
        (["registry.example"], TypeError, "hosts"),
    ],
)
def test_hosts_that_are_none_are_refused_at_once(tmp_path, hosts, error, says):
    with pytest.raises(error, match=says):
        Registry(cache=tmp_path / "cache", hosts=hosts)


def test_paths_that_are_none_are_refused_at_once():
    for given in ({"ca_bundle": 5}, {"client_cert": ("a", 5)}, {"ollama_key": b"x"}):
        with pytest.raises(TypeError, match="are paths of files"):
            HostOptions(**given)
