"""Advisories: what a registry says about content is checked before it is believed."""

from __future__ import annotations

import hashlib
import json

import pytest

import transferkit as tk
from transferkit.testing import answer

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
OTHER = "sha256:" + 64 * "b"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MIB = 1024 * 1024


def download(url, folder, digest=HELLO, **keywords):
    return tk.download([tk.Blob(digest, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


def fetch(url, reference="v1", **keywords):
    return tk.fetch_manifest(reference, base_url=url, repository=REPOSITORY, **keywords)


def layer(digest=HELLO, size=5, **more):
    return {"mediaType": "application/octet-stream", "digest": digest, "size": size, **more}


def manifest_of(*layers, **more) -> bytes:
    return json.dumps({"schemaVersion": 2, "layers": list(layers), **more}).encode()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / HELLO.replace(":", "-")).write_bytes(b"hello")
    return tmp_path / "source"


MALFORMED = [
    "",
    "sha256",
    "sha256:",
    "sha256:../../../../etc/passwd",
    "sha256:" + "../" * 21 + "a",
    "sha256-" + 64 * "a",
    "sha256:" + 63 * "a",
    "sha256:" + 65 * "a",
    "sha256:" + 64 * "A",
    "SHA256:" + 64 * "a",
    "sha256:" + 64 * "g",
    "sha256:" + 64 * "a" + "\n",
    "sha256:" + 63 * "a" + "\n",
    "sha256:" + 63 * "a" + "\x00",
    "\nsha256:" + 64 * "a",
    "sha256:" + 64 * "\uff11",
    "sha256:" + 64 * "\u0661",
    "sha256:" + 64 * "a" + "/../x",
    "sha512:" + 64 * "a",
    "sha384:" + 96 * "a",
    "sha1:" + 40 * "a",
    "md5:" + 32 * "a",
    "sha256+b64:" + 64 * "a",
]


@pytest.mark.parametrize("digest", MALFORMED, ids=range(len(MALFORMED)))
def test_cve_2024_37032_a_digest_that_is_none_gets_in_nowhere(serve, failure, tmp_path, digest):
    """CVE-2026-7020 and CVE-2024-3727 are the same bug behind another entrance; md5 is CVE-2025-59354."""
    raw = [b""]
    server = serve(lambda request: answer(200, raw[0], {"Content-Type": OCI}))
    for entrance in (
        lambda: tk.digest_to_path(digest),
        lambda: tk.Digest(digest),
        lambda: tk.Digest.from_file_name(digest.replace(":", "-", 1) + "x"),
        lambda: tk.Descriptor(digest, 5),
        lambda: tk.Blob(digest, 5),
    ):
        with pytest.raises(tk.InvalidDigestError):
            entrance()
    for call in (
        lambda: fetch(server.url, digest),
        lambda: tk.upload(
            [], tmp_path, base_url=server.url, repository=REPOSITORY, manifest=b"{}", manifest_ref=digest
        ),
    ):
        if ":" in digest or not digest:  # else it may be a tag
            with pytest.raises((tk.InvalidDigestError, tk.InvalidNameError)):
                call()
    assert 0 == len(server.requests)
    for raw[0] in (manifest_of(layer(digest)), manifest_of(layer(), config=layer(digest))):
        with pytest.raises(tk.InvalidManifestError):
            fetch(server.url)


@pytest.mark.parametrize("digest", [d for d in MALFORMED if d.isprintable() and d.isascii()])
def test_cve_2024_3727_a_digest_that_a_registry_announces_is_checked_too(serve, source, digest):
    headers = {"Docker-Content-Digest": digest}

    def script(request):
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if request.method == "POST":
            return answer(202, b"", {"Location": "/v2/session/1"})
        return answer(201 if request.method == "PUT" else 200, b"" if request.method == "PUT" else raw, headers)

    raw = manifest_of()
    server = serve(script)
    where = {"base_url": server.url, "repository": REPOSITORY}
    # It says nothing that could be compared, and goes nowhere: what came is what its own bytes prove.
    assert ("sha256:" + hashlib.sha256(raw).hexdigest(), raw) == ((found := fetch(server.url)).digest, found.raw)
    assert 5 == tk.upload([tk.Blob(HELLO, 5)], source, **where).bytes
    tk.upload([], source, manifest=raw, manifest_ref="v1", **where)
    assert not any(digest in request.target for request in server.requests if len(digest) > 20)


DEEP = 100_000
NOT_A_MANIFEST = {
    "null": b"null",
    "a list": b"[]",
    "a number": b"1e999",
    "a text": b'"manifest"',
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "cut off": b'{"layers": [',
    "layers are an object": b'{"layers": {}}',
    "layers are a number": b'{"layers": 7}',
    "a layer is null": b'{"layers": [null]}',
    "a layer is empty": b'{"layers": [{}]}',
    "no digest": b'{"layers": [{"size": 5}]}',
    "digest null": b'{"layers": [{"digest": null, "size": 5}]}',
    "digest a list": b'{"layers": [{"digest": [], "size": 5}]}',
    "no size": manifest_of({"digest": HELLO}),
    "size null": manifest_of(layer(size=None)),
    "size NaN": manifest_of(layer(size=float("nan"))),
    "size infinite": manifest_of(layer(size=float("inf"))),
    "size 1e999": manifest_of(layer(size=7)).replace(b"7}", b"1e999}"),
    "size negative": manifest_of(layer(size=-1)),
    "size a fraction": manifest_of(layer(size=5.5)),
    "size a text": manifest_of(layer(size="5")),
    "size true": manifest_of(layer(size=True)),
    "size 2^63": manifest_of(layer(size=2**63)),
    "size of 5000 digits": manifest_of(layer(size=7)).replace(b"7}", b"9" * 5000 + b"}"),
    "config a list": b'{"config": [], "layers": []}',
    "mediaType a number": b'{"mediaType": 7, "layers": []}',
    "mediaType with a header": manifest_of(mediaType="a/b\r\nX-Evil: 1"),
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "deep and whole": b'{"annotations":' * DEEP + b"{}" + b"}" * DEEP,
    "a million layers": b'{"layers": [' + b"{}," * 1_000_000 + b"{}]}",
}


@pytest.mark.parametrize("raw", NOT_A_MANIFEST.values(), ids=NOT_A_MANIFEST)
def test_cve_2025_0312_a_malformed_manifest_is_one_clear_error(serve, raw):
    """CVE-2025-0315 and CVE-2025-1975 too: a null, an allocation without limit, a field that is not there."""
    server = serve([answer(200, raw, {"Content-Type": OCI})])
    with pytest.raises(tk.InvalidManifestError):
        fetch(server.url)


def test_cve_2025_0315_a_manifest_as_large_as_one_may_be_is_read(serve):
    """A guard that refuses everything would pass the other test too."""
    digests = ["sha256:" + hashlib.sha256(b"%d" % number).hexdigest() for number in range(20_000)]
    raw = manifest_of(*(layer(digest) for digest in digests))
    server = serve([answer(200, raw, {"Content-Type": OCI})])

    assert 3 * MIB // 4 < len(raw) < 4 * MIB
    assert digests == [found.digest for found in fetch(server.url).layers]


def test_oll_15504_one_digest_is_one_blob_of_one_size(serve, failure, tmp_path):
    raws = [manifest_of(layer(), layer(), config=layer()), manifest_of(layer(size=5), layer(size=6))]
    server = serve(lambda request: answer(200, raws[0] if "/manifests/" in request.target else b"HELLO"))
    manifest = fetch(server.url)
    where = {"base_url": server.url, "repository": REPOSITORY}

    # However often it is listed, it is verified: what comes is not "hello".
    error = failure(lambda: tk.download([manifest.config, *manifest.layers], tmp_path / "d", **where))
    assert isinstance(error, tk.DigestMismatchError)
    assert [".partial"] == [entry.name for entry in (tmp_path / "d").iterdir()]
    raws.pop(0)
    with pytest.raises(tk.InvalidManifestError, match="gives sha256:2cf24dba5fb0 two sizes"):
        fetch(server.url)
    with pytest.raises(tk.InvalidDescriptorError, match="listed twice, with 5 and with 6 bytes"):
        tk.download([tk.Blob(HELLO, 5), tk.Blob(HELLO, 6)], tmp_path / "e", **where)


CONFUSING = {
    "layers and manifests": (OCI, manifest_of(layer(), manifests=[layer(mediaType=OCI)])),
    "empty layers and manifests": (INDEX, manifest_of(manifests=[layer(mediaType=OCI)])),
    "no type, layers and manifests": ("application/json", manifest_of(layer(), manifests=[])),
    "sent as an index, calls itself a manifest": (INDEX, manifest_of(layer(), mediaType=OCI)),
    "sent as a manifest, calls itself an index": (OCI, json.dumps({"mediaType": INDEX, "manifests": []}).encode()),
    "sent as OCI, calls itself Docker": (OCI, manifest_of(layer(), mediaType=DOCKER)),
    "an index with layers": (INDEX, manifest_of(layer())),
    "an index with a config": (DOCKER_INDEX, json.dumps({"manifests": [], "config": layer()}).encode()),
    "a manifest with manifests": (DOCKER, b'{"manifests": []}'),
    "calls itself an index, with layers": ("", manifest_of(layer(), mediaType=INDEX)),
}


@pytest.mark.parametrize(("media_type", "raw"), CONFUSING.values(), ids=CONFUSING)
def test_ghsa_mc8v_mgrf_8f4m_a_manifest_that_means_two_things_is_refused(serve, tmp_path, media_type, raw):
    """GHSA-5j5w-g665-5m35 and GHSA-qq97-vm5h-rrhg: what one client reads in it must be what all others do."""
    server = serve([answer(200, raw, {"Content-Type": media_type} if media_type else {})])
    with pytest.raises(tk.InvalidManifestError):
        fetch(server.url)
    with pytest.raises(tk.InvalidManifestError):
        tk.upload(
            [],
            tmp_path,
            base_url=server.url,
            repository=REPOSITORY,
            manifest=raw,
            manifest_media_type=media_type or None,
        )
    assert 1 == len(server.requests)


@pytest.mark.parametrize("media_type", [f"{OCI}; charset=utf-8", "application/json", ""])
def test_ghsa_mc8v_mgrf_8f4m_a_manifest_that_means_one_thing_is_read(serve, media_type):
    raw = manifest_of(layer(), mediaType=OCI)
    server = serve([answer(200, raw, {"Content-Type": media_type} if media_type else {})])

    assert (OCI, [HELLO]) == ((found := fetch(server.url)).media_type, [blob.digest for blob in found.layers])


def test_ghsa_qv35_3gw6_8q4j_a_pinned_digest_is_checked_against_the_bytes(serve):
    """Whatever the registry announces, and whether it announces anything."""
    raw = manifest_of(layer())
    pinned = "sha256:" + hashlib.sha256(raw).hexdigest()
    other = raw + b" "
    lying = {"Docker-Content-Digest": pinned, "ETag": f'"{pinned}"'}
    for headers in (lying, {}):
        server = serve([answer(200, other, headers)])
        with pytest.raises(tk.DigestMismatchError):
            fetch(server.url, pinned)
        assert ["GET"] == [r.method for r in server.requests]
    with pytest.raises(tk.DigestMismatchError):
        fetch(serve([answer(200, raw, {"Docker-Content-Digest": OTHER})]).url, pinned)
    assert raw == fetch(serve([answer(200, raw, lying)]).url, pinned).raw


@pytest.mark.parametrize("claim", [OTHER, "sha512:" + 128 * "b"])
def test_ghsa_qv35_3gw6_8q4j_an_announced_digest_that_lies_is_found_out(serve, failure, source, claim):
    def script(request):
        if request.method == "HEAD":
            return f"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nDocker-Content-Digest: {claim}\r\n\r\n".encode()
        if request.method == "POST":
            return answer(202, b"", {"Location": "/v2/session/1"})
        body = b"" if request.method == "PUT" else manifest_of(layer())
        return answer(201 if request.method == "PUT" else 200, body, {"Docker-Content-Digest": claim})

    server = serve(script)
    where = {"base_url": server.url, "repository": REPOSITORY}
    assert isinstance(failure(lambda: fetch(server.url)), tk.DigestMismatchError)
    if claim == OTHER:
        assert isinstance(failure(lambda: tk.upload([tk.Blob(HELLO, 5)], source, **where)), tk.ProtocolError)
    else:  # docker-registry names the sha256 of a blob that it stored under its sha512, and the other way round
        tk.upload([tk.Blob(HELLO, 5)], source, **where)
    error = failure(lambda: tk.upload([], source, manifest=manifest_of(layer()), manifest_ref="v1", **where))
    assert isinstance(error, tk.DigestMismatchError)


def test_cve_2026_35172_a_head_that_lies_does_not_make_a_success(serve, failure, source):
    """HEAD says "here", and the manifest is refused because the blob is not: the upload fails, and says why."""
    body = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}'

    def script(request):
        if request.method == "HEAD":
            return f"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDocker-Content-Digest: {HELLO}\r\n\r\n".encode()
        return answer(400, body)

    server = serve(script)
    with pytest.raises(tk.BlobNotFoundError, match="MANIFEST_BLOB_UNKNOWN"):
        tk.upload(
            [tk.Blob(HELLO, 5)], source, base_url=server.url, repository=REPOSITORY, manifest=manifest_of(layer())
        )


def test_cve_2020_15157_the_urls_of_a_descriptor_are_not_asked(serve, names, tmp_path):
    foreign = layer(
        mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        urls=["http://evil.example:1/steal", "http://169.254.169.254/"],
    )
    raw = manifest_of(foreign)
    server = serve(lambda request: answer(200, raw if "/manifests/" in request.target else b"hello"))
    url = f"http://registry.example:{server.port}"
    tk.download(fetch(url, token="t").layers, tmp_path / "d", base_url=url, repository=REPOSITORY, token="t")

    assert {"registry.example"} == set(names)
    assert 2 == len(server.requests)
