"""How shells are answered that ask for completions: commands, options, and the names of models in the cache."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, ShellComplete, get_completion_class
from click.shell_completion import split_arg_string as split

from transferkit.cli.output import emit

PROGRAM = "transferkit"
VARIABLE = "_TRANSFERKIT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


class ColonBash(BashComplete):
    """Bash takes a colon for the end of a word, and names of models have one: the line itself is read here.

    What a completion has before its last colon stands on the line already, and is taken off for bash.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' reply
    reply=$(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" %(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for each in $reply; do
        case "${each%%%%,*}" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${each#*,}") ;;
        esac
    done
    return 0
}
%(complete_func)s_setup() { complete -o nosort -F %(complete_func)s %(prog_name)s; }
%(complete_func)s_setup;
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE", "")
        words = split(line)[1:]
        if line.endswith(tuple(" \t")) or not words:
            return words, ""
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        before = self.get_completion_args()[1].rpartition(":")
        done = len(before[0]) + len(before[1])
        return f"{item.type},{item.value[done:] if item.type == 'plain' else item.value}"


def shell_class(shell: str) -> type[ShellComplete]:
    """Return how a shell is spoken to."""
    found = get_completion_class(shell)
    assert found is not None
    return ColonBash if shell == "bash" else found


def source(program: click.Command, shell: str) -> str:
    """Return what a shell is to read."""
    complete = shell_class(shell)(program, {}, PROGRAM, VARIABLE)
    return complete.source_template % complete.source_vars()


def complete(program: click.Command, context: dict[str, Any]) -> int | None:
    """Write what a shell asks for by its variable, and return the exit code; ``None``: it asks for nothing."""
    shell, _, what = os.environ.get(VARIABLE, "").partition("_")
    if shell not in SHELLS or what != "complete":
        return None
    emit(shell_class(shell)(program, context, PROGRAM, VARIABLE).complete())
    return 0
