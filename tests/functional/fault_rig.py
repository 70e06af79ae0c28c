"""What the cases of the fault matrix run on: registries plain and over TLS, a wire before them that breaks, contents.

Everything is made once for all cases, and each case leaves it as it was.
"""

from __future__ import annotations

import hashlib
import http.client
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
from fault_cases import MANY, PLANTED, RESUMABLE, SIZES

import transferkit as tk
from transferkit.testing import (
    FaultRule,
    Faults,
    HTTPFaults,
    answer,
    fault_proxy,
    running_registry,
    scripted_server,
    truncate,
)

REPOSITORY = "library/model"
PUSHED = "pushed/model"
MOUNTED = "mounted/model"


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
        # One that reads nothing from its client does not see that the client is gone.
        self.proxy.cut()


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
        """Put what is downloaded into all registries, and keep what an interrupted download leaves in its folder."""
        blobs = list({blob.digest: blob for kind, all in self.blobs.items() if kind != "huge" for blob in all}.values())
        for place in (*self.places.values(), self.storage):
            tk.upload(blobs, self.sources, base_url=place.url, repository=REPOSITORY)
        place, blobs = self.places["plain"], self.blobs["rest"]
        place.faults.set(FaultRule(truncate(PLANTED), method="GET"))
        options = tk.TransferOptions(resume_threshold=RESUMABLE, retry=tk.RetryOptions(attempts=1, patience=0))
        try:
            tk.download(blobs, self.rest, base_url=place.url, repository=REPOSITORY, options=options)
        except tk.IncompleteError:
            pass
        place.calm()

    @property
    def rest(self) -> Path:
        """A folder with a part of the blob ``rest``, and nothing else."""
        return self.folder / "rest"

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
    """What one case sees of the world, and sets in it. ``folder`` is not there yet, and the case's own."""

    def __init__(self, world: World, run, stack: ExitStack, monkeypatch, folder: Path) -> None:
        self.world = world
        self.place = world.places[run.scheme]
        self.storage = world.storage
        self.url = self.place.url
        self.faults = self.place.faults
        self.times = run.times
        self.run = run
        self.blobs = world.blobs[run.kind]
        self.source = world.sources
        self.folder = folder
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
    def repository(self) -> str:
        return REPOSITORY if self.run.direction == "down" else PUSHED

    def name_the_registry(self) -> None:
        """Call the registry by a name: from there on, a private address is somewhere else."""
        real = socket.getaddrinfo

        def resolve(host, *rest, **more):
            return real("127.0.0.1" if host == "registry.example" else host, *rest, **more)

        self.monkeypatch.setattr(socket, "getaddrinfo", resolve)
        self.url = self.url.replace("127.0.0.1", "registry.example")

    def unlink_source(self) -> None:
        """Take the blobs out of the repository that they are mounted from."""
        for blob in self.blobs:
            name = tk.digest_to_path(blob.digest)
            (self.place.registry.store / "repositories" / MOUNTED / "_blobs" / name).unlink()

    def own_source(self) -> Path:
        """Give the case a folder of its own to upload from, whose files it may spoil."""
        shutil.copytree(self.source, self.folder)
        self.source = self.folder
        return self.source

    def serve_uploads(self, step, **options) -> None:
        """Let a server play a registry, up to the PUT of a blob."""

        def script(request):
            if request.method == "PUT":
                return step() if callable(step) else step
            if request.method == "POST":
                return answer(202, headers={"Location": "/v2/x/blobs/uploads/1"})
            return answer(404)

        self.serve(script, **options)

    @property
    def closed_port(self) -> int:
        """A port that refuses connections: ours, so that nobody else listens on it meanwhile."""
        sock = self._stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]

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
        now = len(os.listdir("/proc/self/fd"))
        if time.monotonic() > deadline:
            raise AssertionError(f"{threads} threads before, now {threading.enumerate()}; {files} files, now {now}")
        time.sleep(0.002)


def chain(error: BaseException | None) -> tuple[type[BaseException], ...]:
    """Return the class of an error and of those it stands for: its only failure, or the last attempt's."""
    kinds = []
    while error is not None:
        exhausted = isinstance(error, tk.RetriesExhaustedError)
        kinds.append(tk.RetriesExhaustedError if exhausted else type(error))
        if isinstance(error, tk.IncompleteError):
            (error,) = set(error.failures.values())
        else:
            error = error.__cause__ if exhausted else None
    return tuple(kinds)


def digests(folder: Path) -> dict[str, str]:
    """Return, for each file in a folder, its name and the digest that ``hashlib`` finds."""
    return {
        file.name: "sha256-" + hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.is_file()
    }


def forget_pushes(place: Place) -> None:
    """Take the repository that is pushed to out of a registry, and what only that one has."""
    shutil.rmtree(place.registry.store / "repositories" / "pushed", ignore_errors=True)
    for file in (place.registry.store / "blobs").iterdir():
        if not linked(place, REPOSITORY, file.name):
            file.unlink()


def linked(place: Place, repository: str, name: str) -> bool:
    """Tell whether a repository has a blob of that file name."""
    return (place.registry.store / "repositories" / repository / "_blobs" / name).exists()
