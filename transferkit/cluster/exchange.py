"""The other end of the lines to processes of this machine: one socket, and a thread for each piece that runs."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Any

from transferkit.cluster.lines import Message, PipeLine
from transferkit.thread_group import ThreadGroup

_WAITING = 128  # connections that nobody has accepted yet
_AGAIN = 0.05  # seconds until another thread is asked for


class PipeExchange:
    """Hears what pieces tell, and passes it to ``put``; ``("lost", number)`` where one goes without a word: its process
    has died. Thread-safe."""

    def __init__(self, put: Callable[[Message], object]) -> None:
        self._put = put
        self._key = os.urandom(32)
        self._listener = _listener(self._key)
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._lines = ThreadGroup("transferkit-line")
        self._is_cancelled = self._is_closed = False
        self.line = PipeLine(self._listener.address, self._key)
        self._thread = threading.Thread(target=self._accept, name="transferkit-exchange", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection = self._listener.accept()
            except (EOFError, AuthenticationError, ConnectionError):
                continue
            except OSError:  # closed
                return
            with self._lock:
                if self._is_closed:
                    connection.close()
                    return
                self._open.add(connection)
                if self._is_cancelled:
                    _say(connection, b"cancel")
            self._listen_to(connection)

    def _listen_to(self, connection: Connection[Any, Any]) -> None:
        while not self._is_closed:
            try:
                self._lines.start(self._hear, connection)
                return
            except RuntimeError:  # the system has no thread left, until another one ends
                time.sleep(_AGAIN)
        connection.close()

    def _hear(self, connection: Connection[Any, Any]) -> None:
        number = None
        try:
            while True:
                message = pickle.loads(connection.recv_bytes())  # noqa: S301 - of a process of our own: it has the key
                number = message[1]
                if message[0] == "ended":
                    _say(connection, b"heard")
                    return
                self._put(message)
        except (OSError, EOFError):
            if number is not None and not self._is_closed:
                self._put(("lost", number))
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()

    def cancel(self) -> None:
        """End all pieces, those that begin from now on too."""
        with self._lock:
            self._is_cancelled = True
            for connection in self._open:
                _say(connection, b"cancel")

    def close(self) -> None:
        """Let go of the socket, of the lines, and of the threads that listen."""
        with self._lock:
            self._is_closed = True
            for connection in self._open:
                _say(connection, b"cancel")  # who is still there has nobody to tell
                _shut(connection)
        _knock(self._listener.address)  # wakes the thread that accepts
        self._thread.join(5.0)
        self._listener.close()
        self._lines.join(5.0)


def _listener(key: bytes) -> Listener:
    """Return a socket that only this user can open; a local port, where the path of the temporary folder is too long.

    Who has not the key is not heard on either.
    """
    try:
        return Listener(None, backlog=_WAITING, authkey=key)
    except OSError:
        return Listener(("127.0.0.1", 0), backlog=_WAITING, authkey=key)


def _knock(address: Any) -> None:
    """Connect, and say nothing: who waits for an answer waits for ever where nobody accepts any more."""
    import socket

    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock,
    ):
        sock.settimeout(1.0)
        sock.connect(address)


def _say(connection: Any, word: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        connection.send_bytes(word)


def _shut(connection: Any) -> None:
    """Wake the thread that reads from a connection: to close its descriptor would not."""
    import socket

    with contextlib.suppress(OSError, ValueError):
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
