"""The registry with clients: our own behind a guard, and Ollama's, whose requests are sent as they send them."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry, serving

USERS = {"alice": "s3cret"}
AGENT = "ollama/0.13.0 (amd64 linux) Go/go1.25"
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
    """What all of Ollama's clients have in common: one agent, and no way to follow a relative location."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[str] = []

    def ask(
        self, method: str, url: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        connection = http.client.HTTPConnection(parts.netloc)
        try:
            fields = {"User-Agent": AGENT, **{name.replace("_", "-"): text for name, text in headers.items()}}
            connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, fields)
            answer = connection.getresponse()
            self.requests.append(f"{method} {answer.status}")
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

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
        # Go's url.Values.Encode: the query is taken apart, sorted and encoded anew.
        query = urlencode(sorted([*parse_qsl(parts.query), ("digest", sha256(layer)), ("etag", etag)]))
        assert self.ask("PUT", parts._replace(query=query).geturl(), Content_Length="0")[0] == 201

    def manifest(self, layers: list[bytes], config: Any = None) -> bytes:
        named = [
            {"mediaType": "application/vnd.ollama.image.model", "digest": sha256(layer), "size": len(layer)}
            for layer in layers
        ]
        return json.dumps({"layers": named, "config": config or ZERO}).encode()

    def pull(self) -> list[bytes]:
        """Pull by chunks, as the client does that knows of them."""
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        _, headers, raw = self.ask("GET", f"{self.url}/v2/{MODEL}/manifests/latest", Accept=kind)
        assert headers["Content-Type"] == kind
        assert self.ask("GET", f"{self.url}/v2/{MODEL}/blobs/{sha256(raw)}")[2] == raw  # a pinned digest
        return [self._pull_layer(layer["digest"]) for layer in json.loads(raw)["layers"]]

    def _pull_layer(self, digest: str) -> bytes:
        status, headers, lines = self.ask("GET", f"{self.url}/v2/{MODEL}/chunksums/{digest}")
        assert status == 200
        content, words = b"", lines.decode().split()
        for chunk, span in zip(words[::2], words[1::2], strict=True):
            where = f"{self.url}{headers['Content-Location']}"
            status, _, data = self.ask("GET", where, Range=f"bytes={span}")
            assert (206, chunk) == (status, sha256(data))
            content += data
        return content


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    with serving(OCIRegistry(tmp_path / "store", durable=False, chunk_size=MIB)) as url:
        yield Ollama(url)


LAYERS = [bytes(range(256)) * 10_000, b"You are helpful."]


def test_ollamas_original_client_pushes_and_pulls(ollama: Ollama) -> None:
    ollama.push_original(LAYERS)
    assert ["POST 202", "PUT 201", "POST 202", "PUT 201", "PUT 201"] == ollama.requests
    assert ollama.pull() == LAYERS

    ollama.requests.clear()
    ollama.push_original(LAYERS)  # what is there is not sent again
    assert ["POST 201", "POST 201", "PUT 201"] == ollama.requests


@pytest.mark.parametrize("begin", [{}, {"X_Redirect_Uploads": "2", "X_Content_Length": "2560000"}], ids=["", "asked"])
def test_ollamas_client_pushes_in_parts(ollama: Ollama, begin: dict[str, str]) -> None:
    ollama.push_parts(LAYERS[0], 1_000_000, **begin)
    ollama.push_parts(LAYERS[1], 1_000_000)
    ollama.push_parts(LAYERS[1], 1_000_000)
    assert "HEAD 404, POST 202, PATCH 202, PATCH 202, PATCH 202, PUT 201" == ", ".join(ollama.requests[:6])
    assert ollama.requests[-1] == "HEAD 200"
    ollama.ask("PUT", f"{ollama.url}/v2/{MODEL}/manifests/latest", ollama.manifest(LAYERS))
    assert ollama.pull() == LAYERS


def test_many_of_ollamas_clients_push_the_same(ollama: Ollama) -> None:
    threads = [threading.Thread(target=ollama.push_original, args=(LAYERS,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ollama.pull() == LAYERS
