"""One client for every server that is compared: bare sockets that throw away what comes, and hash nothing in time.

What the servers hand out, or have stored, is fetched once more and hashed when the time has run.
"""

from __future__ import annotations

import hashlib
import os

from benchmarks.contestants.floor_sockets import Worker, work_off
from benchmarks.contestants.job import parse, run


class Client(Worker):
    def discard(self, hexdigest: str, size: int) -> None:
        """Receive a blob."""
        self.ask_for(hexdigest)
        _, block = self.head(b"200")
        size -= len(block)
        while size > 0:
            got = self.connection.recv_into(self.view)
            if not got:
                raise ConnectionError("closed within the body")
            size -= got
        if size:
            raise ConnectionError(f"{hexdigest}: more bytes than it has")

    def pour(self, hexdigest: str, size: int) -> None:
        """Push a blob."""
        self.ask(
            "PUT", self.session(hexdigest), f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
        )
        with open(self.job.path(hexdigest), "rb", buffering=0) as file:
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)
        self.head(b"201")

    def check(self, hexdigest: str, size: int) -> None:
        """Hold what the server has to its digest."""
        self.ask_for(hexdigest)
        _, block = self.head(b"200")
        sha256 = hashlib.sha256(block)
        size -= len(block)
        while size > 0:
            got = self.connection.recv_into(self.view)
            if not got:
                raise ConnectionError("closed within the body")
            sha256.update(self.view[:got])
            size -= got
        if size or sha256.hexdigest() != hexdigest:
            raise ConnectionError(f"{hexdigest}: other bytes")


def main() -> None:
    job = parse()
    move = Client.discard if job.action == "download" else Client.pour
    run(lambda: work_off(job, Client, move))
    work_off(job, Client, Client.check)


if __name__ == "__main__":
    main()
