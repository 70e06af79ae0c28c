"""The command line: arguments, rendering and exit codes, nothing else.

Commands import what they need when they run: ``--help`` does not wait for an HTTP library.
"""

from __future__ import annotations

import click

from transferkit._version import __version__
from transferkit.cli import keeping, models, planning, pulling, pushing, servers
from transferkit.cli.program import Program


@click.group(cls=Program)
@click.version_option(__version__, prog_name="transferkit")
def main() -> None:
    """Move content-addressed data between registries and disk: fast, resumable, verified."""


for _command in (
    pulling.pull,
    pushing.push,
    pushing.copy,
    pulling.resolve,
    models.ls,
    models.show,
    models.tags,
    models.rm,
    planning.plan,
    keeping.verify,
    keeping.gc,
    keeping.partials,
    servers.serve,
    servers.demo,
):
    main.add_command(_command)
