"""Options: every setting of a call, with its unit, its default and the reason for it.

Frozen, so that a set of options can be shared by threads and calls. A keyword of a call beats the option of the same
name. Knows no other module of the library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any

from transferkit._version import __version__

MIB = 1024 * 1024
USER_AGENT = f"transferkit/{__version__}"
OLLAMA_AGENT = "ollama/0.13.0"  # the release whose dialect is spoken to Ollama's registry
MOST = 7 * 24 * 3600  # seconds of a time limit: what the system can be asked for ends somewhere


def _check(options: object, rule: str, holds: Callable[[Any], bool], *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        what = f"{type(options).__name__}.{name} is {rule}"
        try:
            is_right = holds(value)
        except TypeError:  # a text for a number, a fraction for a count
            kind = type(options).__annotations__[name]
            raise TypeError(f"{what} ({kind}), not {value!r}") from None
        if not is_right:
            raise ValueError(f"{what}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """When a failed operation is tried again, and when it is given up.

    A unit of work is given up when ``attempts`` attempts in a row brought no new byte *and* ``patience`` seconds have
    passed since the last one. Between attempts it waits ``n*n`` * 10 ms, at most ``max_wait`` seconds, times a random
    factor in [0.5, 1.5). Failures at the host's limit do not count while other blobs of the call move on.
    """

    attempts: int = 6
    patience: float = 30.0
    max_wait: float = 5.0
    max_retry_after: float = 300.0
    """The longest ``Retry-After`` (seconds) that is waited for; a longer one fails at once and says the time."""
    free_restarts: int = 3
    """Stalls, and slow cuts, of a unit that do not count as attempts."""

    def __post_init__(self) -> None:
        _check(self, "at least 1", lambda n: index(n) >= 1, "attempts")
        _check(self, "at least 0", lambda n: index(n) >= 0, "free_restarts")
        _check(self, "at least 0", lambda n: n >= 0, "patience", "max_wait", "max_retry_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """How connections are made, and how long a silent peer is waited for (seconds). Nothing limits the total time."""

    connect_timeout: float = 10.0
    response_timeout: float = 60.0
    """From the end of the request to the head of the answer."""
    commit_timeout: float = 900.0
    """The same for the request that ends an upload: some registries hash 80 GB before they answer."""
    token_realms: frozenset[str] = frozenset()
    """Token services (``host`` or ``host:port``), not on the registry's host, that may see user name and password."""
    storage_hosts: frozenset[str] = frozenset()
    """Hosts (``host`` or ``host:port``) with private addresses that a registry elsewhere may redirect to."""
    ollama_hosts: frozenset[str] = frozenset()
    """Registries (``host`` or ``host:port``) that speak Ollama's dialect, besides ollama.ai and ollama.com."""
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        timeouts = ("connect_timeout", "response_timeout", "commit_timeout")
        hosts = ("token_realms", "storage_hosts", "ollama_hosts")
        _check(self, f"more than 0 and at most {MOST} seconds", lambda n: 0 < n <= MOST, *timeouts)
        _check(self, "one line", lambda text: "\r" not in text and "\n" not in text, "user_agent")
        _check(self, "a set of hosts", lambda value: not isinstance(value, str) and all(map(str.lower, value)), *hosts)
        for name in hosts:
            object.__setattr__(self, name, frozenset(host.lower() for host in getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """How one registry is reached, as a value of ``hosts``: each holds for that host alone.

    Where a session or the environment says something else, this counts.

    >>> mirrored = HostOptions(mirrors=("https://mirror.example.com",))
    >>> hosts = {"registry.example.com": mirrored}
    """

    ca_bundle: str | None = None
    """A file, or a folder, with the certificates of the authorities that its own certificate is held to."""
    client_cert: str | tuple[str, str] | None = None
    """A client certificate with its key: one file in PEM format, or two."""
    insecure: bool = False
    """Take whatever certificate it shows."""
    scheme: str | None = None
    """``http`` or ``https``, where a name has none. By default ``https``; of this machine, what answers."""
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    """Proxies by scheme, as ``requests`` has them; an empty mapping for none."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Header fields of each request to it."""
    ollama_key: str | None = None
    """The private key (a file in OpenSSH's format) that its token service knows. Ollama's own registry is shown
    ``~/.ollama/id_ed25519`` by default."""
    mirrors: tuple[str, ...] = ()
    """Base URLs of registries with the same repositories, asked before it, in this order. They need not be trusted."""

    def __post_init__(self) -> None:
        _check(self, "http, https or None", lambda value: value in (None, "http", "https"), "scheme")
        _check(self, "a tuple of URLs", lambda value: not isinstance(value, str), "mirrors")
        object.__setattr__(self, "mirrors", tuple(self.mirrors))
        paths = (self.ca_bundle, self.ollama_key, *_pair(self.client_cert))
        if not all(path is None or isinstance(path, (str, os.PathLike)) for path in paths):
            raise TypeError("HostOptions.ca_bundle, client_cert and ollama_key are paths of files")
        for name, text in self.headers.items():
            if any(c in f"{name}{text}" for c in "\r\n\0") or not name:
                raise ValueError("HostOptions.headers are names and texts of one line each")


def _pair(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def check_hosts(hosts: Mapping[str, HostOptions] | None) -> dict[str, HostOptions]:
    """Return what holds for single hosts, by their names in lower case.

    Raises:
        TypeError: it is no mapping, or has something else than ``HostOptions``.
        ValueError: a name is a URL, and no ``host`` or ``host:port``.
    """
    if not isinstance(hosts or {}, Mapping):
        raise TypeError(f"hosts maps hosts to HostOptions, and is no {type(hosts).__name__}")
    for host, given in (hosts or {}).items():
        if not isinstance(host, str) or not isinstance(given, HostOptions):
            raise TypeError(f"hosts maps hosts to HostOptions; {host!r} has {type(given).__name__}")
        if "/" in host or not host:
            raise ValueError(f"hosts are named host or host:port, without scheme and path, not {host[:200]!r}")
    return {host.lower(): given for host, given in (hosts or {}).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How a transfer runs. Sizes are in bytes, times in seconds.

    >>> TransferOptions(concurrency=8).retry.attempts
    6
    """

    concurrency: int | None = None
    """A ceiling for blobs under way at once; by default 64 down and 32 up."""
    body_concurrency: int | None = None
    """A ceiling for bodies that move at once; by default that of the blobs."""
    max_bandwidth: float | None = None
    """Bytes a second, shared by all threads of the call and both directions; by default no limit."""
    chunk_threshold: int = 16 * MIB
    """Blobs larger than this are fetched in chunks, in parallel, where the registry honours ranges."""
    chunk_size: int | None = None
    """Size of these chunks; by default the next power of two after a 500th of the blob, 8 to 64 MiB, and on a fast link
    what comes in a quarter of a second where that is more."""
    part_size: int | None = None
    """Larger blobs are uploaded in parts of this size (bytes, at least 1 MiB); by default in one request, unless the
    registry refuses that."""
    resume_threshold: int = 16 * MIB
    """Blobs of this size and more keep what has arrived when a transfer is interrupted; so do those in chunks."""
    stall_timeout: float = 10.0
    """A body that is silent for this long is cut and continued on a new connection."""
    cut_slow: bool = True
    """Cut also what is far behind its siblings, and at the end, when a worker has nothing to do, what is late.
    ``False`` is for a peer that waits for its bytes itself, such as a mirror that still receives what it sends."""
    progress_interval: float = 0.1
    """The least time between two calls of ``progress``."""
    rehash_existing: bool = False
    """Hash what is already in the destination, and files that are pushed, also where an earlier run is remembered to
    have done that."""
    durable: bool = False
    """``fsync`` each blob before it gets its name, and the folder after."""
    unpack_ratio: float = 100.0
    """A packed layer of a model may unpack to so many times its size, and always to 64 MiB; more is refused."""
    retry: RetryOptions = field(default_factory=RetryOptions)
    transport: TransportOptions = field(default_factory=TransportOptions)

    def __post_init__(self) -> None:
        optional, sizes = ("body_concurrency", "chunk_size"), ("chunk_threshold", "resume_threshold")
        _check(self, "between 1 and 1024", lambda n: n is None or 1 <= index(n) <= 1024, "concurrency")
        _check(self, "at least 1", lambda n: n is None or index(n) >= 1, *optional)
        _check(self, "at least 1 byte a second", lambda n: n is None or n >= 1, "max_bandwidth")
        _check(self, "at least 1 MiB", lambda n: n is None or index(n) >= MIB, "part_size")
        _check(self, "at least 0", lambda n: index(n) >= 0, *sizes)
        _check(self, f"between 0 and {MOST} seconds", lambda n: 0 <= n <= MOST, "progress_interval")
        _check(self, "more than 0 seconds", lambda n: n > 0, "stall_timeout")
        _check(self, "at least 1", lambda n: n >= 1, "unpack_ratio")
        for name, kind in (("retry", RetryOptions), ("transport", TransportOptions)):
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"TransferOptions.{name} is a {kind.__name__}, not {type(value).__name__}")
