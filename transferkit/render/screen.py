"""The lines of bars on a terminal or in a notebook, by ``tqdm``: it knows where each bar stands, those of others too.

Only what is imported when a bar is drawn imports tqdm. No bar of ours starts a thread, or makes a lock of
``multiprocessing``, which would settle how the user's processes are started.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any, TextIO

from transferkit.forks import importing

_MOMENT = 1.0  # seconds: to draw all bars takes a few milliseconds
_ROWS = 20
_made: list[Any] = []  # the class of our bars, once one is drawn


class Lock:
    """A lock that nobody waits for longer than a moment: an interrupt (Ctrl-C) may leave it locked for ever."""

    def __init__(self, moment: float = _MOMENT) -> None:
        self._moment = moment
        self._lock = threading.RLock()

    def acquire(self, *_: object) -> bool:
        while not (lock := self._lock).acquire(timeout=self._moment):
            if self._lock is lock:
                self._lock = threading.RLock()
        return True

    def release(self) -> None:
        with suppress(RuntimeError):  # it is another one by now
            self._lock.release()

    def forget(self) -> None:
        """Let go of it where an error has left it locked: tqdm does not, on its way out."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def is_notebook() -> bool:
    """Tell whether this is the kernel of a notebook: its streams say that they are no terminals."""
    ipython = sys.modules.get("IPython")
    try:
        shell = ipython.get_ipython() if ipython is not None else None
        return shell is not None and "IPKernelApp" in shell.config
    except Exception:  # noqa: BLE001 - whatever has that name, it is no IPython
        return False


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether lines can be drawn over each other on a stream."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except Exception:  # noqa: BLE001 - it is closed, or no stream at all
        return False


_ECHO = 2  # columns of "^C", which a terminal shows where the cursor is


def width_of(stream: TextIO) -> int:
    """Return how many columns a line may have so that it does not wrap, with the ^C of an interrupt behind it."""
    width = 0
    with suppress(Exception):
        width = os.get_terminal_size(stream.fileno()).columns
    if width <= 0:
        width = shutil.get_terminal_size().columns
    return max(0, width - 1 - _ECHO)


def writable(text: str, stream: TextIO | None) -> str:
    """Return a text with signs in the place of what the encoding of a stream does not have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "".join("#" if "▏" >= char >= "█" else char if char.isascii() else "?" for char in text)
    return text


def line_class() -> Any:
    """Return the class of a line, made when the first one is drawn: a ``tqdm`` that says what it is told to."""
    if not _made:
        with importing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a notebook without widgets a bar of text is drawn
            from tqdm.auto import tqdm

        class Line(tqdm):  # type: ignore[type-arg]  # a class that depends on where it runs
            """One line of bars, which says what it is told to, and not what tqdm would."""

            monitor_interval = 0  # else tqdm starts a thread
            _lock = Lock()  # not tqdm's: that settles the start method of multiprocessing
            text = ""
            said = "<bar/>"
            _rows = 0

            @property
            def nrows(self) -> int:
                """How many rows there are. Where a terminal says none (``docker exec -t``), tqdm would hide it."""
                return self._rows if self._rows > 0 else _ROWS

            @nrows.setter
            def nrows(self, rows: int | None) -> None:
                self._rows = rows or 0

            def __str__(self) -> str:
                return self.text

            @property
            def has_widget(self) -> bool:
                return hasattr(self, "container")

            def show(self, completed: int, total: int, left: str, right: str) -> None:
                """Draw it: where there is a widget as that, with texts on its sides; else ``text``."""
                if not self.has_widget:
                    self.refresh()
                    return
                self.n, self.total = completed, total
                widget: Any = self
                widget.container.children[1].max = max(total, 1)
                self.said = f"{left}<bar/>{right}"
                widget.display(check_delay=False)

            def display(self, msg: str | None = None, *arguments: Any, **keywords: Any) -> Any:
                """Draw what was told last, and never tqdm's own words."""
                return super().display(self.said if msg is None and self.has_widget else msg, *arguments, **keywords)

            def vanish(self) -> None:
                """End, and leave nothing: a widget that is not full would stay, in red."""
                self.total = None
                self.close()

        _made.append(Line)
    return _made[0]


def write_above(text: str, stream: TextIO) -> None:
    """Write a line on a stream: above the bars that stand there. Any thread may do it."""
    if _made and is_terminal(stream):
        _made[0].write(text, file=stream)
        stream.flush()
    else:
        print(text, file=stream, flush=True)


def _renew() -> None:
    """In the child of a fork: nobody there lets go of the lock, and the bars of the parent are not ours to draw."""
    for made in _made:
        made._lock = Lock()
        for bar in [bar for bar in made._instances if isinstance(bar, made)]:
            made._instances.discard(bar)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew)
