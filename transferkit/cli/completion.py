"""The command completion: it writes what a shell is to read."""

from __future__ import annotations

import click

from transferkit.cli.completing import SHELLS, source
from transferkit.cli.output import emit
from transferkit.cli.program import Command


@click.command(cls=Command, short_help="Write what a shell needs for completion.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Write what a shell needs to complete commands, options and the names of models.

    \b
    bash: eval "$(transferkit completion bash)" in ~/.bashrc
    zsh:  eval "$(transferkit completion zsh)" in ~/.zshrc
    fish: transferkit completion fish > ~/.config/fish/completions/transferkit.fish
    """
    emit(source(context.find_root().command, shell))
