"""What a bar says, as text: how far a call is, how fast, how long it will take, and what it does or waits for.

The rate is of bytes that were moved, so what was there before makes nothing look fast, and a pause makes it fall.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from unicodedata import east_asian_width

from transferkit.report import human_bytes
from transferkit.trace import Status

WINDOW = 5.0  # seconds that a rate is taken over: shorter, and it jumps; longer, and it lies about now
_STEP = 0.2  # seconds between two samples that are kept
_LEAST_BAR = 10  # columns of a bar that is worth drawing
_MOST_BAR = 40
_FULL, _EMPTY = "\N{FULL BLOCK}", " "
_PARTS = " ▏▎▍▌▋▊▉"


class Meter:
    """How fast a call is, from its ``Status``. One thread's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._doing = ""
        self.rate = 0.0
        """Bytes a second, over the last seconds."""

    def take(self, status: Status) -> None:
        """Take in how far a call is."""
        now, samples = self._clock(), self._samples
        if status.doing != self._doing or (samples and status.moved < samples[-1][1]):
            samples.clear()  # other work has another speed
            self._doing, self.rate = status.doing, 0.0
        while len(samples) > 1 and now - samples[1][0] >= WINDOW:
            samples.popleft()
        if not samples or now - samples[-1][0] >= _STEP:
            samples.append((now, status.moved))
        began, before = samples[0]
        if now > began:
            self.rate = (status.moved - before) / (now - began)

    def left(self, status: Status) -> float | None:
        """Return how many seconds it will take at this rate; ``None``: nobody knows."""
        missing = status.total - status.completed
        return missing / self.rate if missing > 0 and self.rate >= 1 and not status.reason else None

    def parts(self, status: Status) -> list[str]:
        """Return what there is to say, what matters most first."""
        done = f"{human_bytes(status.completed)} of {human_bytes(status.total)}"
        said = [state(status), done]
        if status.completed < status.total:
            said.append(f"{human_bytes(self.rate)}/s")
            left = self.left(status)
            said.append("" if left is None else f"{clock_time(left)} left")
        said.append(f"{human_bytes(status.cached)} cached" if status.cached > 0 else "")
        said.append(f"{status.healed} healed" if status.healed else "")
        return [part for part in said if part]


def state(status: Status) -> str:
    """Return what a call does other than moving bytes; an empty text where that is all.

    >>> state(Status(workers=2, waiting=2, reason="rate limit", pause=29.2))
    'waiting: rate limit, 30 s'
    """
    if status.reason:
        pause = f", {int(status.pause) + 1} s" if status.pause >= 1 else ""
        return f"waiting: {status.reason}{pause}"
    if status.doing:
        return status.doing
    if status.verifying and status.verifying == status.workers - status.waiting and status.completed:
        return "verifying"
    return ""


def percent(status: Status) -> int:
    """Return the part that is done: 100 only where all is."""
    return 100 * status.completed // status.total if status.total > 0 else 100


def share(completed: int, total: int) -> list[str]:
    """Return the part that is done as a text, if anybody knows it: ``total`` is not negative then."""
    return [f"{100 * completed // total if total > 0 else 100}%"] if total >= 0 else []


def clock_time(seconds: float) -> str:
    """Return a time as people read it.

    >>> clock_time(61.2), clock_time(7322)
    ('1:01', '2:02:02')
    """
    minutes, rest = divmod(int(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(label: str, completed: int, total: int, said: list[str], width: int, wide: int = 0) -> str:
    """Return a line of at most ``width`` columns: as much of all that as there is room for. ``wide``: of the label.

    >>> line("m", 512, 1024, ["512 B of 1.0 KiB"], 40)
    'm  50% ████████         512 B of 1.0 KiB'
    """
    part = min(1.0, max(0.0, completed / total)) if total > 0 else float(total == 0)
    done = "".join(share(completed, total))
    most = max(8, width // 3)
    label = fit(label, most) if width >= 24 else ""
    label += " " * (min(wide, most) - columns(label)) if label else ""
    begin = f"{label} {done:>4}" if label and done else label or done
    end, room = "", width - columns(begin)
    for each in said:
        more = f"{end}, {each}" if end else each
        if columns(more) + 1 <= room:
            end = more
    bar = min(_MOST_BAR, room - columns(end) - (2 if end else 1))
    drawn = f" {blocks(part, bar)}" if bar >= _LEAST_BAR else ""
    return fit(f"{begin}{drawn}{' ' if end else ''}{end}", width)


def blocks(part: float, width: int) -> str:
    """Return a bar of so many columns."""
    full, eighths = divmod(int(part * width * 8), 8)
    return (_FULL * full + (_PARTS[eighths] if eighths else "")).ljust(width, _EMPTY)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(char) in "FW" else 1 for char in text)


def fit(text: str, width: int) -> str:
    """Return a text without characters that move the cursor, cut to so many columns.

    >>> fit("model\\x1b[2J-of-many-parts", 10)
    'model?[2J…'
    """
    text = "".join(char if char.isprintable() else "?" for char in text)
    if columns(text) <= width:
        return text
    while text and columns(text) >= width:
        text = text[:-1]
    return f"{text}\N{HORIZONTAL ELLIPSIS}" if width > 0 else ""
