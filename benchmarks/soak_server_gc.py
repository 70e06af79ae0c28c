"""Models that are deleted and collected while they are pulled and read: ``python -m benchmarks.soak --only server``.

Two ``transferkit serve`` share one cache, one of them mirrors it as well; a third process collects without any grace,
over and over. Clients pull models that have blobs in common, delete them, and read them from the mirror; others delete
blobs and manifests of the registry behind while they are read. Who is told that a pull succeeded has the model, whole
and right, until he deletes it; who has begun to read a blob gets all of it.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import transferkit as tk
from benchmarks.soak_rig import KIB, MIB, PROCESSES, Say, WrongBytes, at_work, check_names
from benchmarks.soak_serve import MANIFEST, Client, Serve, expect, manifest_of, serve, sha256

MODELS = 6
OWNERS = 4  # clients, each of which pulls and deletes models of its own, so that it knows what has to be there
_SIZES = (100, 40 * KIB, 300 * KIB, 2 * MIB)
_REPOSITORY = "soak/model"


def collect(cache: str) -> None:
    """What the third process does: remove what nobody needs, whatever its age."""
    with tk.Registry(cache=cache) as registry:
        while True:
            registry.cache.gc(grace=0)
            time.sleep(0.002)


class Deleting:
    """The clients of one run."""

    def __init__(self, registry: Serve, servers: list[Serve], cache: Path, *, seed: int) -> None:
        self._registry = registry
        self._servers = servers
        self._mirror = servers[1]
        self._cache = cache
        self._seed = seed
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._manifests: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()

    def prepare(self) -> None:
        """Push the models; each blob is in several of them."""
        rng = random.Random(self._seed)
        blobs = [rng.randbytes(size) for size in _SIZES for _ in range(2)]
        client = Client(self._registry.authority, rng)
        base = f"/v2/{_REPOSITORY}"
        for data in blobs:
            expect(client.ask("POST", f"{base}/blobs/uploads/?digest={sha256(data)}", data), 201)
        for owner in range(OWNERS + 1):
            for number in range(MODELS):
                chosen = rng.sample(blobs, 4)
                raw = manifest_of({sha256(data): len(data) for data in chosen}, annotations={"of": f"{owner}"})
                tag = f"{owner}-{number}"
                expect(client.ask("PUT", f"{base}/manifests/{tag}", raw, Content_Type=MANIFEST), 201)
                self._manifests[tag] = raw
        client.close()

    def run(self, seconds: float) -> None:
        """Have them at work for so long; WrongBytes: one has found something wrong."""
        kinds: list[Callable[[random.Random, Client, str], None]] = [
            *[self._own for _ in range(OWNERS)], *[self._quarrel for _ in range(3)],
            *[self._read for _ in range(3)], *[self._unlink for _ in range(2)],
        ]  # fmt: skip
        threads = [threading.Thread(target=self._insist, args=(kind, number)) for number, kind in enumerate(kinds)]
        at_work(threads, self._over, seconds)
        if self._errors:
            raise WrongBytes(str(self._errors[0])) from self._errors[0]

    def _insist(self, kind: Callable[[random.Random, Client, str], None], number: int) -> None:
        rng = random.Random(self._seed * 100 + number)
        servers = {"_read": self._mirror, "_unlink": self._registry}
        server = servers.get(kind.__name__) or self._servers[number % len(self._servers)]
        client = Client(server.authority, rng)
        try:
            while not self._over.is_set():
                kind(rng, client, str(number))
                with self._lock:
                    self.counts[kind.__name__.strip("_")] += 1
        except BaseException as error:  # noqa: BLE001 - told by who has started this thread
            self._errors.append(error)
            self._over.set()
        finally:
            client.close()

    # -- clients of the API

    def _pull(self, client: Client, tag: str) -> bool:
        body = json.dumps({"model": f"{self._registry.url}/{_REPOSITORY}:{tag}", "stream": True}).encode()
        last = json.loads(expect(client.ask("POST", "/api/pull", body), 200).body.splitlines()[-1])
        if last != {"status": "success"}:
            raise WrongBytes(f"a pull has ended with {last}")
        return True

    def _delete(self, client: Client, tag: str, *statuses: int) -> None:
        body = json.dumps({"model": f"{self._registry.authority}/{_REPOSITORY}:{tag}"}).encode()
        expect(client.ask("DELETE", "/api/delete", body), *statuses)

    def _own(self, rng: random.Random, client: Client, number: str) -> None:
        """Pull a model that nobody else touches, find it whole, now and a little later, and delete it."""
        tag = f"{number}-{rng.randrange(MODELS)}"
        self._pull(client, tag)
        self.check(tag)
        self._over.wait(rng.uniform(0, 0.05))
        self.check(tag)
        if rng.random() < 0.7:
            self._delete(client, tag, 200)

    def _quarrel(self, rng: random.Random, client: Client, _: str) -> None:
        """Pull or delete a model that others pull and delete at the same time."""
        tag = f"{OWNERS}-{rng.randrange(MODELS)}"
        if rng.random() < 0.6:
            self._pull(client, tag)
        else:
            self._delete(client, tag, 200, 404)

    def check(self, tag: str) -> None:
        """Hold the files of a model to what it has to be; WrongBytes: it is not so."""
        raw = self._manifests[tag]
        linked = self._cache / "manifests" / self._registry.authority / _REPOSITORY / tag
        if linked.read_bytes() != raw:
            raise WrongBytes(f"the manifest of {tag} is another one")
        for layer in json.loads(raw)["layers"]:
            path = self._cache / "blobs" / layer["digest"].replace(":", "-")
            if not path.exists():
                raise WrongBytes(f"{tag} was pulled, and {layer['digest']} is not there")
            if sha256(path.read_bytes()) != layer["digest"]:
                raise WrongBytes(f"{layer['digest']} of {tag} is another content")

    # -- who reads while it goes

    def _read(self, rng: random.Random, client: Client, _: str) -> None:
        """Read a model from the mirror, as far as it is there."""
        tag = rng.choice(list(self._manifests))
        namespace = f"ns={self._registry.authority}"
        answer = expect(client.ask("GET", f"/v2/{_REPOSITORY}/manifests/{tag}?{namespace}"), 200, 404)
        if answer.status == 404:
            return
        if answer.body != self._manifests[tag]:
            raise WrongBytes(f"the mirror's manifest of {tag} is another one")
        for layer in json.loads(answer.body)["layers"]:
            found = expect(client.ask("GET", f"/v2/{_REPOSITORY}/blobs/{layer['digest']}?{namespace}"), 200, 404)
            if found.status == 200 and sha256(found.body) != layer["digest"]:
                raise WrongBytes(f"the mirror's {layer['digest']} is another content")

    def _unlink(self, rng: random.Random, client: Client, number: str) -> None:
        """Push a blob and a manifest to the registry, and delete both while they are read, slowly."""
        data, repository = rng.randbytes(4 * MIB), f"soak/unlinked-{number}"
        digest = sha256(data)
        expect(client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data), 201)
        raw = manifest_of({digest: len(data)})
        expect(client.ask("PUT", f"/v2/{repository}/manifests/v1", raw, Content_Type=MANIFEST), 201)
        with client.reading(f"/v2/{repository}/blobs/{digest}") as answer:
            hasher = hashlib.sha256(answer.read(KIB))
            expect(client.ask("DELETE", f"/v2/{repository}/blobs/{digest}"), 202)
            expect(client.ask("DELETE", f"/v2/{repository}/manifests/{sha256(raw)}"), 202)
            while block := answer.read(64 * KIB):
                hasher.update(block)
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise WrongBytes("a blob that was deleted while it was read came as another one")
        for path in (f"blobs/{digest}", "manifests/v1", f"manifests/{sha256(raw)}"):
            expect(client.ask("GET", f"/v2/{repository}/{path}"), 404)


def soak_server_gc(seconds: float, *, seed: int, say: Say = lambda text: None) -> None:
    """Pull, delete and collect for so long.

    Raises:
        WrongBytes: what must not be is.
    """
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        folder, cache = Path(name), Path(name, "cache")
        with (
            serve(folder / "registry.log", "--registry", folder / "store") as registry,
            serve(folder / "first.log", "--api", "--cache", cache) as first,
            serve(folder / "second.log", "--api", "--mirror", "--cache", cache) as second,
        ):
            run = Deleting(registry, [first, second], cache, seed=seed)
            run.prepare()
            collector = PROCESSES.Process(target=collect, args=(str(cache),), daemon=True)
            collector.start()
            try:
                run.run(seconds)
                if not collector.is_alive():
                    raise WrongBytes(f"the collector has ended with {collector.exitcode}")
            finally:
                collector.kill()
                collector.join()
                collector.close()
            check_names(cache / "blobs")
            for server in (first, second, registry):
                server.end()
    counts = ", ".join(f"{count} x {what}" for what, count in sorted(run.counts.items()))
    say(f"server-gc: {counts}")
