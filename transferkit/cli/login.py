"""The commands login and logout: a password comes in by a prompt or by standard input, and never as an argument."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from transferkit.cli.connecting import Connection, connection_options
from transferkit.cli.output import Output
from transferkit.cli.program import Command
from transferkit.cli.settings import Settings

_LONGEST = 64 * 1024  # bytes of a password
# What is asked before Docker's file.
_FIRST = ("TRANSFERKIT_TOKEN", "TRANSFERKIT_USERNAME", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE")


def _refused(_: click.Context, __: click.Parameter, given: str | None) -> None:
    if given is not None:
        raise click.UsageError("a password on the command line is seen by others: pipe it in, with --password-stdin")


@click.command(cls=Command, short_help="Keep a user name and a password for a registry.")
@click.argument("host")
@click.option("-u", "--username", metavar="NAME", help="Else it is asked for.")
@click.option("-p", "--password", hidden=True, callback=_refused, expose_value=False, help="No: others would see it.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input; else it is asked for.")
@connection_options
@click.pass_obj
def login(settings: Settings, /, host: str, username: str | None, password_stdin: bool, **options: Any) -> None:
    """Keep a user name and a password for a registry, once the registry has accepted them.

    They are kept where Docker's client keeps them: by the credential helper that its config.json names, else in that
    file (DOCKER_CONFIG, or ~/.docker). HOST is host or host:port; docker.io is Docker Hub.
    """
    from transferkit.errors import ProtocolError, UnauthorizedError
    from transferkit.registry.reaching import reference_of
    from transferkit.transport.docker_config import DockerConfig

    output, config, reference = Output(settings), DockerConfig(), reference_of(host)
    config.helper(host)  # before anybody types a password: a file that cannot be read is said now
    user, password = _asked(username, password_stdin=password_stdin)
    if not user or ":" in user:
        raise click.UsageError("a user name has no colon, and is not empty")
    with Connection(**options, is_quick=True).registry(settings, str(reference), auth=(user, password)) as registry:
        try:
            answered = registry.ping(host)
        except UnauthorizedError as error:
            text = f"{reference.name.host} did not accept the user name and password, and nothing was kept: {error}"
            raise UnauthorizedError(text, url=error.url, status=error.status) from error
    if answered.is_page:
        raise ProtocolError(
            f"{answered.url}/v2/ answered with a page for people: it is no registry, or a proxy wants a login first;"
            " nothing was kept"
        )
    if answered.shown is False:
        raise UnauthorizedError(
            f"the token service {answered.realm} is on another host than {reference.name.host}, and was not shown the"
            f" password; nothing was kept. If it is the right one: --token-realm {answered.realm}",
            url=answered.url,
        )
    if answered.shown is None:
        output.note(f"warning: {reference.name.host} asked for no password, so nobody has checked this one")
    kept = config.store(host, user, password)
    output.record("login", None, host=reference.name.host, username=user, kept=kept)
    output.note(f"logged in to {reference.name.host} as {user}; kept in {kept}")
    for name in filter(os.environ.get, _FIRST):
        output.note(f"warning: {name} is set, and is asked before that")


@click.command(cls=Command, short_help="Forget what login has kept.")
@click.argument("host")
@click.pass_obj
def logout(settings: Settings, /, host: str) -> None:
    """Forget what login, or Docker's client, has kept for a registry."""
    from transferkit.errors import NotFoundError
    from transferkit.transport.docker_config import DockerConfig

    config = DockerConfig()
    if not config.erase(host):
        raise NotFoundError(f"there is nothing for {host} in {config.path}")
    Output(settings).record("logout", None, host=host)
    Output(settings).note(f"logged out of {host}")


def _asked(username: str | None, *, password_stdin: bool) -> tuple[str, str]:
    """Return user name and password. click.UsageError: nobody is there to be asked."""
    if password_stdin:
        if username is None:
            raise click.UsageError("--password-stdin goes with --username NAME")
        return username, _checked(_piped())
    if not is_terminal():
        raise click.UsageError("there is no terminal to ask for the password: pipe it in, with --password-stdin")
    if username is None:
        username = click.prompt("Username", err=True)
    return str(username), _checked(click.prompt("Password", hide_input=True, err=True))


def is_terminal() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def _piped() -> str:
    """Return what standard input has, without the line's end."""
    raw = b"" if sys.stdin is None else sys.stdin.buffer.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise click.UsageError("what is piped in is too long for a password")
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the password that is piped in is not UTF-8") from None


def _checked(password: str) -> str:
    if not password:
        raise click.UsageError("the password is empty")
    return password
