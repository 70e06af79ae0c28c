"""The options of commands that speak to registries, and the client that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from transferkit.cli.settings import Settings
from transferkit.cli.types import DURATION, PAIR, PLATFORM, SIZE, SOME_TIME

if TYPE_CHECKING:
    from transferkit.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

platform_option = click.option(
    "--platform", type=PLATFORM, metavar="OS/ARCH", help='Of an index: which one, or "all". Default: this machine\'s.'
)
only_option = click.option("--only", multiple=True, metavar="GLOB", help="Only files like this. May be repeated.")
exclude_option = click.option("--exclude", multiple=True, metavar="GLOB", help="No files like this. May be repeated.")
annotation_option = click.option(
    "--annotation",
    "annotations",
    multiple=True,
    type=PAIR,
    metavar="KEY=VALUE",
    help="Of the manifest. Repeatable.",
)

_SOON = 5.0  # seconds

_CONNECTION = (
    click.option("--insecure", is_flag=True, help="Take whatever certificate the registry shows."),
    click.option("--plain-http", is_flag=True, help="Speak http to the registry. On this machine that is found out."),
    click.option(
        "--ca-bundle",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="The authorities that its certificate is held to: a file, or a folder.",
    ),
    click.option(
        "--token-realm", multiple=True, metavar="HOST", help="A token service elsewhere that may see the password."
    ),
)
_TRANSFER = (
    click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N", help="Blobs under way at once, at most."),
    click.option("--bandwidth", type=SIZE, metavar="SIZE", help="Bytes a second, at most: 500K, 20M."),
    click.option("--patience", type=DURATION, metavar="TIME", help="Failures without a new byte are final after it."),
    click.option("--stall-timeout", type=SOME_TIME, metavar="TIME", help="A body that is silent so long is cut."),
)
_OFFLINE = click.option("--offline", is_flag=True, help="Send no request: what the cache has is all there is.")


def connection_options(command: F) -> F:
    """Add the options that say how a registry is reached."""
    return _added(command, *_CONNECTION)


def transfer_options(command: F) -> F:
    """Add those, and the ones that say how content is moved."""
    return _added(command, *_CONNECTION, *_TRANSFER)


def reading_options(command: F) -> F:
    """Add those of a command that the cache alone may answer."""
    return _added(command, *_CONNECTION, _OFFLINE)


def fetching_options(command: F) -> F:
    """Add all of them."""
    return _added(command, *_CONNECTION, *_TRANSFER, _OFFLINE)


def _added(command: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The values of these options."""

    insecure: bool = False
    plain_http: bool = False
    ca_bundle: Path | None = None
    token_realm: tuple[str, ...] = ()
    concurrency: int | None = None
    bandwidth: int | None = None
    patience: float | None = None
    stall_timeout: float | None = None
    offline: bool = False
    is_quick: bool = False
    """Whether somebody waits for one answer, and a registry that is down should be said soon."""

    def keywords(self, *names: str) -> dict[str, Any]:
        """Return the keywords of a client for what the command line names, but for its cache.

        InvalidNameError: one of them is no name.
        """
        from transferkit.options import HostOptions, RetryOptions, TransferOptions, TransportOptions

        scheme = "http" if self.plain_http else None
        bundle = None if self.ca_bundle is None else str(self.ca_bundle)
        host = HostOptions(insecure=self.insecure, scheme=scheme, ca_bundle=bundle)
        transport = TransportOptions(token_realms=frozenset(self.token_realm))
        options = TransferOptions(concurrency=self.concurrency, max_bandwidth=self.bandwidth, transport=transport)
        if self.stall_timeout is not None:
            options = replace(options, stall_timeout=self.stall_timeout)
        if self.patience is not None:
            options = replace(options, retry=RetryOptions(patience=self.patience))
        if self.is_quick:
            transport = replace(transport, connect_timeout=_SOON, response_timeout=2 * _SOON)
            options = replace(options, transport=transport, retry=RetryOptions(attempts=2, patience=0.5))
        hosts = {} if host == HostOptions() else dict.fromkeys(map(host_of, names), host)
        return {"hosts": hosts, "options": options, "offline": self.offline or None}

    @contextmanager
    def registry(self, settings: Settings, *names: str, **more: Any) -> Iterator[Registry]:
        """Open the client for what the command line names. InvalidNameError: one of them is no name."""
        from transferkit.registry.registry import Registry

        with Registry(cache=settings.cache, **self.keywords(*names), **more) as registry:
            yield registry


def host_of(name: str) -> str:
    """Return the host that a name, or the word for a host, leads to."""
    from transferkit.names import Reference
    from transferkit.protocol.hub_name import is_hub_name

    if is_hub_name(name):
        return "huggingface.co"
    return Reference.parse(name).name.host
