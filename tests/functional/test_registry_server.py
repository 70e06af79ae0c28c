"""The registry with clients: our own behind a guard, and Ollama's, whose requests are sent as they send them."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry, serving

USERS = {"alice": "s3cret"}
AGENT = "ollama/0.13.0 (amd64 linux) Go/go1.25"
TOKEN = (
    "aHR0cHM6Ly9vbGxhbWEuY29tP3RzPTE3MDAwMDAwMDA=:AAAAC3NzaC1lZDI1NTE5:c2lnbmF0dXJl"  # of a key: URL, key, signature
)
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
BYTES = "application/octet-stream"
ZERO = {"digest": f"sha256:{64 * '0'}", "mediaType": "", "size": 0}
MODEL = "library/smol"
MIB = 1024 * 1024


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def content(tmp_path: Path) -> list[tk.Blob]:
    """Blobs in the folder ``source``."""
    (tmp_path / "source").mkdir()
    blobs = []
    for size in (0, 5, 100_000, 3 * MIB):
        data = bytes(range(5)) * (size // 5)
        blobs.append(tk.Blob(sha256(data), len(data)))
        (tmp_path / "source" / blobs[-1].digest.replace(":", "-")).write_bytes(data)
    return blobs


@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "tokens"])
def test_our_own_client_passes_the_guard(
    content: list[tk.Blob], tmp_path: Path, tokens: bool, assert_exactly: Callable[[Path, list[tk.Blob]], None]
) -> None:
    with serving(OCIRegistry(tmp_path / "store", durable=False, auth=USERS, tokens=tokens)) as url:
        to = {"base_url": url, "repository": "me/model"}
        tk.upload(content, tmp_path / "source", auth=("alice", "s3cret"), **to)
        tk.download(content, tmp_path / "target", auth=("alice", "s3cret"), **to)
        for auth in (("alice", "wrong"), None):
            with pytest.raises(tk.UnauthorizedError):
                tk.download(content, tmp_path / "other", auth=auth, **to)
    assert_exactly(tmp_path / "target", content)


def test_a_registry_that_is_read_only_says_so_to_who_pushes(content: list[tk.Blob], tmp_path: Path) -> None:
    with serving(OCIRegistry(tmp_path / "store", read_only=True)) as url:
        with pytest.raises(tk.IncompleteError, match="code UNSUPPORTED: this registry is read-only"):
            tk.upload(content, tmp_path / "source", base_url=url, repository="me/model")


# -- Ollama's clients, request by request


class Ollama:
    """Ollama's clients, of which there are three, as they are in its source: one agent, no relative location.

    Its ``server/internal/client/ollama`` is the original here, ``server/upload.go`` and ``download.go`` the one in wide
    use, ``x/imagegen/transfer`` the one for models of many files.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[str] = []

    def send(
        self, method: str, url: str, body: bytes = b"", *, read: bool = True, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request as it stands; with ``read=False`` hang up after the head of the answer."""
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        connection = http.client.HTTPConnection(parts.netloc)
        try:
            fields = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, fields)
            answer = connection.getresponse()
            self.requests.append(f"{method} {answer.status}")
            return answer.status, answer.headers, answer.read() if read else b""
        finally:
            connection.close()

    def ask(self, method: str, url: str, body: bytes = b"", **more: Any) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request as they send all but those for parts: with the agent, and a token of the user's key."""
        return self.send(method, url, body, **{"User_Agent": AGENT, "Authorization": f"Bearer {TOKEN}", **more})

    def part(self, url: str, span: str) -> tuple[int, bytes]:
        """Ask for a part, with Go's own agent and no token: it may be at a stranger's."""
        status, _, data = self.send("GET", url, Range=f"bytes={span}", User_Agent="Go-http-client/1.1")
        return status, data

    def push_original(self, layers: list[bytes]) -> None:
        """The client with chunksums: one empty POST a layer, and one PUT to where that leads, as it is."""
        for layer in layers:
            status, headers, _ = self.ask("POST", f"{self.url}/v2/{MODEL}/blobs/uploads/?digest={sha256(layer)}")
            assert status // 100 == 2
            if location := headers.get("Location"):
                assert self.ask("PUT", location, layer)[0] // 100 == 2
        assert self.ask("PUT", f"{self.url}/v2/{MODEL}/manifests/latest", self.manifest(layers))[0] // 100 == 2

    def push_parts(self, layer: bytes, step: int, **begin: str) -> None:
        """The client in wide use: parts by PATCH, each to the location of the answer before, and a PUT at the end."""
        base = f"{self.url}/v2/{MODEL}/blobs"
        if self.ask("HEAD", f"{base}/{sha256(layer)}")[0] == 200:
            return
        query = f"?digest={sha256(layer)}" if begin else ""
        status, headers, _ = self.ask("POST", f"{base}/uploads/{query}", **begin)
        assert status == 202
        hashes = hashlib.md5(usedforsecurity=False)
        starts = range(0, len(layer), step)
        for start in starts:
            part = layer[start : start + step]
            location = headers.get("Docker-Upload-Location") or headers["Location"]
            span = f"{start}-{start + len(part) - 1}"
            more = {"Content_Range": span, "X_Redirect_Uploads": "1", "Content_Type": "application/octet-stream"}
            status, headers, _ = self.ask("PATCH", location, part, **more)
            assert status // 100 == 2
            hashes.update(hashlib.md5(part, usedforsecurity=False).digest())
        parts = urlsplit(headers.get("Docker-Upload-Location") or headers["Location"])
        etag = f"{hashes.hexdigest()}-{len(starts)}"
        assert self.ask("PUT", added(parts.geturl(), digest=sha256(layer), etag=etag), Content_Length="0")[0] == 201

    def mount(self, digest: str, source: str) -> int:
        """The client in wide use, with a layer of another model: a status of 201 is all it looks at."""
        query = urlencode({"from": source, "mount": digest})
        return self.ask("POST", f"{self.url}/v2/{MODEL}/blobs/uploads/?{query}")[0]

    def push_files(self, layers: list[bytes]) -> None:
        """The client for models of many files: it asks for all, then sends each in one PUT."""
        base = f"{self.url}/v2/{MODEL}/blobs"
        for layer in [layer for layer in layers if self.ask("HEAD", f"{base}/{sha256(layer)}")[0] != 200]:
            status, headers, _ = self.ask("POST", f"{base}/uploads/?digest={sha256(layer)}")
            assert status == 202
            location = urljoin(self.url, headers.get("Docker-Upload-Location") or headers["Location"])
            assert self.ask("PUT", added(location, digest=sha256(layer)), layer, Content_Type=BYTES)[0] in (201, 202)
        self.put_manifest(self.manifest(layers))

    def put_manifest(self, raw: bytes) -> None:
        """As all but the original do, with a media type."""
        status, _, _ = self.ask("PUT", f"{self.url}/v2/{MODEL}/manifests/latest", raw, Content_Type=DOCKER)
        assert status in (200, 201)

    def manifest(self, layers: list[bytes], config: Any = None) -> bytes:
        named = [
            {"mediaType": "application/vnd.ollama.image.model", "digest": sha256(layer), "size": len(layer)}
            for layer in layers
        ]
        return json.dumps({"layers": named, "config": config or ZERO}).encode()

    def layers(self) -> list[tuple[str, str, int]]:
        """Fetch the manifest; return of each layer the URL, the digest and the size."""
        _, _, raw = self.ask("GET", f"{self.url}/v2/{MODEL}/manifests/latest", Accept=DOCKER)
        assert self.ask("GET", f"{self.url}/v2/{MODEL}/blobs/{sha256(raw)}")[2] == raw  # a pinned digest
        found = json.loads(raw)["layers"]
        return [(f"{self.url}/v2/{MODEL}/blobs/{each['digest']}", each["digest"], each["size"]) for each in found]

    def pull_original(self, threshold: int) -> list[bytes]:
        """Small layers in one part, large ones in those that the registry names, from where it says."""
        return [self._pull_layer(*layer, threshold) for layer in self.layers()]

    def _pull_layer(self, url: str, digest: str, size: int, threshold: int) -> bytes:
        if size < threshold:
            status, data = self.part(url, f"0-{size - 1}")
            assert status == 206
            return data
        status, headers, lines = self.ask("GET", f"{self.url}/v2/{MODEL}/chunksums/{digest}")
        assert status == 200
        content, words = b"", lines.decode().split()
        for chunk, span in zip(words[::2], words[1::2], strict=True):
            status, data = self.part(headers["Content-Location"], span)
            assert (206, chunk) == (status, sha256(data))
            content += data
        return content

    def pull_parts(self, step: int) -> list[bytes]:
        """The client in wide use: how large it is, where it is, and then parts from there."""
        pulled = []
        for url, _, _ in self.layers():
            size = int(self.ask("HEAD", url)[1]["Content-Length"])
            status, headers, _ = self.ask("GET", url, read=False)
            assert status in (200, 307)
            assert "Location" in headers, "it ends the pull: no Location header in response"
            where = urljoin(url, headers["Location"])
            parts = [self.part(where, f"{at}-{min(at + step, size) - 1}") for at in range(0, size, step)]
            assert {status for status, _ in parts} == {206}
            pulled.append(b"".join(data for _, data in parts))
        return pulled

    def pull_files(self) -> list[bytes]:
        """The client for models of many files: it looks where each is, and takes it from there in one stream."""
        pulled = []
        for url, _, _ in self.layers():
            assert self.ask("GET", url, read=False)[0] == 200
            pulled.append(self.ask("GET", url)[2])
        return pulled


def added(url: str, **query: str) -> str:
    """Add to a query as Go does: it is taken apart, sorted and encoded anew."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode(sorted([*parse_qsl(parts.query), *query.items()]))).geturl()


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    with serving(OCIRegistry(tmp_path / "store", durable=False, chunk_size=MIB)) as url:
        yield Ollama(url)


LAYERS = [bytes(range(256)) * 10_000, b"You are helpful."]


def test_ollamas_original_client_pushes_and_pulls(ollama: Ollama) -> None:
    ollama.push_original(LAYERS)
    assert ["POST 202", "PUT 201", "POST 202", "PUT 201", "PUT 201"] == ollama.requests
    # It came without a media type.
    assert DOCKER == ollama.ask("HEAD", f"{ollama.url}/v2/{MODEL}/manifests/latest")[1]["Content-Type"]
    assert ollama.pull_original(threshold=MIB) == LAYERS

    ollama.requests.clear()
    ollama.push_original(LAYERS)  # what is there is not sent again
    assert ["POST 201", "POST 201", "PUT 201"] == ollama.requests


@pytest.mark.parametrize("begin", [{}, {"X_Redirect_Uploads": "2", "X_Content_Length": "2560000"}], ids=["", "asked"])
def test_ollamas_client_pushes_and_pulls_in_parts(ollama: Ollama, begin: dict[str, str]) -> None:
    ollama.push_parts(LAYERS[0], 1_000_000, **begin)
    ollama.push_parts(LAYERS[1], 1_000_000)
    ollama.push_parts(LAYERS[1], 1_000_000)
    assert "HEAD 404, POST 202, PATCH 202, PATCH 202, PATCH 202, PUT 201" == ", ".join(ollama.requests[:6])
    assert ollama.requests[-1] == "HEAD 200"
    ollama.put_manifest(ollama.manifest(LAYERS))
    assert ollama.pull_parts(1_000_000) == LAYERS


def test_ollamas_client_for_many_files_pushes_and_pulls(ollama: Ollama) -> None:
    ollama.push_files(LAYERS)
    assert ["HEAD 404", "HEAD 404", "POST 202", "PUT 201", "POST 202", "PUT 201", "PUT 201"] == ollama.requests
    assert ollama.pull_files() == LAYERS


def test_ollamas_client_mounts_a_layer_of_another_model(ollama: Ollama) -> None:
    status, headers, _ = ollama.ask("POST", f"{ollama.url}/v2/library/base/blobs/uploads/")
    assert (status, ollama.ask("PUT", added(headers["Location"], digest=sha256(LAYERS[1])), LAYERS[1])[0]) == (202, 201)
    assert ollama.mount(sha256(LAYERS[1]), "library/base") == 201
    assert ollama.mount(sha256(LAYERS[0]), "library/base") == 202  # it goes on with an upload


def test_many_of_ollamas_clients_push_the_same(ollama: Ollama) -> None:
    threads = [threading.Thread(target=ollama.push_original, args=(LAYERS,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ollama.pull_original(threshold=MIB) == LAYERS
