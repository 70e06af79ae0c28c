"""The figures of a finished transfer, as a person sees them."""

from __future__ import annotations

import pytest

from transferkit.report import Report, human_bytes
from transferkit.report.folder import FolderReport


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1_048_576, "1.0 MiB"),
        (5_368_709_120, "5.0 GiB"),
        (1_099_511_627_776, "1.0 TiB"),
        (1_125_899_906_842_624, "1024.0 TiB"),
        (0.4, "0 B"),
    ],
)
def test_bytes_are_shown_in_the_unit_that_fits(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_rate_is_bytes_by_seconds() -> None:
    assert Report(bytes=3000, seconds=1.5).rate == 2000.0


def test_rate_of_no_time_is_zero() -> None:
    assert Report(bytes=3000, seconds=0.0).rate == 0.0


def test_repr_shows_what_was_done() -> None:
    report = Report(blobs=3, bytes=2048, skipped=1, mounted=2, retried=4, seconds=2.0, paths={"sha256:aa": "/tmp/aa"})
    assert repr(report) == (
        "<Report blobs 3, moved 2.0 KiB, time 2.00 s, rate 1.0 KiB/s, skipped 1, mounted 2, retried 4>"
    )


def test_repr_leaves_out_what_did_not_happen() -> None:
    assert repr(Report()) == "<Report blobs 0, moved 0 B, time 0.00 s, rate 0 B/s>"


def test_a_notebook_gets_a_table() -> None:
    assert Report(blobs=1, bytes=512, retried=2, seconds=0.5)._repr_html_() == (
        "<table><tr><th>blobs</th><td>1</td></tr><tr><th>moved</th><td>512 B</td></tr>"
        "<tr><th>time</th><td>0.50 s</td></tr><tr><th>rate</th><td>1.0 KiB/s</td></tr>"
        "<tr><th>retried</th><td>2</td></tr></table>"
    )


def test_a_folder_says_what_became_of_it() -> None:
    report = FolderReport(
        folder="/models/m",
        digest="sha256:" + 64 * "a",
        format="oras",
        written=("a", "b", "deep/c"),
        kept=("d",),
        left=("e",),
        linked={"a": "hard", "b": "hard", "deep/c": "copy"},
        bytes=2048,
        seconds=0.5,
    )
    text = "folder /models/m, files 4, written 3 (1 as copies, 2 as hard links), kept 1, left 1, moved 2.0 KiB"
    assert repr(report) == f"<FolderReport {text}, time 0.50 s>"
    assert list(report.paths.items())[2:] == [("d", "/models/m/d"), ("deep/c", "/models/m/deep/c")]
    assert "<tr><th>left</th><td>1</td></tr>" in report._repr_html_()
    with pytest.raises(AttributeError):
        report.bytes = 1  # type: ignore[misc]  # it is frozen


def test_a_folder_that_was_right_says_so_in_few_words() -> None:
    report = FolderReport(folder="<b>", digest="sha256:" + 64 * "a", format="oras", kept=("d",))
    assert repr(report) == "<FolderReport folder <b>, files 1, written 0, kept 1, moved 0 B, time 0.00 s>"
    assert "&lt;b&gt;" in report._repr_html_()
