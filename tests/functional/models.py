"""Models that no code of the library has made, put into a registry by plain requests."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transferkit as tk
from transferkit.registry import Registry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"
LICENSE = "application/vnd.ollama.image.license"
IMPATIENT = tk.TransferOptions(retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01))


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def ask(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request, with nothing of the library; return status, headers and body of the answer."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)) as connection:
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()


def put_blob(url: str, repository: str, content: bytes) -> None:
    _, headers, _ = ask(url, "POST", f"/v2/{repository}/blobs/uploads/", Content_Length="0")
    location = headers["location"].removeprefix(url)
    joint = "&" if "?" in location else "?"
    status, _, said = ask(url, "PUT", f"{location}{joint}digest={digest_of(content)}", content)
    assert status == 201, said


def put_manifest(url: str, repository: str, reference: str, raw: bytes, media_type: str = OCI_MANIFEST) -> None:
    status, _, said = ask(url, "PUT", f"/v2/{repository}/manifests/{reference}", raw, Content_Type=media_type)
    assert status == 201, said


def get(url: str, repository: str, reference: str) -> tuple[int, bytes]:
    """Return what a registry has as a manifest."""
    accept = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}"
    status, _, raw = ask(url, "GET", f"/v2/{repository}/manifests/{reference}", Accept=accept)
    return status, raw


@dataclass
class Model:
    """A config and layers, with a manifest in a spelling of its own: who writes it anew changes its digest."""

    layers: list[bytes]
    config: bytes | None = b'{"model_format":"gguf"}'
    types: list[str] = field(default_factory=lambda: [MODEL, LICENSE])
    annotations: list[dict[str, str]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    media_type: str = OCI_MANIFEST

    @property
    def raw(self) -> bytes:
        layers = []
        for number, layer in enumerate(self.layers):
            kind = self.types[number] if number < len(self.types) else "application/octet-stream"
            titled = {"annotations": self.annotations[number]} if number < len(self.annotations) else {}
            layers.append(described(layer, kind, **titled))
        config = {} if self.config is None else {"config": described(self.config, DOCKER_CONFIG)}
        document = {"layers": layers, **config, "mediaType": self.media_type, "schemaVersion": 2, **self.more}
        return json.dumps(document, indent=3).encode() + b"\n\n"

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def blobs(self) -> list[bytes]:
        return [*self.layers, *([self.config] if self.config is not None else [])]

    def put(self, url: str, repository: str = "library/model", *tags: str) -> Model:
        """Put it into a registry, under tags (by default ``v1``)."""
        for content in dict.fromkeys(self.blobs):
            put_blob(url, repository, content)
        for tag in tags or ("v1",):
            put_manifest(url, repository, tag, self.raw, self.media_type)
        return self


def small() -> Model:
    return Model([b"weights " * 1000, b"do as you like"])


def index_of(*entries: tuple[Model | bytes, str | None]) -> bytes:
    """Return an index of models, or of other indexes, each for a platform."""
    manifests = []
    for content, platform in entries:
        raw, media_type = (content.raw, content.media_type) if isinstance(content, Model) else (content, OCI_INDEX)
        entry = described(raw, media_type)
        if platform:
            system, architecture, *variant = platform.split("/")
            entry["platform"] = {"os": system, "architecture": architecture}
            if variant:
                entry["platform"]["variant"] = variant[0]
        manifests.append(entry)
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, indent=1).encode()


def host(url: str) -> str:
    return url.removeprefix("http://")


@contextmanager
def client(folder: Path, **keywords: Any) -> Iterator[Registry]:
    with Registry(cache=folder, **{"options": IMPATIENT, **keywords}) as registry:
        yield registry


def stored(folder: Path) -> dict[str, str]:
    """The blobs of a store by their names, and what hashlib says of them."""
    found = {}
    for path in sorted((folder / "blobs").glob("sha256-*")):
        found[path.name] = "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def links(folder: Path) -> list[str]:
    """The names in a store."""
    top = folder / "manifests"
    return sorted(str(Path(where, file).relative_to(top)) for where, _, files in os.walk(top) for file in files)


def names_of(*contents: bytes) -> set[str]:
    return {digest_of(content).replace(":", "-") for content in contents}


def at_once(call: Callable[[Any], object], given: Iterable[Any]) -> list[BaseException]:
    """Call something in a thread for each of what is given, and return what went wrong."""
    failures: list[BaseException] = []

    def run(each: Any) -> None:
        try:
            call(each)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return failures


class Still:
    """A flow of nobody's."""

    def wait(self, seconds: float, why: str = "") -> None:
        time.sleep(seconds)

    def check(self) -> None:
        """Nobody cuts it."""
