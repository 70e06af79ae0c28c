"""A picture of how a call went, by matplotlib, which is imported when somebody asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transferkit.forks import importing
from transferkit.report.record import Record, count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATE, _WORKERS, _HEALED, _RETRIED, _FAILED = "#1f6feb", "#8250df", "#d1242f", "#bf8700", "#000000"
_SHADES = ("#ffd8b5", "#d8e6c8", "#d7d9f2", "#f2d7e6", "#e0e0e0")
_UNITS = (("GiB/s", 1024**3), ("MiB/s", 1024**2), ("KiB/s", 1024), ("B/s", 1))


def plot(record: Record, ax: Axes | None) -> Axes:
    """Draw a record on ``ax``, or on axes of a new figure. ModuleNotFoundError: there is no matplotlib."""
    try:
        with importing:
            import matplotlib.pyplot as plt
    except ImportError as error:
        text = "a plot is drawn by matplotlib, which is not installed: pip install 'transferkit[plot]'"
        raise ModuleNotFoundError(text, name="matplotlib") from error
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    steps = record.rates()
    most = max((rate for _, _, rate in steps), default=0.0)
    unit, size = next((pair for pair in _UNITS if most >= pair[1]), _UNITS[-1])
    edges = [begin for begin, _, _ in steps] + ([steps[-1][1]] if steps else [0.0])
    ax.stairs(
        [rate / size for _, _, rate in steps] or [0.0],
        edges if steps else [0.0, 1.0],
        color=_RATE,
        fill=True,
        alpha=0.5,
        label="rate",
    )
    shades: dict[str, str] = {}
    for begin, end, what in record.waits():
        is_new = what not in shades
        shade = shades.setdefault(what, _SHADES[len(shades) % len(_SHADES)])
        ax.axvspan(begin, end, color=shade, label=what if is_new else None, zorder=0)
    for kind, color in (("healed", _HEALED), ("failed", _FAILED), ("retried", _RETRIED)):
        times = [event.seconds for event in record.events if event.kind == kind]
        for number, seconds in enumerate(times):
            ax.axvline(
                seconds,
                color=color,
                linestyle=":",
                label=f"{count(record.events, kind)} {kind}" if not number else None,
            )
    ax.set_xlabel("seconds")
    ax.set_ylabel(unit)
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, max(record.seconds, 0.001))
    _plot_workers(record, ax)
    return ax


def _plot_workers(record: Record, ax: Any) -> None:
    other = ax.twinx()
    samples = record.samples
    other.step(
        [each.seconds for each in samples],
        [each.workers for each in samples],
        where="post",
        color=_WORKERS,
        label="workers",
    )
    other.set_ylabel("workers")
    other.set_ylim(0, max((each.workers for each in samples), default=1) * 1.3 + 1)
    handles, labels = (
        one + two for one, two in zip(ax.get_legend_handles_labels(), other.get_legend_handles_labels(), strict=True)
    )
    other.legend(handles, labels, loc="upper right", fontsize="small", ncols=3)
