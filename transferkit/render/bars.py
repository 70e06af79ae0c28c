"""Progress for people: bars on a terminal and in a notebook, a line now and then in a log. It never fails a transfer.

A set of bars belongs to the thread that called, and is drawn there alone. Several sets stand below each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TextIO

from transferkit.content.descriptor import Descriptor
from transferkit.render.meter import Meter, columns, fit, line, percent, share, state
from transferkit.render.notes import warn_above
from transferkit.render.screen import is_notebook, is_terminal, line_class, width_of, writable
from transferkit.report import human_bytes
from transferkit.trace import Status, Trace

Callback = Callable[[int, int], None]

MOST = 4
"""Blobs that have a bar of their own."""
LARGE = 16 * 1024 * 1024  # bytes: a smaller blob is gone before it is read
_LONGEST = 40  # columns of a label
_LINE_EVERY = 5.0  # seconds: a log is not a screen
_DRAW_EVERY = 0.1
_TITLE = "org.opencontainers.image.title"


class Shown(Trace):
    """How far a call is, as somebody sees it; this one shows nothing. Also for progress that is two numbers."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total

    def status(self, status: Status) -> None:
        """Show how far the call is."""

    def callback(self, completed: int, total: int) -> None:
        """Show how far something is of which there is nothing else to tell."""
        self.status(Status(completed=completed, total=total, moved=completed))

    def close(self) -> None:
        """Leave what was shown last."""


class _Written(Shown):
    """What is written on a stream, with how fast the call is."""

    def __init__(
        self, label: str, total: int, stream: TextIO | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(label, total)
        self._stream = stream
        self._clock = clock
        self._meter = Meter(clock)


class Bars(_Written):
    """A bar for all, and one for each of the largest blobs that are under way. Where it cannot draw, it stops."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._is_broken = False
        self._lines: list[Any] = []
        self._last = Status(total=self._total)
        self._drawn_at = float("-inf")
        self._end_notes = warn_above(self._stream)
        self._guarded(self._draw)

    def status(self, status: Status) -> None:
        if self._is_broken:
            return
        if status.total == 0 and status.completed == 0:
            status = replace(status, total=self._total)
        self._meter.take(status)
        is_end = status.completed >= status.total
        self._last = status
        if is_end or self._clock() - self._drawn_at >= _DRAW_EVERY:
            self._guarded(self._draw)

    def _guarded(self, draw: Callable[[], object]) -> None:
        try:
            draw()
        except Exception:  # noqa: BLE001 - a stream that is closed or broken, widgets that are: no bar is worth an error
            self._is_broken = True
            with suppress(Exception):
                self._forget()

    def _draw(self) -> None:
        self._drawn_at = self._clock()
        status = self._last
        kind = line_class()
        if not self._lines:
            self._lines.append(self._line(kind))
        first = self._lines[0]
        # A notebook without widgets has one line, and cannot move up.
        has_room = first.has_widget or is_terminal(self._stream)
        blobs = [pair for pair in status.blobs if pair[0].size >= LARGE][:MOST] if has_room else []
        while len(self._lines) > 1 + len(blobs):
            self._lines.pop().vanish()
        while len(self._lines) < 1 + len(blobs):
            self._lines.append(self._line(kind))
        labels = [self._label, *(f"  {_title(blob)}" for blob, _ in blobs)]
        wide = max(columns(fit(label, _LONGEST)) for label in labels)  # so that bars stand below each other
        if status.total > 0:
            self._show(first, wide, self._label, status.completed, status.total, self._meter.parts(status))
        else:
            self._show(first, wide, self._label, 0, -1, [state(status) or "starting"])  # nobody knows how much there is
        for bar, label, (blob, position) in zip(self._lines[1:], labels[1:], blobs, strict=True):
            said = [f"{human_bytes(position)} of {human_bytes(blob.size)}"]
            self._show(bar, wide, label, position, blob.size, said)

    def _line(self, kind: Any) -> Any:
        if self._stream is None:  # a notebook, which shows the standard error stream in red
            return kind(total=max(self._total, 1), file=sys.stdout, leave=not self._lines, dynamic_ncols=False)
        return kind(total=max(self._total, 1), file=self._stream, leave=False, dynamic_ncols=True)

    def _show(self, bar: Any, wide: int, label: str, completed: int, total: int, said: list[str]) -> None:
        width = width_of(self._stream or sys.stderr)
        text = writable(line(label, completed, total, said, width, wide), self._stream)
        if not bar.has_widget and text == bar.text:
            return
        bar.text = text
        bar.show(completed, total, " ".join([fit(label, _LONGEST), *share(completed, total)]), ", ".join(said))

    def close(self) -> None:
        if not self._is_broken:
            self._guarded(self._close)
        self._end_notes()

    def _close(self) -> None:
        self._last = replace(self._last, blobs=())
        self._draw()
        first = self._lines[0]
        text = first.text
        while len(self._lines) > 1:
            self._lines.pop().vanish()
        self._lines.clear()
        first.close()
        if not first.has_widget and self._stream is not None and self._last.total > 0:
            type(first).write(text, file=self._stream)  # above the bars of others, which stay

    def _forget(self) -> None:
        line_class()._lock.forget()
        for bar in self._lines:
            bar.disable = True
            type(bar)._instances.discard(bar)
        self._lines.clear()


class Lines(_Written):
    """A line every few seconds, and one at the end: for a log. Where it cannot write, it stops."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._told_at = float("-inf")
        self._told = ""
        self._is_done = False
        self._last: Status | None = None

    def status(self, status: Status) -> None:
        if status.total == 0 and self._last is None and status.workers:
            return  # nobody knows yet what there is to be done
        self._last = status
        self._meter.take(status)
        is_done = status.completed >= status.total and not status.reason
        if is_done != self._is_done or (not is_done and self._clock() - self._told_at >= _LINE_EVERY):
            self._write(status)
        self._is_done = is_done

    def _write(self, status: Status) -> None:
        self._told_at = self._clock()
        done = f"{human_bytes(status.completed)} of {human_bytes(status.total)} ({percent(status)} %)"
        text = f"{fit(self._label, 200)}: {done}"
        if status.completed < status.total:
            text += f", {human_bytes(self._meter.rate)}/s" if self._meter.rate >= 1 else ""
        if status.completed < status.total or status.doing:
            text += f", {state(status)}" if state(status) else ""
        elif status.cached > 0:
            text += f", {human_bytes(status.cached)} cached"
        if text == self._told or self._stream is None:
            return
        self._told = text
        try:
            print(text, file=self._stream, flush=True)
        except Exception:  # noqa: BLE001 - a closed or broken stream: no line is worth an error
            self._stream = None


def shown(label: str, total: int, *, stream: TextIO | None = None) -> Shown:
    """Return what shows a call on ``stream``, by default on the standard error stream; nothing where there is none."""
    if stream is None and is_notebook():
        return Bars(label, total, None)
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return Shown(label, total)
    return (Bars if is_terminal(stream) else Lines)(label, total, stream)


@contextmanager
def progress_bar(label: str, total: int, *, stream: TextIO | None = None) -> Iterator[Callback]:
    """Return a callback for ``progress=`` that draws a bar on ``stream`` (by default standard error).

    >>> with progress_bar("pull", 2048, stream=sys.stdout) as progress:
    ...     progress(2048, 2048)
    pull: 2.0 KiB of 2.0 KiB (100 %)
    """
    bars = shown(label, total, stream=stream)
    try:
        yield bars.callback
    finally:
        bars.close()


def _title(blob: Descriptor) -> str:
    return next((text for name, text in blob.annotations if name == _TITLE and text), blob.digest.short)
