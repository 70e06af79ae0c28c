"""Stopping, at every point of an operation: connecting, waiting, reading, sending, backing off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import transferkit as tk

pytestmark = pytest.mark.lanes

MIB = 1024 * 1024
DIGEST = "sha256:" + 64 * "a"
SIZE = 64 * MIB
PATIENT = tk.TransferOptions(retry=tk.RetryOptions(attempts=1000, patience=1000.0, max_wait=1000.0))


@contextmanager
def listener(serve) -> Iterator[tuple[str, threading.Event]]:
    """Run ``serve(connection)`` for each connection; the event tells that the state wanted has been reached."""
    reached = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        try:
            serve(connection, reached)
        except OSError:
            pass  # the client has gone, which is what these tests are about

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", reached
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in connections:
            connection.close()
        thread.join(5)


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(65536)
        if not block:
            raise ConnectionError("the client has gone")
        data += block
    return data


def wait_for_ever(connection, reached):
    read_head(connection)
    reached.set()
    time.sleep(60)


def fall_silent_in_the_body(connection, reached):
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(MIB))
    reached.set()
    time.sleep(60)


def fail_at_once(connection, reached):
    while True:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        reached.set()


def take_no_body(connection, reached):
    port = connection.getsockname()[1]
    while True:
        head = read_head(connection)
        if head.startswith(b"HEAD"):
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith(b"POST"):
            connection.sendall(
                b"HTTP/1.1 202 Accepted\r\nLocation: http://127.0.0.1:%d/u/1\r\nContent-Length: 0\r\n\r\n" % port
            )
        else:
            reached.set()
            time.sleep(60)


@contextmanager
def full_backlog() -> Iterator[tuple[str, threading.Event]]:
    """An address that neither accepts nor refuses: the queue of connections is full."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(server.getsockname())
        fillers.append(filler)
    reached = threading.Event()
    threading.Timer(0.3, reached.set).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", reached
    finally:
        for filler in fillers:
            filler.close()
        server.close()


def downloading(url, folder, **keywords):
    tk.download([tk.Blob(DIGEST, SIZE)], folder, base_url=url, repository="a/b", options=PATIENT, **keywords)


def uploading(url, folder, **keywords):
    folder.mkdir()
    with (folder / tk.digest_to_path(DIGEST)).open("wb") as file:
        file.truncate(SIZE)
    tk.upload([tk.Blob(DIGEST, SIZE)], folder, base_url=url, repository="a/b", options=PATIENT, **keywords)


STATES = {
    "connecting": (full_backlog, downloading),
    "waiting": (lambda: listener(wait_for_ever), downloading),
    "reading": (lambda: listener(fall_silent_in_the_body), downloading),
    "backing off": (lambda: listener(fail_at_once), downloading),
    "waiting to upload": (lambda: listener(wait_for_ever), uploading),
    "sending": (lambda: listener(take_no_body), uploading),
}


@pytest.mark.parametrize("state", STATES)
def test_cancel_wakes_a_call_that_is(state, tmp_path):
    place, call = STATES[state]
    cancel = tk.Cancellation()
    with place() as (url, reached):
        ended: list[float] = []

        def trigger() -> None:
            reached.wait(10)
            time.sleep(0.1)
            ended.append(time.monotonic())
            cancel.cancel("the user has left")

        thread = threading.Thread(target=trigger)
        thread.start()
        with pytest.raises(tk.CancelledError, match="the user has left"):
            call(url, tmp_path / "d", cancel=cancel)
        took = time.monotonic() - ended[0]
        thread.join()
    # Not a measure of speed: the sockets above are silent for a minute, and time limits begin at ten seconds.
    assert took < 1.0


def test_a_cancellation_that_was_triggered_before_sends_nothing(registry, tmp_path):
    cancel = tk.Cancellation()
    cancel.cancel("too late")

    with pytest.raises(tk.CancelledError, match="too late"):
        tk.download([tk.Blob(DIGEST, 5)], tmp_path, base_url=registry.url, repository="a/b", cancel=cancel)

    assert 0 == len(registry.log)


CHILD = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import transferkit as tk
from test_cancellation import downloading, uploading
try:
    {call}({url!r}, pathlib.Path({folder!r}))
except KeyboardInterrupt:
    import threading
    print("interrupted", threading.active_count())
"""


@pytest.mark.parametrize("state", STATES)
def test_ctrl_c_ends_a_process_that_is(state, tmp_path):
    place, call = STATES[state]
    with place() as (url, reached):
        code = CHILD.format(tests=os.path.dirname(__file__), call=call.__name__, url=url, folder=str(tmp_path / "d"))
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert reached.wait(20)
        if state == "connecting":
            time.sleep(1.5)  # the queue is full from the start: the child must have come to it
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        try:
            printed, _ = child.communicate(timeout=20)
        finally:
            child.kill()  # where it did not end
        took = time.monotonic() - began

    assert "interrupted 1\n" == printed
    assert took < 2.5  # the call ends in under a second; the rest is the end of the interpreter


def test_two_calls_share_a_cancellation(tmp_path):
    cancel = tk.Cancellation()
    errors = []
    with listener(wait_for_ever) as (url, reached):

        def call(folder) -> None:
            try:
                downloading(url, folder, cancel=cancel)
            except tk.CancelledError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=call, args=(tmp_path / name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        reached.wait(10)
        time.sleep(0.1)
        cancel.cancel("both")
        for thread in threads:
            thread.join(5)

    assert ["both", "both"] == errors


def test_a_second_run_finishes_the_job(registry, make_blobs, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "source", [100_000] * 50)
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository="a/b")
    cancel = tk.Cancellation()

    def stop(completed: int, total: int) -> None:
        if completed > total // 3:
            cancel.cancel()

    with pytest.raises(tk.CancelledError):
        tk.download(
            blobs,
            tmp_path / "d",
            base_url=registry.url,
            repository="a/b",
            concurrency=2,
            progress=stop,
            cancel=cancel,
            options=tk.TransferOptions(progress_interval=0.0005, max_bandwidth=10e6),
        )
    report = tk.download(blobs, tmp_path / "d", base_url=registry.url, repository="a/b")

    assert 0 < report.skipped < 50
    assert_exactly(tmp_path / "d", blobs)
