"""The server: which addresses it may listen on, and how it begins and ends.

A first SIGTERM or SIGINT ends it in order: running pulls are cancelled, and keep what they have. A second one kills.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from transferkit.cli.ending import SIGNALS, default_signals
from transferkit.errors import TransferKitError
from transferkit.options import RetryOptions, TransferOptions, TransportOptions
from transferkit.registry.registry import Registry
from transferkit.server.app import Application
from transferkit.server.guard import host_of, is_loopback
from transferkit.server.passwords import Passwords
from transferkit.server.serve import serving
from transferkit.server.upstream import Upstream, Upstreams
from transferkit.storage.cache import DiskCache
from transferkit.storage.default_cache import default_cache

GRACE = 2.0  # seconds in which clients hear how their requests have ended
# Where an upstream is down or silent, a mirror answers soon from its cache.
ASKING = TransferOptions(
    retry=RetryOptions(attempts=2, patience=0.5, max_retry_after=1.0, free_restarts=0),
    transport=TransportOptions(connect_timeout=3.0, response_timeout=5.0),
    stall_timeout=5.0,
)
# Bytes: what is smaller begins anew where it breaks off, and its readers are cut off.
RESUMED = 1024 * 1024
# Requests at the same time. A slow client has its thread for as long as its blob takes, and one that watches a pull for
# as long as that lasts: hundreds of them leave room for others. Threads come when they are needed; 300 took 13 MB.
THREADS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What the command was asked for."""

    host: str
    port: int
    store: Path | None
    no_sync: bool
    api: bool
    mirror: bool
    upstream: Sequence[str]
    cache: Path | None
    read_only: bool
    auth: str | None
    insecure_public: bool
    allow_host: Sequence[str]
    tls: tuple[str, str] | None

    @property
    def is_mirror(self) -> bool:
        return self.mirror or bool(self.upstream)

    @property
    def with_api(self) -> bool:
        """The API is what there is to serve where nobody said what."""
        return self.api or (self.store is None and not self.is_mirror)

    @property
    def models(self) -> Path:
        """Where models are kept."""
        return Path(default_cache()) if self.cache is None else self.cache


def run(asked: Serve, tell: Callable[..., object]) -> int:
    """Serve until a signal comes, and return the exit code; ``tell`` is told where, and of the end.

    click.UsageError: the address needs a word more.
    """
    check_address(asked.host, has_auth=asked.auth is not None, insecure=asked.insecure_public)
    if asked.upstream and asked.read_only:
        raise click.UsageError("--upstream pulls into the cache, and --read-only forbids it: choose one")
    if asked.is_mirror and asked.store is not None:
        raise click.UsageError("--registry is at /v2/, and so is --mirror or --upstream: choose one")
    for text in asked.upstream:
        check_upstream(text, asked.host, asked.port)
    passwords = None if asked.auth is None else Passwords.read(asked.auth)
    with ExitStack() as stack:
        wait = stack.enter_context(_signals())
        # The last to come is the first to go: pulls end, and tell their clients so, while there are connections.
        application = stack.enter_context(_application(stack, asked, passwords))
        url = _serve(stack, asked, application)
        tell(f"serving {_parts(asked)} on {url}", state="serving", url=url)
        for warning in _warnings(asked):
            click.echo(f"warning: {warning}", err=True)
        number = wait()
        tell("ending: running pulls keep what they have", state="ending", url=url)
        application.close()
    return 130 if number == signal.SIGINT else 0


def _application(stack: ExitStack, asked: Serve, passwords: Passwords | None) -> Application:
    """Make what is served; what it needs besides is closed after it."""
    cache = DiskCache(asked.cache, resume_threshold=RESUMED) if asked.upstream else DiskCache(asked.cache)
    registry = stack.enter_context(Registry(cache=cache)) if asked.with_api or asked.upstream else None
    upstreams = None
    if registry is not None and asked.upstream:
        asking = stack.enter_context(Registry(cache=cache, options=ASKING))
        upstreams = Upstreams(registry, asked.upstream, asking=asking)
    return Application(
        registry=registry if asked.with_api else None,
        store=asked.store,
        durable=not asked.no_sync,
        mirror=cache if asked.is_mirror else None,
        upstreams=upstreams,
        served=asked.host,
        hosts=asked.allow_host,
        passwords=passwords,
        read_only=asked.read_only,
    )


def _serve(stack: ExitStack, asked: Serve, application: Application) -> str:
    try:
        server = serving(application, host=asked.host, port=asked.port, threads=THREADS, tls=asked.tls, grace=GRACE)
        return stack.enter_context(server)
    except ssl.SSLError as error:
        files = " and ".join(asked.tls or ())
        raise TransferKitError(f"--tls: {files} are no certificate and its key, as PEM: {error.reason}") from error
    except OSError as error:
        if (
            asked.tls
            and error.errno in (errno.EACCES, errno.EPERM)
            and not all(os.access(p, os.R_OK) for p in asked.tls)
        ):
            raise TransferKitError(f"--tls: {' or '.join(asked.tls)} cannot be read: {error.strerror}") from error
        # Cheroot has the reason in a text of its own.
        why = error.strerror or ", ".join(re.findall(r"\[Errno \d+\] ([^)]*)", str(error))) or error
        text = f"{asked.host}:{asked.port} is not to be had: {why}; --port takes another one"
        raise TransferKitError(text) from error


def check_address(host: str, *, has_auth: bool, insecure: bool) -> None:
    """Hold an address that others can reach against what makes that a decision. click.UsageError: nothing does."""
    if not is_loopback(host) and not has_auth and not insecure:
        raise click.UsageError(
            f"{host} can be reached from other machines, and whoever reaches it may pull, push and delete."
            " Give --auth USER:FILE to ask for a password, or --insecure-public to let everybody in."
        )


def check_upstream(text: str, host: str, port: int) -> None:
    """Hold an upstream against what it may be. click.UsageError: it is none, or the server that it is for."""
    try:
        upstream = Upstream.parse(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    its_host = host_of(upstream.host) or ""
    if upstream.host.endswith(f":{port}") and (its_host == host or is_loopback(its_host)):
        raise click.UsageError(f"{upstream.host} is this server itself; --upstream is another registry")


def _parts(asked: Serve) -> str:
    parts = [f"models of {asked.models}"] if asked.with_api else []
    parts += [f"a mirror of {', '.join(asked.upstream) or asked.models}"] if asked.is_mirror else []
    parts += [] if asked.store is None else [f"a registry over {asked.store}"]
    return " and ".join(parts) + (", read-only," if asked.read_only else "")


def _warnings(asked: Serve) -> Iterator[str]:
    if is_loopback(asked.host):
        return
    if asked.auth is None:
        yield "everybody who reaches this address may " + ("read" if asked.read_only else "pull, push and delete")
    elif asked.tls is None:
        yield "passwords go over the network in the clear; --tls CERTIFICATE KEY protects them"


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Give a function that waits for a signal to end and returns its number; a second one is not caught."""
    reader, writer = os.pipe()
    always = (signal.SIGTERM, signal.SIGINT)  # also in the background of a script
    wanted = [each for each in SIGNALS if each in always or signal.getsignal(each) is not signal.SIG_IGN]

    def caught(number: int, _: object) -> None:
        default_signals()
        os.write(writer, bytes([number]))

    before = [signal.signal(each, caught) for each in wanted]
    try:
        yield lambda: os.read(reader, 1)[0]
    finally:
        for each, handler in zip(wanted, before, strict=True):
            signal.signal(each, handler)
        os.close(reader)
        os.close(writer)
