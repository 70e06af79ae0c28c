"""The server: which addresses it may listen on, and how it begins and ends.

A first SIGTERM or SIGINT ends it in order: running pulls are cancelled, and keep what they have. A second one kills.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from transferkit.errors import TransferKitError
from transferkit.registry.registry import Registry
from transferkit.server.app import Application
from transferkit.server.guard import is_loopback
from transferkit.server.passwords import Passwords
from transferkit.server.serve import serving
from transferkit.storage.cache import DiskCache

GRACE = 2.0  # seconds in which clients hear how their requests have ended
# Requests at the same time. A slow client has its thread for as long as its blob takes, and one that watches a pull for
# as long as that lasts: hundreds of them leave room for others. Threads come when they are needed; 300 took 13 MB.
THREADS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What the command was asked for."""

    host: str
    port: int
    store: Path | None
    api: bool
    mirror: bool
    cache: Path | None
    read_only: bool
    auth: str | None
    insecure_public: bool
    allow_host: Sequence[str]
    tls: tuple[str, str] | None
    verbose: bool


def run(asked: Serve) -> int:
    """Serve until a signal comes, and return the exit code. click.UsageError: the address needs a word more."""
    check_address(asked.host, has_auth=asked.auth is not None, insecure=asked.insecure_public)
    if asked.mirror and asked.store is not None:
        raise click.UsageError("--registry and --mirror are both at /v2/: choose one")
    passwords = None if asked.auth is None else Passwords.read(asked.auth)
    with ExitStack() as stack:
        stack.enter_context(_logged(logging.INFO if asked.verbose else logging.WARNING))
        # The API is what there is to serve where nobody said what.
        cache = DiskCache(asked.cache)
        with_api = asked.api or (asked.store is None and not asked.mirror)
        registry = stack.enter_context(Registry(cache=cache)) if with_api else None
        wait = stack.enter_context(_signals())
        # The last to come is the first to go: pulls end, and tell their clients so, while there are connections.
        url, application = _start(stack, asked, registry, cache, passwords)
        click.echo(f"serving {_parts(asked, cache, with_api=with_api)} on {url}")
        for warning in _warnings(asked):
            click.echo(f"warning: {warning}", err=True)
        number = wait()
        click.echo("ending: running pulls keep what they have")
        application.close()
    return 130 if number == signal.SIGINT else 0


def _start(
    stack: ExitStack, asked: Serve, registry: Registry | None, cache: DiskCache, passwords: Passwords | None
) -> tuple[str, Application]:
    application = Application(
        registry=registry,
        store=asked.store,
        mirror=cache if asked.mirror else None,
        served=asked.host,
        hosts=asked.allow_host,
        passwords=passwords,
        read_only=asked.read_only,
    )
    stack.enter_context(application)
    try:
        server = serving(application, host=asked.host, port=asked.port, threads=THREADS, tls=asked.tls, grace=GRACE)
        return stack.enter_context(server), application
    except OSError as error:
        text = f"{asked.host}:{asked.port} is not to be had: {error.strerror or error}; --port takes another one"
        raise TransferKitError(text) from error


def check_address(host: str, *, has_auth: bool, insecure: bool) -> None:
    """Hold an address that others can reach against what makes that a decision. click.UsageError: nothing does."""
    if not is_loopback(host) and not has_auth and not insecure:
        raise click.UsageError(
            f"{host} can be reached from other machines, and whoever reaches it may pull, push and delete."
            " Give --auth USER:FILE to ask for a password, or --insecure-public to let everybody in."
        )


def _parts(asked: Serve, cache: DiskCache, *, with_api: bool) -> str:
    parts = [f"models of {cache.root}"] if with_api else []
    parts += [f"a mirror of {cache.root}"] if asked.mirror else []
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
def _logged(level: int) -> Iterator[None]:
    """Have the log on the standard error stream from a level on, and leave it as it was in the end."""
    logger, handler = logging.getLogger("transferkit"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Give a function that waits for SIGTERM or SIGINT and returns its number; a second one is not caught."""
    reader, writer = os.pipe()
    wanted = (signal.SIGTERM, signal.SIGINT)

    def caught(number: int, _: object) -> None:
        for each in wanted:
            signal.signal(each, signal.SIG_DFL)
        os.write(writer, bytes([number]))

    before = [signal.signal(each, caught) for each in wanted]
    try:
        yield lambda: os.read(reader, 1)[0]
    finally:
        for each, handler in zip(wanted, before, strict=True):
            signal.signal(each, handler)
        os.close(reader)
        os.close(writer)
