"""``transferkit serve`` as a process of its own, and plain clients of it: what the soaks of the server stand on.

The clients are made of ``http.client`` and ``hashlib`` alone: what they say of the server is nothing that the library
says of itself.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.soak_rig import MIB, WrongBytes

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ROOT = Path(__file__).parents[1]
_BLOB = re.compile(r"(sha256-[0-9a-f]{64})(\.chunks-[0-9]+)?\Z")
_UPLOAD = re.compile(r"[0-9a-f]{16}\.[0-9a-f-]{36}\Z")
_SMALL = re.compile(r"sha256-0{64}\.[0-9a-f]+\Z")  # on its way to a name; who is killed leaves it for an hour
_BLOCK = 64 * 1024  # bytes that are sent and read at once
_KEPT = 2  # descriptors of folders that are opened when they are first needed
PATIENCE = 20.0  # seconds for an answer, on a machine that is busy


class Cut(Exception):
    """The client has ended the exchange itself."""


@dataclass(frozen=True)
class Use:
    """What a process holds. Connections that it has begun itself, and keeps for the next time, are not counted."""

    threads: int
    descriptors: int
    memory: int
    """Bytes that are resident."""

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.descriptors} descriptors, {self.memory // MIB} MiB"


class Serve:
    """One process. ``url`` and ``authority`` lead to it."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        assert process.stdout is not None
        said = process.stdout.readline()
        self.url = said.rpartition(" on ")[2].strip()
        self.authority = self.url.removeprefix("http://")
        if not self.authority:
            process.wait()
            raise WrongBytes(f"the server did not begin: {log.read_text()[-2000:]}")

    def use(self) -> Use | None:
        """Return what it holds, where the system tells that."""
        proc = Path(f"/proc/{self.process.pid}")
        if not proc.exists():
            return None
        status = (proc / "status").read_text()
        threads, resident = (int(re.findall(rf"{key}:\s+([0-9]+)", status)[0]) for key in ("Threads", "VmRSS"))
        return Use(threads, len(self._open()), resident * 1024)

    def _open(self) -> list[str]:
        proc, port = Path(f"/proc/{self.process.pid}"), int(self.authority.rpartition(":")[2])
        rows = [line.split() for line in (proc / "net" / "tcp").read_text().splitlines()[1:]]
        begun = {f"socket:[{row[9]}]" for row in rows if int(row[1].partition(":")[2], 16) != port}
        found = []
        for path in (proc / "fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(path))
        return sorted(each for each in found if each not in begun)

    def check_use(self, before: Use | None, clients: int) -> Use | None:
        """Wait a moment for what is about to end, and return what it holds after so many clients at once.

        Raises:
            WrongBytes: there are more descriptors, or more threads than one more for each client: those that answer
                start when requests wait, and stay.
        """
        deadline = time.monotonic() + PATIENCE
        while (now := self.use()) is not None and before is not None:
            if now.threads <= before.threads + clients and now.descriptors <= before.descriptors + _KEPT:
                break
            if time.monotonic() > deadline:
                raise WrongBytes(f"the server has kept something: {before} before, {now} after, {self._open()} open")
            time.sleep(0.05)
        return now

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        """Send SIGTERM, and return how many seconds it took.

        Raises:
            WrongBytes: it ended otherwise than with 0, or with a traceback in its log.
        """
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        log = self.log.read_text()
        if code != 0 or "Traceback" in log:
            raise WrongBytes(f"the server ended with {code}: {log[-2000:]}")
        return time.monotonic() - began


@contextmanager
def serve(log: Path, *arguments: str | os.PathLike[str]) -> Iterator[Serve]:
    """Run ``transferkit serve`` with arguments. ``log`` is the file that gets what it says of errors."""
    command = [sys.executable, "-m", "transferkit", "serve", "--port", "0", *map(os.fspath, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    with open(log, "a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ)
    try:
        yield Serve(process, log)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# -- plain clients


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Answer:
    """What came back, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection at a time. Not thread-safe.

    With ``cuts`` some exchanges are ended in their middle, at a random byte of what is sent or read: ``Cut``.
    """

    def __init__(self, authority: str, rng: random.Random, *, cuts: float = 0.0) -> None:
        self._authority = authority
        self._rng = rng
        self._cuts = cuts
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes = b"", *, chunked: bool = False, **headers: str) -> Answer:
        """Send a request, and return its answer.

        Raises:
            Cut: it was to be cut, and was.
            OSError, http.client.HTTPException: the server has gone.
            WrongBytes: the answer is an error of the server's.
        """
        where = self._rng.choice(("head", "body", "answer")) if self._rng.random() < self._cuts else ""
        connection = self._connection or http.client.HTTPConnection(self._authority, timeout=PATIENCE)
        self._connection = None
        try:
            answer = self._exchange(connection, method, path, body, chunked, headers, where)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if answer.status >= 500 or b"Traceback" in answer.body:
            raise WrongBytes(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        chunked: bool,
        headers: dict[str, str],
        where: str,
    ) -> Answer:
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
        fields = {**framing, **{name.replace("_", "-"): text for name, text in headers.items()}}
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\n"
        head += "".join(f"{name}: {text}\r\n" for name, text in fields.items()) + "\r\n"
        sent = b"".join(_chunks(body)) if chunked else body
        if connection.sock is None:
            connection.connect()
        data = head.encode() + sent
        if where == "head":
            connection.sock.sendall(data[: self._rng.randrange(len(head))])
            raise Cut
        if where == "body" and sent:
            connection.sock.sendall(data[: len(head) + self._rng.randrange(len(sent))])
            raise Cut
        connection.sock.sendall(data)
        answer = http.client.HTTPResponse(connection.sock, method=method)
        answer.begin()
        if where:
            answer.read(self._rng.randrange((answer.length or 1) + 1))
            raise Cut
        received = answer.read()
        if answer.will_close:
            connection.close()
        return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, received)

    @contextmanager
    def reading(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """Ask for something on a connection of its own, and give the answer as it comes."""
        connection = http.client.HTTPConnection(self._authority, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != 200:
                raise WrongBytes(f"GET {path}: {answer.status}")
            yield answer
        finally:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _BLOCK):
        block = body[start : start + _BLOCK]
        yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def expect(answer: Answer, *statuses: int) -> Answer:
    """Return an answer, if it has one of these statuses; WrongBytes: it has not."""
    if answer.status not in statuses:
        raise WrongBytes(f"{answer.status} and not {statuses}: {answer.body[:500]!r}")
    return answer


def get_blob(client: Client, repository: str, digest: str) -> bytes:
    """Read a blob that has to be there; WrongBytes: it is not, or another one."""
    body = expect(client.ask("GET", f"/v2/{repository}/blobs/{digest}"), 200).body
    if sha256(body) != digest:
        raise WrongBytes(f"{digest} of {repository} was read as {sha256(body)}, {len(body)} bytes")
    return body


def manifest_of(blobs: dict[str, int], **more: Any) -> bytes:
    """Return a manifest of blobs, by their digests and sizes."""
    layers = [{"mediaType": "application/x", "digest": digest, "size": size} for digest, size in blobs.items()]
    return json.dumps({"schemaVersion": 2, "config": layers[0], "layers": layers, **more}).encode()


def position_of(text: str, before: int) -> int:
    """Return where an upload is, by its ``Range``: that of nothing and that of one byte are the same."""
    last = int(text.partition("-")[2])
    return last + 1 if last or before else 0


# -- what is on the disk


def check_store(store: Path, seen: set[str], *, killed: bool = False) -> int:
    """Hold the directory of a registry that rests to what it promises, and return how many uploads are under way in it.

    Contents in ``seen`` were hashed before; those that are hashed now come into it. ``killed``: its process was.

    Raises:
        WrongBytes: a content is another one than its name says, a link leads nowhere, or a file is of no known kind.
    """
    names = {entry.name for entry in (store / "blobs").iterdir()}
    for name in names - seen:
        match = _BLOB.match(name)
        if match is None:
            raise WrongBytes(f"there is a {name} among the blobs")
        if match[2] is None and sha256((store / "blobs" / name).read_bytes()).replace(":", "-") != name:
            raise WrongBytes(f"{name} is another content")
    seen |= names
    for path, _, files in os.walk(store / "repositories"):
        kind = os.path.basename(path)
        for name in files:
            if kind in ("_blobs", "_manifests") and name not in names:
                raise WrongBytes(f"{path}/{name} leads nowhere")
            if kind == "_tags":
                digest = Path(path, name).read_text().replace(":", "-")
                if not Path(path).with_name("_manifests").joinpath(digest).exists():
                    raise WrongBytes(f"the tag {path}/{name} leads to {digest}, which is no manifest here")
    uploads = os.listdir(store / "uploads") if (store / "uploads").exists() else []
    strange = [name for name in uploads if not _UPLOAD.match(name) and not (killed and _SMALL.match(name))]
    if strange:
        raise WrongBytes(f"there is {strange} among the uploads")
    return len(uploads)
