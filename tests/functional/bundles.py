"""Small blobs, and servers that have them: a scripted one that counts what it is asked, and one on a bare socket."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.testing.scripted import RawRequest, ScriptedServer, Step
from transferkit.testing.wire import answer

REPOSITORY = "library/model"
IMPATIENT = tk.TransferOptions(retry=tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.01), stall_timeout=1.0)
BLOBS = 130


class Blobs:
    """What a server has, and which blob was asked for how often."""

    def __init__(self, folder: Path, blobs: list[tk.Blob]) -> None:
        self.contents = {blob.digest: (folder / tk.digest_to_path(blob.digest)).read_bytes() for blob in blobs}
        self.order = [blob.digest for blob in blobs]
        self.asked: Counter[str] = Counter()
        self.number = count()

    def twin(self, data: bytes) -> bytes:
        """Return the content of another blob of the same size; where there is none, this one."""
        return next((other for other in self.contents.values() if len(other) == len(data) and other != data), data)

    def take(self, request: RawRequest) -> str:
        """Return the digest that a request names, and count it."""
        digest = request.target.rpartition("/")[2]
        self.asked[digest] += 1
        return digest


Fault = Callable[[Blobs, RawRequest, bytes], Step]


def plain(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tk.Blob]]:
    """A folder with small blobs, two of each size, an empty one among them."""
    folder, blobs, rng = tmp_path_factory.mktemp("small"), [], random.Random(1)
    for number in range(BLOBS):
        data = b"" if number == 40 else rng.randbytes(300 + 7 * (number // 2))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (folder / tk.digest_to_path(digest)).write_bytes(data)
        blobs.append(tk.Blob(digest, len(data)))
    return folder, blobs


def serve(blobs: Blobs, fault: Fault) -> ScriptedServer:
    def say(request: RawRequest) -> Step:
        digest = blobs.take(request).partition("?")[0]
        return fault(blobs, request, blobs.contents[digest])

    return ScriptedServer(say)


class Counting:
    """A server on a socket that tells how many requests came with one ``recv``.

    Of several together it answers ``most``, and forgets the others; 0: it closes the connection.
    """

    def __init__(self, blobs: Blobs, *, most: int | None = None) -> None:
        self.together: list[int] = []
        self._most = most
        self._blobs = blobs
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Counting:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._answer, sock)

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(64 * 1024):
                lines = [line.split()[1].decode() for line in data.split(b"\r\n") if line.startswith(b"GET ")]
                self.together.append(len(lines))
                answered = lines if len(lines) == 1 else lines[: self._most]
                if not answered:
                    return
                for target in answered:
                    sock.sendall(answer(200, self._blobs.contents[target.rpartition("/")[2]]))


def download(url: str, blobs: list[tk.Blob], folder: Path, **keywords: Any) -> tk.Report:
    return tk.download(blobs, folder, base_url=url, repository=REPOSITORY, concurrency=1, **keywords)
