"""Advisories: nothing is decoded, and nothing is read without a bound."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json

import pytest
import requests

import transferkit as tk
from transferkit.testing import Close, answer, chunked, scripted_server

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
OCI = "application/vnd.oci.image.manifest.v1+json"
MIB = 1024 * 1024
MANIFEST = json.dumps({"schemaVersion": 2, "layers": [{"digest": HELLO, "size": 5}]}).encode()


def download(url, folder, **keywords):
    return tk.download([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


def fetch(url, **keywords):
    return tk.fetch_manifest("v1", base_url=url, repository=REPOSITORY, **keywords)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / HELLO.replace(":", "-")).write_bytes(b"hello")
    return tmp_path / "source"


BOMB = gzip.compress(bytes(64 * MIB))


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "identity, gzip", "gzip, gzip"])
@pytest.mark.parametrize("own_session", [True, False])
def test_cve_2024_12886_nothing_is_decoded(serve, failure, tmp_path, coding, own_session):
    """A blob, a manifest and a token; urllib3's decompression bombs (GHSA-2xpw-w6gg-jr37 and others) need a decoder."""
    realm = "/token"

    def script(request):
        if request.target.startswith("/v2/guarded/") and "authorization" not in request.headers:
            return answer(401, BOMB, {"WWW-Authenticate": f'Bearer realm="{realm}"', "Content-Encoding": coding})
        return answer(200, BOMB, {"Content-Encoding": coding})

    server = serve(script)
    with requests.Session() as session:
        more = {} if own_session else {"session": session}
        where = {"base_url": server.url, **more}
        blobs = [tk.Blob(HELLO, len(BOMB))]
        for call in (
            lambda: tk.download(blobs, tmp_path / "d", repository=REPOSITORY, **where),
            lambda: tk.fetch_manifest("v1", repository=REPOSITORY, **where),
            lambda: tk.download(blobs, tmp_path / "d", repository="guarded/x", **where),
        ):
            error = failure(call)
            assert isinstance(error, tk.ProtocolError)
            assert "ncod" in str(error)
    assert {"identity"} == {r.headers["accept-encoding"] for r in server.requests}


def test_cve_2024_12886_the_body_of_a_refusal_is_not_decoded_either(serve):
    body = gzip.compress(b'{"errors":[{"code":"DENIED","message":"decoded"}]}')
    server = serve([answer(403, body, {"Content-Encoding": "gzip", "Content-Type": "application/json"})])
    with pytest.raises(tk.DeniedError) as caught:
        fetch(server.url)
    assert "decoded" not in str(caught.value)


class Flood:
    """An answer that says it has 10 GB, or that does not say; ``sent`` is what the client's side has taken.

    It ends after 64 MiB, so that a client which reads on is not what makes the test slow.
    """

    def __init__(self, status, *headers, framed=True) -> None:
        length = "Content-Length: 10000000000" if framed else "Transfer-Encoding: chunked"
        self.head = "\r\n".join([f"HTTP/1.1 {status} Flood", *headers, length, "", ""]).encode()
        block = 64 * 1024 * b" "
        self.block = block if framed else b"10000\r\n" + block + b"\r\n"
        self.sent = 0

    def __call__(self, request):
        yield self.head
        while self.sent < 64 * MIB:
            yield self.block
            self.sent += len(self.block)
        yield Close()


# What the buffers of two sockets take, with room to spare: Linux lets them grow to 4 and 6 MiB.
TAKEN = 16 * MIB
REALM = 'WWW-Authenticate: Bearer realm="/token"'


@pytest.mark.parametrize("framed", [True, False], ids=["10 GB", "endless"])
@pytest.mark.parametrize(
    ("flooded", "flood"),
    [
        ("/v2/", ("403",)),
        ("/v2/", ("404",)),
        ("/v2/", ("500",)),
        ("/v2/", ("401", REALM)),
        ("/v2/", ("302", "Location: /elsewhere")),
        ("/token", ("200",)),
        ("/token", ("403",)),
        ("/v2/", ("200",)),
    ],
    ids=["403", "404", "500", "401", "302", "token", "token refused", "content"],
)
@pytest.mark.parametrize("call", [download, fetch], ids=["blob", "manifest"])
def test_ggcr_2296_no_answer_is_read_without_a_bound(tmp_path, impatient, call, flooded, flood, framed):
    """GHSA-38jv-5279-wg99 too: what is not wanted of a redirect is not drained."""
    flooding = Flood(*flood, framed=framed)

    def script(request):
        if request.target.startswith(flooded) and "authorization" not in request.headers:
            return flooding(request)
        if request.target.startswith("/v2/") and "authorization" not in request.headers:
            return answer(401, b"", {"WWW-Authenticate": 'Bearer realm="/token"'})
        return answer(200, b'{"token": "t"}') if "token" in request.target else answer(200, b"hello")

    keywords = {} if call is fetch else {"folder": tmp_path / "d"}
    with scripted_server(script) as server, contextlib.suppress(tk.TransferKitError):
        call(server.url, options=impatient, **keywords)
    assert 0 < len(server.requests)
    assert flooding.sent < TAKEN


@pytest.mark.parametrize("framed", [True, False], ids=["10 GB", "endless"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_ggcr_2296_the_answers_to_an_upload_are_not_read_without_a_bound(source, framed, method):
    flooding = Flood("202" if method == "POST" else "201", "Location: /v2/session/1", framed=framed)

    def script(request):
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if request.method == method:
            return flooding(request)
        return answer(202, b"", {"Location": "/v2/session/1"}) if request.method == "POST" else answer(201)

    with scripted_server(script) as server:
        tk.upload([tk.Blob(HELLO, 5)], source, base_url=server.url, repository=REPOSITORY)
    assert flooding.sent < TAKEN


@pytest.mark.parametrize("framed", [True, False])
def test_ggcr_2328_a_manifest_has_at_most_4_mib(serve, framed):
    fits = MANIFEST.ljust(4 * MIB)

    def send(raw):
        return answer(200, raw, {"Content-Type": OCI}) if framed else chunked(raw, headers={"Content-Type": OCI})

    assert fits == fetch(serve([send(fits)]).url).raw
    with pytest.raises(tk.ProtocolError, match="more than the 4194304 bytes"):
        fetch(serve([send(fits + b" ")]).url)


def test_ggcr_2328_a_manifest_that_is_too_large_is_not_sent(serve, tmp_path):
    server = serve([])
    raw = MANIFEST.ljust(4 * MIB + 1)
    with pytest.raises(tk.InvalidManifestError, match="at most 4194304"):
        tk.upload([], tmp_path, base_url=server.url, repository=REPOSITORY, manifest=raw)
    assert 0 == len(server.requests)


def test_ghsa_mf9v_mfxr_j63j_a_body_that_goes_on_is_not_drained(tmp_path, failure):
    """A blob of 5 bytes whose body does not end: no drain before the connection is given up."""

    def script(request):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        return itertools.chain([head], flooding(request))

    flooding = Flood("200", framed=False)
    flooding.head = b""
    with scripted_server(script) as server:
        error = failure(lambda: download(server.url, tmp_path / "d"))
    assert isinstance(error, tk.SizeMismatchError)
    assert flooding.sent < TAKEN
