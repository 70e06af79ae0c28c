"""A floor: bare sockets, a request line and two headers, SHA-256 and a file. No check that a client must make."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from benchmarks.contestants.job import Job, parse, run

BUFFER = 256 * 1024

W = TypeVar("W", bound="Worker")


class Worker:
    """One connection, one buffer."""

    def __init__(self, job: Job) -> None:
        host, _, port = job.host.partition(":")
        self.job = job
        self.connection: socket.socket = socket.create_connection((host, int(port)))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if job.url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(job.ca) if job.ca else None)
            self.connection = context.wrap_socket(self.connection, server_hostname=host)
        self.view = memoryview(bytearray(BUFFER))

    def fetch(self, hexdigest: str, size: int) -> None:
        self.ask_for(hexdigest)
        _, block = self.head(b"200")
        sha256 = hashlib.sha256()
        with open(self.job.path(hexdigest), "wb", buffering=0) as out:
            while True:
                sha256.update(block)
                out.write(block)
                size -= len(block)
                if size <= 0:
                    break
                got = self.connection.recv_into(self.view)
                if not got:
                    raise ConnectionError("closed within the body")
                block = self.view[:got]
        if size or sha256.hexdigest() != hexdigest:
            raise ConnectionError(f"{hexdigest}: other bytes")

    def send(self, hexdigest: str, size: int) -> None:
        """Begin an upload and send the content; hash it as a client does that knows it by its name alone."""
        self.ask(
            "PUT", self.session(hexdigest), f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
        )
        sha256 = hashlib.sha256()
        with open(self.job.path(hexdigest), "rb", buffering=0) as file:
            while got := file.readinto(self.view):
                sha256.update(self.view[:got])
                self.connection.sendall(self.view[:got])
        self.head(b"201")
        if sha256.hexdigest() != hexdigest:
            raise ConnectionError(f"{hexdigest}: other bytes")

    def session(self, hexdigest: str) -> str:
        """Begin an upload, and return the path that ends it."""
        self.ask("POST", f"/v2/{self.job.repository}/blobs/uploads/", "Content-Length: 0\r\n")
        head, _ = self.head(b"202")
        fields = (line.partition(b":") for line in head.split(b"\r\n"))
        (location,) = (text.strip().decode() for name, _, text in fields if name.lower() == b"location")
        path = location.removeprefix(self.job.url)
        return f"{path}{'&' if '?' in path else '?'}digest=sha256%3A{hexdigest}"

    def ask_for(self, hexdigest: str) -> None:
        self.ask("GET", f"/v2/{self.job.repository}/blobs/sha256:{hexdigest}")

    def ask(self, method: str, path: str, fields: str = "") -> None:
        self.connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {self.job.host}\r\n{fields}\r\n".encode())

    def head(self, wanted: bytes) -> tuple[bytes, memoryview]:
        """Return the head of the answer, and what came of the body with it."""
        view = self.view
        have, end = 0, -1
        while end < 0:
            got = self.connection.recv_into(view[have:])
            if not got:
                raise ConnectionError("closed within the head")
            have += got
            end = bytes(view[: min(have, 4096)]).find(b"\r\n\r\n")
        head = bytes(view[:end])
        if head[9:12] != wanted:
            raise ConnectionError(head.decode())
        return head, view[end + 4 : have]


def work_off(job: Job, worker: type[W], move: Callable[[W, str, int], None]) -> None:
    """Move all blobs of a job, with as many workers as it says; whatever the first one raised."""
    queue = deque(job.blobs)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            own = worker(job)
            while not failures:
                move(own, *queue.popleft())
        except IndexError:
            pass  # all done
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(min(job.threads, len(queue)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main() -> None:
    job = parse()
    run(lambda: work_off(job, Worker, Worker.fetch if job.action == "download" else Worker.send))


if __name__ == "__main__":
    main()
