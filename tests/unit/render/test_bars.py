"""Bars on a terminal, lines in a log."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest

from transferkit.render.bars import plain_lines, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_five_seconds_and_one_at_the_end():
    now = [0.0]
    stream = io.StringIO()
    show = plain_lines("pull", stream, clock=lambda: now[0])

    for time, completed in [(0.0, 0), (1.0, 100), (4.9, 400), (5.0, 500), (5.1, 600), (6.0, 1024), (20.0, 1024)]:
        now[0] = time
        show(completed, 1024)

    assert [
        "pull: 0 B of 1.0 KiB (0 %)",
        "pull: 500 B of 1.0 KiB (48 %)",
        "pull: 1.0 KiB of 1.0 KiB (100 %)",
    ] == stream.getvalue().splitlines()


def test_nothing_to_move_is_done_at_once():
    stream = io.StringIO()
    plain_lines("pull", stream)(0, 0)

    assert "pull: 0 B of 0 B (100 %)\n" == stream.getvalue()


def test_a_terminal_gets_a_bar_that_can_go_back():
    stream = Terminal()
    with progress_bar("push", 2048, stream=stream) as progress:
        progress(1024, 2048)
        progress(512, 2048)
        progress(2048, 2048)

    assert "push" in stream.getvalue()
    assert "100%" in stream.getvalue()
    assert "2.00k/2.00k" in stream.getvalue()


@pytest.mark.parametrize(("config", "bar"), [({"IPKernelApp": {}}, True), ({"TerminalIPythonApp": {}}, False)])
def test_a_notebook_gets_a_bar_although_it_is_no_terminal(config, bar, monkeypatch):
    """As ``ipykernel`` has it: streams that are no terminals, and a shell whose configuration names the kernel."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(config=config)
    stream = io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("pull", 2048) as progress:
        progress(2048, 2048)
    assert bar == ("2.00k/2.00k" in stream.getvalue())


def test_a_file_gets_lines():
    stream = io.StringIO()
    with progress_bar("push", 10, stream=stream) as progress:
        progress(10, 10)

    assert "push: 10 B of 10 B (100 %)\n" == stream.getvalue()
