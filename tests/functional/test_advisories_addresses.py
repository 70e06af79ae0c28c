"""Advisories: redirects come to an end, and a public registry leads to no private address."""

from __future__ import annotations

import pytest

import transferkit as tk
from transferkit.testing import answer

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def download(url, folder, **keywords):
    return tk.download([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


def upload(url, folder, **keywords):
    return tk.upload([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


@pytest.fixture
def public(names, serve):
    """``public(script)`` starts a registry with a public name, and returns its server and base URL."""

    def start(script):
        server = serve(script)
        return server, f"http://registry.example:{server.port}"

    return start


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / HELLO.replace(":", "-")).write_bytes(b"hello")
    return tmp_path / "source"


def redirector(location):
    """A script that redirects what is asked of the API, and has the content everywhere else."""
    return lambda request: (
        answer(302, b"", {"Location": location()}) if request.target.startswith("/v2/") else answer(200, b"hello")
    )


def uploads_to(location):
    """A script of a registry whose upload sessions are at ``location``."""

    def script(request):
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return answer(202, b"", {"Location": location()}) if request.method == "POST" else answer(201)

    return script


@pytest.mark.parametrize("kind", ["itself", "to and fro", "ever further"])
def test_urllib3_2_5_0_a_chain_of_redirects_ends_after_ten_hops(public, failure, tmp_path, source, kind):
    def step(request):
        if kind == "itself":
            return request.target
        if kind == "to and fro":
            other = "storage" if request.headers["host"].startswith("registry") else "registry"
            return f"http://{other}.example:{server.port}{request.target}"
        return f"http://host-{len(server.requests)}.example:{server.port}/x"

    def script(request):
        if request.method in ("GET", "PUT"):
            return answer(307, b"", {"Location": step(request)})
        return uploads_to(lambda: "/v2/session/1")(request)

    server, url = public(script)
    for method, call in (("GET", lambda: download(url, tmp_path / "d")), ("PUT", lambda: upload(url, source))):
        error = failure(call)
        assert isinstance(error, tk.ProtocolError)
        assert "more than 10 redirects" in str(error)
        assert 11 == len([r for r in server.requests if r.method == method])


PRIVATE = [
    "169.254.169.254",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "0.0.0.0",
    "0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST.",
    "registry.localhost",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fd00::1]",
]


def realm_at(url):
    return lambda request: (
        answer(200, b'{"token": "t"}')
        if "/token" in request.target
        else answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{url()}/token",service="r"'})
    )


def chunks_at(location):
    """A script of a registry that has a list of chunks, and says that the blob is elsewhere."""
    line = f"{HELLO} 0-4\n".encode()
    return lambda request: (
        answer(200, line, {"Content-Location": location()})
        if "/chunksums/" in request.target
        else answer(206, b"hello", {"Content-Range": "bytes 0-4/5"})
    )


CHUNKS = tk.TransferOptions(chunk_threshold=0)


@pytest.mark.parametrize("steer", ["redirect", "upload location", "realm", "content location"])
@pytest.mark.parametrize("host", PRIVATE)
def test_ggcr_2293_a_public_registry_does_not_lead_to_a_private_address(
    public, names, failure, tmp_path, source, host, steer
):
    def target():
        return f"http://{host}:{server.port}"

    if steer == "upload location":
        server, url = public(uploads_to(lambda: f"{target()}/x?secret=1"))
        error = failure(lambda: upload(url, source, token="token-secret"))
    else:
        scripts = {"realm": lambda: realm_at(target), "content location": lambda: chunks_at(lambda: f"{target()}/x")}
        script = scripts.get(steer, lambda: redirector(lambda: f"{target()}/x?secret=1"))()
        server, url = public(script)
        error = failure(lambda: download(url, tmp_path / "d", options=CHUNKS if steer == "content location" else None))

    assert isinstance(error, tk.ProtocolError)
    assert "storage_hosts=" in str(error)
    assert "secret" not in str(error)
    assert {"registry.example"} == set(names)


@pytest.mark.parametrize("allowed", ["10.0.0.1", "10.0.0.1:{port}"])
def test_ggcr_2293_a_private_address_that_the_user_allows_is_followed_without_credentials(
    public, tmp_path, source, allowed
):
    location = "http://10.0.0.1:{port}/x"

    def script(request):
        if request.method == "GET":
            return redirector(lambda: location.format(port=server.port))(request)
        return uploads_to(lambda: location.format(port=server.port))(request)

    server, url = public(script)
    transport = tk.TransportOptions(storage_hosts={allowed.format(port=server.port)})
    options = tk.TransferOptions(transport=transport)
    download(url, tmp_path / "d", token="token-secret", options=options)
    upload(url, source, token="token-secret", options=options)

    there = [r for r in server.requests if r.headers["host"].startswith("10.")]
    assert ["GET", "PUT"] == [r.method for r in there]
    assert "secret" not in repr(there)


def test_ggcr_2302_a_private_registry_may_lead_to_its_neighbours(serve, tmp_path):
    """The same host on another port, and its like: that is how a registry with its storage runs at home."""
    other = serve(lambda request: answer(200, b"hello"))
    server = serve(redirector(lambda: f"http://127.0.0.1:{other.port}/x"))
    download(server.url, tmp_path / "d", token="token-secret")

    assert 1 == len(other.requests)
    assert "secret" not in repr(other.requests)


def test_cve_2020_15157_chunks_that_are_elsewhere_are_asked_for_without_credentials(public, tmp_path):
    server, url = public(chunks_at(lambda: f"http://storage.example:{server.port}/x"))
    download(url, tmp_path / "d", token="token-secret", options=CHUNKS)

    elsewhere = [r for r in server.requests if r.headers["host"].startswith("storage.")]
    assert ["/x"] == [r.target for r in elsewhere]
    assert "secret" not in repr(elsewhere)
