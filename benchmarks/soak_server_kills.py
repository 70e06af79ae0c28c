"""A registry that is killed while clients push: ``python -m benchmarks.soak --only server``.

``transferkit serve --registry`` gets SIGKILL at random moments, and SIGTERM now and then; it is started again over the
same directory. What was acknowledged is there and right; nothing that is half done is to be seen: no blob of other
bytes, no tag without its manifest, no manifest without its blobs. An upload under way goes on from where the registry
says, and that is not before the last acknowledged byte.
"""

from __future__ import annotations

import http.client
import json
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak_rig import KIB, MIB, Say, WrongBytes
from benchmarks.soak_serve import (
    MANIFEST,
    Client,
    Serve,
    check_store,
    expect,
    get_blob,
    manifest_of,
    position_of,
    serve,
    sha256,
)

PUSHERS = 6
LONGEST_END = 6.0  # seconds of a SIGTERM: two of grace, and what a busy machine adds
_SPAN = 0.6  # seconds in which the signal comes, once all pushers are at work
_SIZES = (10, 5 * KIB, 300 * KIB, MIB)
_REPOSITORIES = ("soak/0", "soak/1")
_EACH = 4  # kills: so often it is a SIGTERM


@dataclass
class Upload:
    """An upload under way: what it is to become, how much of that was acknowledged, and how much has been sent."""

    location: str
    data: bytes = field(repr=False)
    acknowledged: int = 0
    sent: int = 0
    is_ending: bool = False


class Pusher(threading.Thread):
    """A client that pushes until its server has gone, and remembers what was acknowledged."""

    def __init__(self, authority: str, seed: str, number: int) -> None:
        super().__init__(name=f"pusher-{seed}")
        self.repository = _REPOSITORIES[number % len(_REPOSITORIES)]
        self.blobs: dict[str, int] = {}
        self.tags: dict[str, str] = {}
        self.referrers: list[tuple[str, str]] = []
        """Subjects, and manifests that name them."""
        self.upload: Upload | None = None
        self.error: BaseException | None = None
        self.has_begun = threading.Event()
        self._client = Client(authority, random.Random(seed))
        self._rng = random.Random(seed)
        self._seed = seed

    def run(self) -> None:
        try:
            while True:
                self._push_blob()
                self._push_parts()
                self._push_manifest()
                self.has_begun.set()
        except (OSError, http.client.HTTPException):
            pass
        except BaseException as error:  # noqa: BLE001 - told by who has started this thread
            self.error = error
        finally:
            self.has_begun.set()
            self._client.close()

    def _push_blob(self) -> None:
        data, base = self._rng.randbytes(self._rng.choice(_SIZES)), f"/v2/{self.repository}/blobs/uploads/"
        if self._rng.random() < 0.5:
            expect(self._client.ask("POST", f"{base}?digest={sha256(data)}", data), 201)
        else:
            location = expect(self._client.ask("POST", base), 202).headers["location"]
            expect(self._client.ask("PUT", f"{location}&digest={sha256(data)}", data, chunked=True), 201)
        self.blobs[sha256(data)] = len(data)

    def _push_parts(self) -> None:
        location = expect(self._client.ask("POST", f"/v2/{self.repository}/blobs/uploads/"), 202).headers["location"]
        upload = self.upload = Upload(location, self._rng.randbytes(self._rng.randrange(4, MIB)))
        step = len(upload.data) // 4
        while (start := upload.acknowledged) < len(upload.data):
            part = upload.data[start : start + step]
            upload.sent = start + len(part)
            answer = self._client.ask("PATCH", upload.location, part, Content_Range=f"{start}-{upload.sent - 1}")
            upload.location, upload.acknowledged = expect(answer, 202).headers["location"], upload.sent
        self._finish(upload)

    def _finish(self, upload: Upload) -> None:
        upload.is_ending = True
        expect(self._client.ask("PUT", f"{upload.location}&digest={sha256(upload.data)}"), 201)
        self.blobs[sha256(upload.data)], self.upload = len(upload.data), None

    def _push_manifest(self) -> None:
        blobs = {digest: self.blobs[digest] for digest in self._rng.sample(list(self.blobs), k=2)}
        subject = sha256(self._rng.randbytes(8))
        raw, tag = manifest_of(blobs, subject={"digest": subject}), f"v{self._seed}-{len(self.tags)}"
        answer = self._client.ask("PUT", f"/v2/{self.repository}/manifests/{tag}", raw, Content_Type=MANIFEST)
        self.tags[tag] = expect(answer, 201).headers["docker-content-digest"]
        self.referrers.append((subject, sha256(raw)))

    def check(self, client: Client) -> None:
        """Hold a server to what another one, or the same, has acknowledged; WrongBytes: it is not so."""
        if self.error is not None:
            raise WrongBytes(f"a client has ended: {self.error}") from self.error
        for digest in self.blobs:
            get_blob(client, self.repository, digest)
        for tag, digest in self.tags.items():
            answer = expect(client.ask("GET", f"/v2/{self.repository}/manifests/{tag}"), 200)
            if sha256(answer.body) != digest:
                raise WrongBytes(f"{self.repository}:{tag} is another manifest")
        for subject, digest in self.referrers:
            index = json.loads(expect(client.ask("GET", f"/v2/{self.repository}/referrers/{subject}"), 200).body)
            if [entry["digest"] for entry in index["manifests"]] != [digest]:
                raise WrongBytes(f"{digest} is no referrer of {subject}")

    def go_on(self, client: Client) -> int:
        """Finish the upload that was under way, and return how many bytes were there; 0: there was none.

        Raises:
            WrongBytes: there are fewer than were acknowledged, more than were sent, or other ones.
        """
        upload = self.upload
        if upload is None:
            return 0
        answer = expect(client.ask("GET", upload.location), 204, 404)
        if answer.status == 404:
            if not upload.is_ending:  # its end may have been on its way: then it is whole, or it has never been
                raise WrongBytes("an upload that was under way is not known any more")
            return 0
        there, location = position_of(answer.headers["range"], upload.acknowledged), answer.headers["location"]
        if not upload.acknowledged <= there <= upload.sent:
            told = f"{there} bytes of an upload are here, {upload.acknowledged} were acknowledged, {upload.sent} sent"
            raise WrongBytes(told)
        if rest := upload.data[there:]:
            location = expect(client.ask("PATCH", location, rest), 202).headers["location"]
        expect(client.ask("PUT", f"{location}&digest={sha256(upload.data)}"), 201)
        get_blob(client, self.repository, sha256(upload.data))
        self.upload = None
        return there


def check_tags(client: Client) -> int:
    """Follow every tag to its manifest, and that to its blobs, and return how many there are; WrongBytes: one is not
    there."""
    count = 0
    for repository in _REPOSITORIES:
        path = f"/v2/{repository}/tags/list?n=500"
        while path and (listed := client.ask("GET", path)).status == 200:
            for tag in json.loads(listed.body)["tags"]:
                raw = expect(client.ask("GET", f"/v2/{repository}/manifests/{tag}"), 200).body
                for layer in json.loads(raw)["layers"]:
                    answer = expect(client.ask("HEAD", f"/v2/{repository}/blobs/{layer['digest']}"), 200)
                    if answer.headers["content-length"] != str(layer["size"]):
                        raise WrongBytes(f"{layer['digest']} has {answer.headers['content-length']} bytes")
                count += 1
            path = listed.headers.get("link", "").partition("<")[2].partition(">")[0]
    return count


def one_life(server: Serve, rng: random.Random, number: int, *, gently: bool) -> list[Pusher]:
    """Have clients push to a server until it is killed, and return them."""
    pushers = [Pusher(server.authority, f"{rng.random()}", each) for each in range(PUSHERS)]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.has_begun.wait(30)
    time.sleep(rng.uniform(0, _SPAN))
    if not gently:
        server.kill()
    elif (seconds := server.end()) > LONGEST_END:
        raise WrongBytes(f"a SIGTERM took {seconds:.1f} s")
    for pusher in pushers:
        pusher.join(30)
        if pusher.is_alive():
            raise WrongBytes("a client has not noticed that its server is gone")
    return pushers


def soak_server_kills(kills: int, *, seed: int, say: Say = lambda text: None) -> None:
    """Kill a registry so many times.

    Raises:
        WrongBytes: what must not be is.
    """
    rng, pushers, seen = random.Random(seed), list[Pusher](), set[str]()
    continued = in_the_middle = 0
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        store, log = Path(name, "store"), Path(name, "log")
        fresh: list[Pusher] = []
        for number in range(kills + 1):
            with serve(log, "--registry", store) as server:
                client = Client(server.authority, rng)
                for pusher in fresh if number < kills else pushers:
                    pusher.check(client)
                for pusher in fresh:
                    unacknowledged = 0 if pusher.upload is None else -pusher.upload.acknowledged
                    there = pusher.go_on(client)
                    continued += there > 0
                    in_the_middle += there + unacknowledged > 0 and there > 0
                tags = check_tags(client)
                client.close()
                if number < kills:
                    fresh = one_life(server, rng, number, gently=number % _EACH == _EACH - 1)
                    pushers += fresh
            check_store(store, seen, killed=True)
            if number < kills:
                blobs = sum(len(pusher.blobs) for pusher in pushers)
                told = f"{blobs} blobs and {tags} tags acknowledged, {continued} uploads gone on with"
                say(f"server-kills: {number + 1} of {kills}: {told}, {in_the_middle} of them in the middle of a part")
