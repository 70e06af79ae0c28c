"""What else a terminal shows while bars are drawn: warnings go above them, and the ^C of an interrupt behind.

And a terminal that does not know how large it is.
"""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import threading
import time

import pytest

import transferkit as tk
from transferkit.cli.logs import logged
from transferkit.cli.settings import Settings
from transferkit.render.bars import Bars
from transferkit.render.screen import width_of

LOGGER = logging.getLogger("transferkit.transfer")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a standard error stream that is a terminal, in a program that has set up no logging.

    This is no fixture: pytest sets up its own stream and its own logging between fixtures and the test.
    """
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return terminal


def warned(terminal: Terminal) -> list[str]:
    """Warn from a worker while a bar stands, and return the lines from there on."""
    bars = Bars("model", 0, terminal)
    begin = len(terminal.getvalue())
    worker = threading.Thread(target=LOGGER.warning, args=("waiting for %s", "example"))
    worker.start()
    worker.join()
    bars.status(tk.Status(completed=9, total=9, moved=9))
    bars.close()
    return [part.rstrip() for part in re.split(r"\r|\n|\x1b\[A", terminal.getvalue()[begin:]) if part.strip()]


def test_a_warning_stands_above_the_bar_where_nobody_has_set_up_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    first, again, *_, last = warned(terminal)
    assert "waiting for example" == first
    assert re.fullmatch("model +starting", again)
    assert last.startswith("model 100%")
    assert [] == logging.getLogger("transferkit").handlers


def test_the_command_writes_its_log_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with logged(Settings()):
        assert "warning: waiting for example" == warned(terminal)[0]
        assert 1 == terminal.getvalue().count("waiting for example")


def test_several_bars_tell_a_warning_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    other = Bars("other", 0, terminal)
    warned(terminal)
    LOGGER.warning("a second one")
    other.close()
    assert (1, 1) == tuple(terminal.getvalue().count(text) for text in ("waiting for example", "a second one"))
    assert [] == logging.getLogger("transferkit").handlers


def test_the_logging_of_the_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    log = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(log)])
    warned(terminal)
    assert ("waiting for example\n", 0) == (log.getvalue(), terminal.getvalue().count("waiting for example"))


def test_there_is_room_for_the_echo_of_an_interrupt_behind_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 100 > width_of(terminal_of(monkeypatch)) + len("^C")


def test_a_terminal_that_says_it_has_no_rows_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()  # its size is 0 by 0, as that of ``docker exec -t`` is at first
    os.set_blocking(leader, False)
    with os.fdopen(leader, "rb", buffering=0) as seen, os.fdopen(follower, "w") as stream:
        bars = Bars("model", 9, stream)
        said = b""
        for _ in range(500):  # a terminal hands on what it has, piece by piece
            said += seen.read(1000) or b""
            if b"model" in said:
                break
            time.sleep(0.01)
        assert b"model" in said, "it was shown before the end"
        bars.close()
