"""What the cases of the fault matrix run on: registries plain and over TLS, a wire before them that breaks, contents.

Everything is made once for all cases, and each case leaves it as it was.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
from fault_cases import MANY, PLANTED, SIZES

import transferkit as tk
from transferkit.testing import Faults, HTTPFaults, answer, fault_proxy, running_registry, scripted_server

REPOSITORY = "library/model"


class Place:
    """A registry with faults of its own, and the proxy before it."""

    def __init__(self, stack: ExitStack, scheme: str, tls: tuple[str, str] | None) -> None:
        self.scheme = scheme
        self.faults = HTTPFaults()
        self.registry = stack.enter_context(running_registry(middleware=self.faults, tls=tls))
        self.proxy = stack.enter_context(fault_proxy(self.registry.url))
        self.url = self.registry.url
        self.log = self.registry.log

    def calm(self) -> None:
        self.faults.set()
        self.proxy.set(())


class World:
    """All that outlives a case."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.sources = folder / "sources"
        self.blobs: dict[str, list[tk.Blob]] = {}
        self._heads: dict[tuple[str, str], tuple[int, int, int]] = {}
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        certificate = authority.issue_cert("127.0.0.1")
        key, chain = folder / "server.key", folder / "server.pem"
        certificate.private_key_pem.write_to_path(key)
        chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        self.places = {
            "plain": Place(stack, "plain", None),
            "tls": Place(stack, "tls", (str(chain), str(key))),
        }
        self.storage = Place(stack, "plain", None)
        self._write()

    def _write(self) -> None:
        self.sources.mkdir()
        for number, (kind, size) in enumerate({**SIZES, "many": SIZES["small"]}.items()):
            rng = random.Random("large" if kind == "rest" else number)
            self.blobs[kind] = []
            for _ in range(MANY if kind == "many" else 1):
                data = rng.randbytes(size)
                digest = "sha256:" + hashlib.sha256(data).hexdigest()
                (self.sources / tk.digest_to_path(digest)).write_bytes(data)
                self.blobs[kind].append(tk.Blob(digest, size))

    def publish(self) -> None:
        """Put all contents into all registries."""
        blobs = list({blob.digest: blob for kind in self.blobs.values() for blob in kind}.values())
        for place in (*self.places.values(), self.storage):
            tk.upload(blobs, self.sources, base_url=place.url, repository=REPOSITORY)

    def data(self, blob: tk.Blob) -> bytes:
        return (self.sources / tk.digest_to_path(blob.digest)).read_bytes()

    def marks(self, place: Place, kind: str) -> tuple[int, int, int]:
        """Return where on the wire the answer to a download begins, where its body begins, and where it ends."""
        if (place.scheme, kind) not in self._heads:
            place.calm()
            self._heads[place.scheme, kind] = self._measure(place, kind)
        return self._heads[place.scheme, kind]

    def _measure(self, place: Place, kind: str) -> tuple[int, int, int]:
        if place.scheme == "tls":
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection("127.0.0.1", place.proxy.port, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", place.proxy.port)
        headers = {"Range": f"bytes={PLANTED}-"} if kind == "rest" else {}
        connection.request("GET", f"/v2/{REPOSITORY}/blobs/{self.blobs[kind][0].digest}", headers=headers)
        response = connection.getresponse()
        body = len(response.read())
        end = place.proxy.connections[-1].down
        head = sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + len("HTTP/1.1 200 OK\r\n\r\n")
        connection.close()
        # Over TLS the records and the handshake come on top: the marks are near enough for "within the body".
        return end - body - head, end - body, end


class Rig:
    """What one case sees of the world, and sets in it."""

    def __init__(self, world: World, run, stack: ExitStack, monkeypatch, source: Path) -> None:
        self.world = world
        self.place = world.places[run.scheme]
        self.storage = world.storage
        self.url = self.place.url
        self.faults = self.place.faults
        self.times = run.times
        self.run = run
        self.blobs = world.blobs[run.kind]
        self.source = source
        self.monkeypatch = monkeypatch
        self.scripted = None
        self._stack = stack
        self._lock = threading.Lock()
        self._left = run.times

    def hits(self) -> bool:
        """Tell whether the fault acts on this request."""
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    def break_wire(self, **faults) -> None:
        self.url = self.place.proxy.url
        fault = Faults(**faults)
        self.place.proxy.set([fault] if self.times == 1 else lambda _number: fault)

    def position(self, place: str) -> int:
        start, body, end = self.world.marks(self.place, self.run.kind)
        # The last byte, over TLS, is any of the last record's: its tag makes all of that record come or none.
        last = end - (1 if self.place.scheme == "plain" else 8)
        return {"start": start, "head": start + 30, "middle": (body + end) // 2, "last": last}[place]

    def unplug(self) -> None:
        self.url = self.place.proxy.url
        self._stack.enter_context(self.place.proxy.down())

    @property
    def closed_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()[1]

    def script(self, step, **options) -> None:
        """Let a server answer each request with what ``step`` makes of the content, as long as the fault holds."""
        contents = {blob.digest: self.world.data(blob) for blob in self.blobs}

        def script(request):
            data = contents[request.target.rpartition("/")[2]]
            if self.hits():
                return step(data)
            return answer(200, data)

        self.serve(script, **options)

    def serve(self, script, **options) -> None:
        self.scripted = self._stack.enter_context(scripted_server(script, **options))
        self.url = self.scripted.url


@contextmanager
def nothing_left():
    """No thread and no descriptor more than before, as soon as servers have noticed that their clients are gone."""
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    deadline = time.monotonic() + 8
    while threading.active_count() > threads or len(os.listdir("/proc/self/fd")) > files:
        if time.monotonic() > deadline:
            paths = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
            raise AssertionError(f"{threads} threads before, now {threading.enumerate()}; {files} files, now {paths}")
        time.sleep(0.002)


def plant(folder: Path, blob: tk.Blob, data: bytes) -> None:
    """Write a partial file and its state, as an earlier run of this boot would have left them."""
    partial = folder / ".partial" / tk.digest_to_path(blob.digest)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    state = {"version": 1, "digest": blob.digest, "size": blob.size, "boot": boot}
    Path(f"{partial}.json").write_text(json.dumps(state), encoding="ascii")


def chain(error: BaseException | None) -> tuple[type[BaseException], ...]:
    """Return the class of an error and of those it stands for: its only failure, or the last attempt's."""
    kinds = []
    while error is not None:
        kinds.append(type(error))
        if isinstance(error, tk.IncompleteError):
            (error,) = set(error.failures.values())
        else:
            error = error.__cause__ if isinstance(error, tk.RetriesExhaustedError) else None
    return tuple(kinds)


def digests(folder: Path) -> dict[str, str]:
    """Return, for each file in a folder, its name and the digest that ``hashlib`` finds."""
    return {
        file.name: "sha256-" + hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.is_file()
    }


def forget(place: Place, blobs: list[tk.Blob]) -> None:
    """Take contents out of a registry's store, with all repositories that pushes have made."""
    for blob in blobs:
        place.registry.blob_path(blob.digest).unlink(missing_ok=True)
    shutil.rmtree(place.registry.store / "repositories" / "pushed", ignore_errors=True)
