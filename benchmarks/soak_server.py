"""Clients of ``transferkit serve``, a third of them cut off: ``python -m benchmarks.soak --only server``.

One process serves a registry, a second one its models through the local API. Plain clients push and read, others ask
the API for pulls, the library's own pulls and pushes are cancelled, and so are processes of it killed. Sockets are cut
in the middle of heads, bodies, chunks and answers. What was acknowledged is there and right, whoever reads gets what
he asked for, and in the end the servers hold no more threads, descriptors, files and memory than before.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from benchmarks.soak_own import move, move_on
from benchmarks.soak_rig import KIB, MIB, PROCESSES, Say, WrongBytes, at_work
from benchmarks.soak_serve import (
    MANIFEST,
    Client,
    Cut,
    Serve,
    check_store,
    expect,
    get_blob,
    manifest_of,
    position_of,
    serve,
    sha256,
)

GROWTH = 48 * MIB  # bytes of memory: what the allocator keeps after a storm, and no more with each further one
LONGEST = 5.0  # seconds for the smallest question while all of this goes on, on a machine that is busy
_CUTS = 1 / 3
_SIZES = (0, 10, 5 * KIB, 5 * KIB, 50 * KIB, 300 * KIB, 300 * KIB, 2 * MIB)
_REPOSITORIES = 4


class Book:
    """What was acknowledged. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: list[tuple[str, str, int]] = []
        self._tags: list[tuple[str, str, str]] = []
        self.counts: Counter[str] = Counter()

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def blob(self, repository: str, digest: str, size: int) -> None:
        with self._lock:
            self._blobs.append((repository, digest, size))

    def tag(self, repository: str, tag: str, digest: str) -> None:
        with self._lock:
            self._tags.append((repository, tag, digest))

    def blobs(self) -> list[tuple[str, str, int]]:
        with self._lock:
            return list(self._blobs)

    def tags(self) -> list[tuple[str, str, str]]:
        with self._lock:
            return list(self._tags)


class Load:
    """The clients of one run. Each is a thread with a random number generator of its own."""

    def __init__(self, folder: Path, registry: Serve, models: Serve, *, seed: int) -> None:
        self._folder = folder
        self._registry = registry
        self._models = models
        self._seed = seed
        self._over = threading.Event()
        self.book = Book()
        self.errors: list[BaseException] = []
        self.slowest = 0.0

    def run(self, clients: int, seconds: float) -> None:
        """Have so many clients at work for so long.

        Raises:
            WrongBytes: one of them has found something wrong.
        """
        kinds: list[Callable[[random.Random, int], None]] = [
            self._push, self._push, self._push, self._read, self._read, self._pull, self._pull, self._own,
        ]  # fmt: skip
        threads = [
            threading.Thread(target=self._insist, args=(kind, number))
            for number, kind in enumerate([*islice(cycle(kinds), clients), self._watch, self._killed])
        ]
        at_work(threads, self._over, seconds)
        if self.errors:
            logs = "".join(server.log.read_text()[-2000:] for server in (self._registry, self._models))
            raise WrongBytes(f"{self.errors[0]}; {logs}") from self.errors[0]

    def _insist(self, kind: Callable[[random.Random, int], None], number: int) -> None:
        rng = random.Random(self._seed * 1000 + number)
        try:
            while not self._over.is_set():
                kind(rng, number)
        except BaseException as error:  # noqa: BLE001 - told by who has started this thread
            self.errors.append(error)
            self._over.set()

    # -- plain clients of the registry

    def _push(self, rng: random.Random, number: int) -> None:
        """Push a model, in one way or another, and write down what was acknowledged."""
        repository = f"soak/{rng.randrange(_REPOSITORIES)}"
        client = Client(self._registry.authority, rng, cuts=_CUTS / 2)  # two exchanges a blob, about
        blobs: dict[str, int] = {}
        try:
            for _ in range(rng.randrange(1, 4)):
                data = rng.randbytes(rng.choice(_SIZES))
                way = rng.choice((self._at_once, self._in_parts, self._as_stream))
                way(client, rng, repository, data)
                blobs[sha256(data)] = len(data)
                self.book.blob(repository, sha256(data), len(data))
                self.book.count("blobs")
            raw, tag = manifest_of(blobs), f"v{number}-{rng.randrange(10**9)}"
            expect(client.ask("PUT", f"/v2/{repository}/manifests/{tag}", raw, Content_Type=MANIFEST), 201)
            self.book.tag(repository, tag, sha256(raw))
            self.book.count("manifests")
        except Cut:
            self.book.count("cut")
        finally:
            client.close()

    def _at_once(self, client: Client, rng: random.Random, repository: str, data: bytes) -> None:
        path = f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}"
        chunked = bool(data) and rng.random() < 0.5
        answer = expect(client.ask("POST", path, data, chunked=chunked), 201, 202)
        if answer.status == 202:  # the empty blob: some clients ask so whether a blob is there
            expect(client.ask("PUT", f"{answer.headers['location']}&digest={sha256(data)}", data), 201)

    def _in_parts(self, client: Client, rng: random.Random, repository: str, data: bytes) -> None:
        """Push in parts, and go on where the registry says after a cut."""
        location = expect(client.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202).headers["location"]
        position, step = 0, max(1, len(data) // 3)
        while position < len(data):
            part = data[position : position + step]
            span = f"{position}-{position + len(part) - 1}"
            try:
                answer = client.ask("PATCH", location, part, Content_Range=span)
            except Cut:
                self.book.count("cut")
                answer = client.ask("GET", location)
                while answer.status == 409:  # the request that was cut has not ended yet
                    answer = client.ask("GET", location)
            expect(answer, 202, 204, 409, 416)
            if answer.status != 409:
                location = answer.headers["location"]
                position = position_of(answer.headers["range"], position)
        expect(client.ask("PUT", f"{location}&digest={sha256(data)}"), 201)

    def _as_stream(self, client: Client, rng: random.Random, repository: str, data: bytes) -> None:
        location = expect(client.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202).headers["location"]
        path = f"{location}&digest={sha256(data)}"
        expect(client.ask("PUT", path, data, chunked=bool(data) and rng.random() < 0.5), 201)

    def _read(self, rng: random.Random, _: int) -> None:
        """Read something that was acknowledged, whole or a range of it."""
        blobs, tags = self.book.blobs(), self.book.tags()
        if not blobs or not tags:
            self._over.wait(0.05)
            return
        client = Client(self._registry.authority, rng, cuts=_CUTS)
        try:
            for _ in range(5):
                repository, digest, size = rng.choice(blobs)
                whole = get_blob(client, repository, digest)
                start = rng.randrange(size + 1)
                answer = client.ask("GET", f"/v2/{repository}/blobs/{digest}", Range=f"bytes={start}-")
                if expect(answer, 206 if start < size else 416).status == 206 and answer.body != whole[start:]:
                    raise WrongBytes(f"the range from {start} of {digest} is another one")
                repository, tag, digest = rng.choice(tags)
                answer = expect(client.ask("GET", f"/v2/{repository}/manifests/{tag}"), 200)
                if sha256(answer.body) != digest:
                    raise WrongBytes(f"{repository}:{tag} is another manifest")
                self.book.count("reads")
        except Cut:
            self.book.count("cut")
        finally:
            client.close()

    # -- clients of the API, and the library's own

    def _pull(self, rng: random.Random, _: int) -> None:
        tags = self.book.tags()
        if not tags:
            self._over.wait(0.05)
            return
        repository, tag, digest = rng.choice(tags[-50:])
        name, stream = f"{self._registry.url}/{repository}:{tag}", rng.random() < 0.5
        client = Client(self._models.authority, rng, cuts=_CUTS)
        try:
            body = json.dumps({"model": name, "stream": stream}).encode()
            answer = expect(client.ask("POST", "/api/pull", body), 200)
            if json.loads(answer.body.splitlines()[-1]) != {"status": "success"}:
                raise WrongBytes(f"a pull of {name} ended with {answer.body[-500:]!r}")
            shown = json.dumps({"model": f"{self._registry.authority}/{repository}:{tag}"}).encode()
            answer = expect(client.ask("POST", "/api/show", shown), 200)
            if f"sha256:{json.loads(answer.body)['digest']}" != digest:
                raise WrongBytes(f"{name} is another model in the cache")
            self.book.count("pulls")
        except Cut:
            self.book.count("cut")
        finally:
            client.close()

    def _own(self, rng: random.Random, number: int) -> None:
        """Push and pull with the library; a third of the calls is cancelled."""
        move(self._folder / f"own-{number}", self._registry.url, rng, self.book.count, cuts=_CUTS)

    def _killed(self, rng: random.Random, number: int) -> None:
        """Have a process push and pull with the library, and kill it."""
        folder = self._folder / f"killed-{number}"
        child = PROCESSES.Process(target=move_on, args=(str(folder), self._registry.url, rng.random()), daemon=True)
        child.start()
        child.join(rng.uniform(0.3, 2.0))
        child.kill()
        child.join()
        if child.exitcode not in (0, -9):
            raise WrongBytes(f"a process of clients ended with {child.exitcode}")
        child.close()
        self.book.count("killed")

    def _watch(self, rng: random.Random, _: int) -> None:
        """Ask the smallest question, and see how long it takes."""
        client = Client(self._registry.authority, rng)
        began = time.monotonic()
        expect(client.ask("GET", "/v2/"), 200)
        self.slowest = max(self.slowest, time.monotonic() - began)
        client.close()
        self._over.wait(0.1)

    def check(self) -> None:
        """Read everything that was acknowledged; WrongBytes: something is not there, or is wrong."""
        client = Client(self._registry.authority, random.Random(0))
        for repository, digest, _ in self.book.blobs():
            get_blob(client, repository, digest)
        for repository, tag, digest in self.book.tags():
            if sha256(expect(client.ask("GET", f"/v2/{repository}/manifests/{tag}"), 200).body) != digest:
                raise WrongBytes(f"{repository}:{tag} is another manifest")
        client.close()


def soak_server(seconds: float, *, clients: int, seed: int, say: Say = lambda text: None) -> None:
    """Have so many clients at a server for so long.

    Raises:
        WrongBytes: what must not be is.
    """
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        folder, store, cache = Path(name), Path(name, "store"), Path(name, "cache")
        with (
            serve(folder / "registry.log", "--registry", store) as registry,
            serve(folder / "models.log", "--api", "--cache", cache) as models,
        ):
            at_rest = registry.use(), models.use()
            # What the first clients have it take stays: imports, what the allocator keeps.
            Load(folder, registry, models, seed=seed).run(clients, min(5.0, seconds / 4))
            warm = registry.use(), models.use()
            load = Load(folder, registry, models, seed=seed + 1)
            load.run(clients, seconds)
            after = [models.check_use(at_rest[1], clients)]
            ends = [models.end()]  # and the connections that it has kept to the registry
            after.insert(0, registry.check_use(at_rest[0], clients))
            load.check()
            ends.insert(0, registry.end())
        under_way = check_store(store, set())
        if load.slowest > LONGEST:
            raise WrongBytes(f"the smallest question took {load.slowest:.1f} s")
        for use, then in zip(after, warm, strict=True):
            if use is not None and then is not None and use.memory - then.memory > GROWTH:
                raise WrongBytes(f"a server has grown: {then} when it was warm, {use} after")
        counts = ", ".join(f"{count} {what}" for what, count in sorted(load.book.counts.items()))
        say(f"server: {counts}; {under_way} uploads left for later; the slowest question {load.slowest:.2f} s")
        for which, then, use, end in zip(("the registry", "the API"), warm, after, ends, strict=True):
            say(f"server: {which} had {then} when it was warm, {use} after; it ended in {end:.1f} s")
