"""The command doctor: what is the matter with this machine, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click

from transferkit.cli.connecting import Connection, reading_options
from transferkit.cli.ending import described, scrubbed
from transferkit.cli.output import Output
from transferkit.cli.program import Command
from transferkit.cli.settings import Settings

if TYPE_CHECKING:
    from transferkit.content.finding import Finding

DEFAULT_HOST = "registry.ollama.ai"
_PACKAGES = ("transferkit", "requests", "urllib3")


@click.command(cls=Command, short_help="Look for what is wrong, and say what to do.")
@click.argument("host", required=False)
@reading_options
@click.pass_obj
def doctor(settings: Settings, /, host: str | None, **options: Any) -> None:
    """Look at the store, the disk, the network settings, the credentials and a registry, and say what to do.

    HOST is the registry to ask, by default registry.ollama.ai; with --offline none is. A warning may stop a transfer,
    a problem does: then the exit code is 1. No secret is shown.
    """
    worst = False
    output = Output(settings)
    for finding in _findings(settings, host or DEFAULT_HOST, Connection(**options, is_quick=True)):
        worst = worst or finding.level == "problem"
        if settings.quiet and finding.level in ("ok", "note"):
            continue
        fields = {name: getattr(finding, name) for name in ("level", "about", "text", "advice")}
        text = f"{finding.text}; {finding.advice}" if finding.advice else finding.text
        output.sentence("finding", (finding.level, finding.about), text, **fields)
    raise click.exceptions.Exit(1 if worst else 0)


def _findings(settings: Settings, host: str, connection: Connection) -> Iterator[Finding]:
    from transferkit.registry.reaching import reference_of
    from transferkit.storage.cache import DiskCache
    from transferkit.storage.checkup import check_store
    from transferkit.transport.checkup import check_credentials, check_network

    reference = reference_of(host)  # a word that is none ends it before anything is looked at
    yield _versions()
    with DiskCache(settings.cache) as cache:
        yield from check_store(cache)
    yield from check_network()
    yield from check_credentials()
    yield _registry(settings, host, str(reference), connection)


def _versions() -> Finding:
    from transferkit.content.finding import Finding

    found = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding(level="ok", about="versions", text=", ".join(found))


def _registry(settings: Settings, host: str, reference: str, connection: Connection) -> Finding:
    """Ask the registry, and turn what comes of it into a finding."""
    from transferkit.content.finding import Finding
    from transferkit.errors import DeniedError, TransferKitError, UnauthorizedError

    with connection.registry(settings, reference) as registry:
        if registry.offline:
            return Finding(level="note", about="registry", text=f"{host} was not asked: offline")
        try:
            answered = registry.ping(host)
        except (UnauthorizedError, DeniedError) as error:
            text = scrubbed(described(error)[0])
            advice = "" if "transferkit login" in text else f"transferkit login {host} keeps others"
            return Finding(level="warning", about="registry", text=text, advice=advice)
        except TransferKitError as error:
            return Finding(level="problem", about="registry", text=scrubbed(described(error)[0]))
    if answered.is_page:
        text = f"{answered.url}/v2/ answered with a page for people: it is no registry, or a proxy wants a login first"
        return Finding(level="warning", about="registry", text=text, advice="look at it with a browser")
    seen = {None: "it asks for no credentials", False: "as anybody", True: "with credentials that it accepts"}
    text = f"{answered.url} answered in {answered.seconds * 1000:.0f} ms; {seen[answered.shown]}"
    return Finding(level="ok", about="registry", text=text)
