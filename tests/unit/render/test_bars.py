"""Bars on a terminal, lines in a log, and streams that are neither."""

from __future__ import annotations

import io
import multiprocessing
import os
import pty
import re
import signal
import sys
import threading
from contextlib import suppress
from types import ModuleType, SimpleNamespace

import pytest

import transferkit as tk
from transferkit.render import screen
from transferkit.render.bars import LARGE, Bars, Lines, Shown, progress_bar, shown

BLOB = tk.Descriptor("sha256:" + 64 * "a", 4 * LARGE, annotations=(("org.opencontainers.image.title", "big.bin"),))
OTHER = tk.Descriptor("sha256:" + 64 * "b", 2 * LARGE)
SMALL = tk.Descriptor("sha256:" + 64 * "c", LARGE - 1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(shown: io.StringIO) -> list[str]:
    """Return what lines there were, one after the other, without what moves the cursor."""
    parts = re.split(r"\r|\n|\x1b\[A", shown.getvalue())
    return [part.rstrip() for part in parts if part.strip()]


# -- logs


def test_a_log_gets_a_line_every_five_seconds_and_one_at_the_end():
    clock, stream = Clock(), io.StringIO()
    lines = Lines("pull", 1024, stream, clock=clock)

    for time, completed in [(0.0, 0), (1.0, 100), (4.9, 400), (5.0, 500), (5.1, 600), (6.0, 1024), (20.0, 1024)]:
        clock.now = time
        lines.callback(completed, 1024)

    assert [
        "pull: 0 B of 1.0 KiB (0 %)",
        "pull: 500 B of 1.0 KiB (48 %), 100 B/s",
        "pull: 1.0 KiB of 1.0 KiB (100 %)",
    ] == stream.getvalue().splitlines()


def test_a_log_hears_what_is_waited_for_although_nothing_moves():
    clock, stream = Clock(), io.StringIO()
    lines = Lines("pull", 0, stream, clock=clock)
    for second in range(6):
        clock.now = float(second)
        lines.status(tk.Status(completed=512, total=1024, reason="rate limit", pause=30.0 - second))
    assert [
        "pull: 512 B of 1.0 KiB (50 %), waiting: rate limit, 31 s",
        "pull: 512 B of 1.0 KiB (50 %), waiting: rate limit, 26 s",
    ] == stream.getvalue().splitlines()


def test_a_file_gets_lines_and_nothing_to_move_is_done_at_once():
    stream = io.StringIO()
    with progress_bar("push", 0, stream=stream) as progress:
        progress(0, 0)
    assert "push: 0 B of 0 B (100 %)\n" == stream.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert type(shown("pull", 5, stream=Terminal())) is Lines


# -- terminals


def test_a_terminal_gets_a_bar_that_can_go_back():
    stream = Terminal()
    with progress_bar("push", 2048, stream=stream) as progress:
        progress(1024, 2048)
        progress(512, 2048)
        progress(2048, 2048)
    assert "push 100%" in lines_of(stream)[-1]
    assert lines_of(stream)[-1].endswith("2.0 KiB of 2.0 KiB")
    assert stream.getvalue().endswith("\n")


def drawn(*statuses: tk.Status, label: str = "m") -> list[str]:
    clock, stream = Clock(), Terminal()
    bars = Bars(label, 0, stream, clock=clock)
    for status in statuses:
        clock.now += 1.0
        bars.status(status)
    bars.close()
    return lines_of(stream)


def test_the_rate_is_of_what_is_moved_and_cached_bytes_stand_apart():
    half = tk.Status(completed=3 * LARGE, total=4 * LARGE, cached=2 * LARGE, moved=0)
    more = tk.Status(completed=3 * LARGE + 1048576, total=4 * LARGE, cached=2 * LARGE, moved=1048576)
    text = drawn(half, more)[-1]
    assert "49.0 MiB of 64.0 MiB, 1.0 MiB/s, 0:15 left, 32.0 MiB cached" in text


def test_what_is_waited_for_and_verification_have_their_names():
    waiting = tk.Status(completed=1, total=9, workers=2, waiting=2, reason="lock")
    assert "waiting: lock, 1 B of 9 B" in drawn(waiting)[-1]
    assert "verifying, 9 B of 9 B" in drawn(tk.Status(completed=9, total=9, workers=1, verifying=1))[-1]
    assert "hashing, 1 B of 9 B" in drawn(tk.Status(completed=1, total=9, workers=1, doing="hashing"))[-1]


def test_the_largest_blobs_that_are_under_way_have_bars_which_go_when_they_are_done():
    status = tk.Status(completed=LARGE, total=8 * LARGE, blobs=((BLOB, LARGE), (OTHER, 0), (SMALL, 5)))
    lines = drawn(status, tk.Status(completed=8 * LARGE, total=8 * LARGE))
    assert any(re.match(r"  big.bin +25%", line) for line in lines)
    assert any(line.startswith("  sha256:bbbbbbbbbbbb   0%") for line in lines)
    assert not any("cccc" in line for line in lines)
    assert lines[-1].startswith("m 100%")


def test_no_more_than_four_blobs_have_a_bar():
    blobs = tuple((tk.Descriptor(f"sha256:{number:064x}", LARGE), 0) for number in range(1, 9))
    clock, stream = Clock(), Terminal()
    bars = Bars("m", 0, stream, clock=clock)
    clock.now = 1.0
    bars.status(tk.Status(completed=1, total=9, blobs=blobs))
    assert 5 == len(bars._lines)
    bars.close()


@pytest.mark.parametrize("width", [0, 1, 2, 3, 5, 8, 13, 20, 40])
def test_a_line_never_wraps(width, monkeypatch):
    monkeypatch.setattr("transferkit.render.bars.width_of", lambda _: width)
    status = tk.Status(
        completed=LARGE, total=8 * LARGE, cached=5, reason="rate limit", pause=9.0, blobs=((BLOB, LARGE),)
    )
    lines = drawn(status, label="a-name-that-is-long\N{CJK UNIFIED IDEOGRAPH-6A21}" * 3)
    assert all(len(line) <= width for line in lines)


def test_no_name_moves_the_cursor_and_another_encoding_gets_other_signs():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream.isatty = lambda: True
    bars = shown("x\x1b[2J", 4, stream=stream)
    bars.callback(3, 4)
    bars.close()
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert "x?[2J  75% ####" in text
    assert "\x1b[2J" not in text


def test_two_sets_of_bars_stand_below_each_other():
    stream = Terminal()
    clock = Clock()
    one, two = Bars("one", 0, stream, clock=clock), Bars("two", 0, stream, clock=clock)
    for bars in (one, two):
        clock.now += 1.0
        bars.status(tk.Status(completed=1, total=9, blobs=((BLOB, 0),)))
    assert 4 == len({line.pos for bars in (one, two) for line in bars._lines})
    one.close()
    two.close()
    last = [line for line in stream.getvalue().split("\n") if "B of 9 B" in line]
    assert any("one" in line for line in last)
    assert any("two" in line for line in last)


def test_sets_of_bars_in_many_threads():
    stream = Terminal()

    def call(name: str) -> None:
        bars = shown(name, 9, stream=stream)
        for completed in range(10):
            bars.status(tk.Status(completed=completed, total=9, blobs=((BLOB, completed),)))
        bars.close()

    threads = [threading.Thread(target=call, args=(f"call-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"call-{number} 100%" in stream.getvalue() for number in range(8))


# -- nowhere to draw


class Broken(Terminal):
    """A terminal that goes away."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self.error, self.left = error, after

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("after", [0, 1, 5, 12])
@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "gone"), OSError(9, "bad"), ValueError("closed"), RuntimeError("?")]
)
def test_a_stream_that_breaks_ends_the_bars_and_nothing_else(error, after):
    clock = Clock()
    bars = Bars("m", 0, Broken(error, after), clock=clock)
    for completed in range(5):
        clock.now += 1.0
        bars.status(tk.Status(completed=completed, total=9, blobs=((BLOB, completed),)))
    bars.close()
    again = Terminal()
    with progress_bar("next", 4, stream=again) as progress:
        progress(4, 4)
    assert lines_of(again)[-1].startswith("next 100%")
    others: list[bool] = []  # what a thread sees that is not the one which drew
    other = threading.Thread(target=lambda: others.append(screen.line_class()._lock._lock.acquire(blocking=False)))
    other.start()
    other.join()
    screen.line_class()._lock.forget()
    assert [True] == others


def test_lines_stop_at_a_stream_that_breaks():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "gone")

    lines = Lines("m", 9, Gone())
    for completed in range(10):
        lines.callback(completed, 9)
    lines.close()


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class NoStream:
    """Something in the place of a stream that has nothing of one."""


@pytest.mark.parametrize("stream", [None, closed(), NoStream()])
def test_without_a_standard_error_stream_nothing_is_shown(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("pull", 9) as progress:
        progress(4, 9)
        progress(9, 9)
    assert (type(shown("pull", 9)) is Shown) is (stream is None)


def test_a_closed_descriptor_is_no_error():
    leader, follower = pty.openpty()
    stream = io.TextIOWrapper(io.FileIO(follower, "w", closefd=False))
    bars = shown("m", 9, stream=stream)
    assert type(bars) is Bars
    os.close(follower)
    os.close(leader)
    bars.callback(9, 9)
    bars.close()
    with suppress(OSError):
        stream.close()


def test_an_interrupt_in_the_middle_of_drawing_stops_no_other_bar():
    lock = screen.Lock(0.01)
    thread = threading.Thread(target=lock.acquire)  # and never releases it
    thread.start()
    thread.join()
    lock.acquire()
    lock.release()
    lock.release()


def test_a_child_of_a_fork_draws_its_own_bars_although_its_parent_was_drawing():
    kind_drawn = shown("parent", 9, stream=Terminal())
    kind = screen.line_class()
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with kind._lock:
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(20)
            stream = Terminal()
            with progress_bar("child", 9, stream=stream) as progress:
                progress(9, 9)
            lines = lines_of(stream)
            status = 0 if lines[-1].startswith("child 100%") and stream.getvalue().count("\n") == 1 else 2
        finally:
            os._exit(status)
    go.set()
    thread.join()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kind_drawn.close()


def test_drawing_settles_nothing_for_the_processes_of_the_user():
    before = multiprocessing.get_start_method(allow_none=True)
    threads = threading.active_count()
    with progress_bar("pull", 9, stream=Terminal()) as progress:
        progress(9, 9)
    assert (before, threads) == (multiprocessing.get_start_method(allow_none=True), threading.active_count())


# -- notebooks


@pytest.mark.parametrize(("config", "bar"), [({"IPKernelApp": {}}, True), ({"TerminalIPythonApp": {}}, False)])
def test_a_notebook_gets_a_bar_although_it_is_no_terminal(config, bar, monkeypatch):
    """As ``ipykernel`` has it: streams that are no terminals, and a shell whose configuration names the kernel."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(config=config)
    stream = io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stdout", stream)
    with progress_bar("pull", 2048) as progress:
        progress(2048, 2048)
    assert bar == ("pull 100% █" in stream.getvalue())
