"""The addresses of a host: in which order they are tried, which one answers first, and which one did last.

They are raced as RFC 8305 has it ("happy eyeballs"): the two families by turns, and the next address a quarter of a
second after the one before, or as soon as that has failed. Else an IPv6 that leads nowhere would cost each connection
its whole time limit.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

from transferkit.content.flow import Flow
from transferkit.errors import ProtocolError
from transferkit.protocol.addresses import kind_of
from transferkit.transport.sockets import WRITE, closed_on_error, new_poll

STAGGER = 0.25  # seconds between two attempts: the recommendation of RFC 8305, section 5
_SLICE = 0.1  # seconds between two looks at the flow: shutting a connecting socket down wakes it on Linux alone
_UNDER_WAY = (errno.EINPROGRESS, errno.EINTR, errno.EWOULDBLOCK)

Info = tuple[Any, Any, int, str, Any]  # as of getaddrinfo: family, type, protocol, name, address


class Addresses:
    """What is known of the addresses of one host. Thread-safe: each attribute changes in one step."""

    def __init__(self) -> None:
        self._found: list[Info] = []
        self._best: Any = None

    def resolve(self, host: str, port: int, family: int) -> list[Info]:
        """Return the addresses in the order in which they are to be tried: first the one that answered last."""
        try:
            self._found = _by_turns(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        except socket.gaierror:
            # The host had a name a moment ago. A resolver without a descriptor, too, says that there is no such name.
            if not self._found:
                raise
        return sorted(self._found, key=lambda info: bool(info[4] != self._best))

    def answered(self, info: Info) -> None:
        """Take in that this address has answered."""
        self._best = info[4]

    @property
    def is_known(self) -> bool:
        """Whether one has answered."""
        return self._best is not None

    @property
    def is_private(self) -> bool:
        """Whether the address that answered last is one that the public Internet does not route."""
        return self._best is not None and is_private(self._best)


def is_private(address: Any) -> bool:
    """Tell whether an address of ``getaddrinfo`` is one that the public Internet does not route."""
    return kind_of(str(address[0])) != "public"


def public_ones(host: str, infos: list[Info]) -> list[Info]:
    """Return the addresses of ``host`` that are public.

    Raises:
        ProtocolError: there is none; the message says which option allows the others.
    """
    found = [info for info in infos if not is_private(info[4])]
    if infos and not found:
        raise refused(host, infos[0][4])
    return found


def refused(host: str, address: Any) -> ProtocolError:
    """Return the refusal to connect to a private address where a public registry has led to a name."""
    return ProtocolError(
        f"a public registry sends us to {host}, which is at the private address {address[0]}; refused. If that is "
        f"right, allow it with TransportOptions(storage_hosts={{{host!r}}})"
    )


def _by_turns(found: Iterable[Any]) -> list[Info]:
    """Return addresses with the family of the first and the other one by turns, each once."""
    infos = list(dict.fromkeys(map(tuple, found)))
    first = [info for info in infos if info[0] == infos[0][0]]
    others = [info for info in infos if info[0] != infos[0][0]]
    return [info for pair in zip_longest(first, others) for info in pair if info is not None]


def race(
    infos: Iterable[Info], make: Callable[[Info], socket.socket], timeout: float, flow: Flow
) -> tuple[socket.socket, Info]:
    """Return a connected socket of those that ``make`` makes, with its address: the first one that answers.

    Raises:
        TimeoutError: none has answered in ``timeout`` seconds.
        OSError: each has refused; it is the last refusal.
    """
    waiting = deque(infos)
    running: dict[int, tuple[socket.socket, Info]] = {}
    poll, last = new_poll(), OSError("the host has no address")
    now = time.monotonic()
    deadline, due = now + timeout, now

    def begin(info: Info) -> None:
        sock = make(info)
        with closed_on_error(sock):
            sock.setblocking(False)
            error = sock.connect_ex(info[4])
            if error not in (0, *_UNDER_WAY):
                raise OSError(error, os.strerror(error))
            running[sock.fileno()] = sock, info
            poll.register(sock, WRITE)

    def won(descriptor: int) -> tuple[socket.socket, Info]:
        sock, info = running[descriptor]
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        del running[descriptor]
        sock.settimeout(timeout)
        return sock, info

    try:
        while waiting or running:
            flow.check()
            if waiting and (now >= due or not running):
                due = now + STAGGER
                try:
                    begin(waiting.popleft())
                except OSError as error:
                    last, due = error, now
                    continue
            pause = min(_SLICE, deadline - now, due - now if waiting else _SLICE)
            for descriptor, _ in poll.poll(max(0.0, pause * 1000)):
                try:
                    return won(descriptor)
                except OSError as error:
                    poll.unregister(descriptor)
                    running.pop(descriptor)[0].close()
                    last, due = error, now
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError(f"timed out after {timeout} s")
        raise last
    finally:
        del last  # its traceback refers to this frame
        for sock, _ in running.values():
            sock.close()
