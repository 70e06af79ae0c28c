"""The arithmetic of the benchmark, on made-up figures: medians, tables, goals and the page of the documentation."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.chart import chart
from benchmarks.goals import goals
from benchmarks.judging import MET, NOT_MEASURED, NOT_MET, Goal
from benchmarks.report import merge, page
from benchmarks.results import (
    DEMO,
    EARLIER,
    FAILED,
    FIRST_CALL,
    OK,
    OURS,
    OWN_SESSION,
    TIMEOUT,
    WRONG,
    Entry,
    Results,
    Row,
    Run,
)
from benchmarks.table import row_table, simple_table

PLAIN = "requests, threads"


def run(wall: float, *, call: float | None = None, rss: int = 50_000_000, status: str = OK, note: str = "") -> Run:
    return Run(wall=wall, user=0.5, system=0.25, rss=rss, call=call, status=status, note=note)


def entry(
    name: str, *walls: float, kind: str = "other", call: float | None = None, requests: int | None = None
) -> Entry:
    return Entry(contestant=name, kind=kind, runs=[run(wall, call=call) for wall in walls], requests=requests)


def row(name: str, *entries: Entry, blobs: int = 100) -> Row:
    return Row(name=name, title="made up", blobs=blobs, size=blobs * 64, entries=list(entries))


def results(*rows: Row) -> Results:
    return Results(machine={"cores": "2"}, versions={"aria2c": "1.36"}, scale=1.0, runs=3, rows=list(rows))


def goal(found: Results, name: str, text: str) -> Goal:
    (one,) = [goal for goal in goals(found) if goal.row == name and text in goal.text]
    return one


# -- results


def test_a_median_is_not_moved_by_one_slow_run() -> None:
    assert entry("aria2c", 1.0, 9.0, 2.0).wall == 2.0


def test_a_contestant_that_failed_once_has_no_median() -> None:
    failed = Entry(contestant="aria2c", kind="other", runs=[run(1.0), run(0.1, status=FAILED)])

    assert failed.wall is None


def test_the_call_of_a_program_is_its_whole_process() -> None:
    assert (entry("aria2c", 2.0).call, entry(OURS, 2.0, call=1.5).call) == (2.0, 1.5)


def test_results_survive_json() -> None:
    before = results(row("small-cdn", entry(OURS, 1.0, kind="ours", requests=100)))

    after = Results.from_json(json.loads(json.dumps(before.to_json())))

    assert before == after


def test_wrong_bytes_and_our_own_failures_break_a_run_and_those_of_others_do_not() -> None:
    def broken(name: str, kind: str, status: str) -> list[str]:
        failed = Entry(contestant=name, kind=kind, runs=[run(1.0, status=status, note="why")])
        return results(row("small-cdn", failed)).broken

    assert ["small-cdn, aria2c: why"] == broken("aria2c", "other", WRONG)
    assert ["small-cdn, transferkit: why"] == broken(OURS, "ours", FAILED)
    assert [] == broken("aria2c", "other", FAILED)


# -- tables and the chart


def test_a_row_shows_medians_and_ratios_to_our_call() -> None:
    shown = row_table(
        row(
            "small-cdn", entry(OURS, 2.0, 1.0, 4.0, kind="ours", call=1.5, requests=100), entry("aria2c", 5.0, 5.0, 5.0)
        )
    )

    lines = [line.split() for line in shown.splitlines() if line.startswith((OURS, "aria2c"))]
    assert [
        [OURS, "2.00", "1.00", "-", "4.00", "1.50", "0.50", "0.25", "50", "100", "-", "-", "1.00"],
        ["aria2c", "5.00", "5.00", "-", "5.00", "-", "0.50", "0.25", "50", "-", "-", "-", "3.33"],
    ] == lines


def test_a_row_names_who_was_ended_and_who_was_left_out() -> None:
    ended = Entry(contestant="aria2c", kind="other", runs=[run(120.0, status=TIMEOUT, note="ended after 120 s")])
    shown = row_table(Row(name="a", title="b", blobs=1, size=1, entries=[ended], left_out={"skopeo": "not installed"}))

    assert "aria2c: ended after 120 s." in shown
    assert "Left out: skopeo, not installed." in shown


def test_a_table_aligns_texts_left_and_figures_right() -> None:
    assert ["=====  ==", "a       b", "=====  ==", "seven   7", "x      10", "=====  =="] == simple_table(
        ("a", "b"), [("seven", "7"), ("x", "10")]
    ).splitlines()


def test_the_chart_is_xml_with_a_bar_for_each_time() -> None:
    ended = Entry(contestant="<slow>", kind="other", runs=[run(120.0, status=TIMEOUT)])

    root = ElementTree.fromstring(chart(results(row("small-cdn", entry(OURS, 1.0, kind="ours"), ended))))

    bars = [rect.get("fill") for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ["#ffffff", "#1b7f5c"] == bars
    assert ["small-cdn: made up", OURS, "1.00 s", "<slow>", "timeout"] == texts


def test_the_page_has_goals_machine_and_tables() -> None:
    text = page(results(row("small-cdn", entry(OURS, 1.0, kind="ours"), entry(PLAIN, 7.0))), "benchmarks.svg")

    for part in ("* cores: 2", "* aria2c: 1.36", ".. image:: benchmarks.svg", "small-cdn: made up\n^^^^", "7.00"):
        assert part in text


def test_the_page_has_our_time_beside_that_of_version_0_1_0() -> None:
    found = results(
        row("small-cdn", entry(OURS, 2.0, kind="ours", call=1.1), entry(EARLIER, 1.2, kind="earlier", call=1.0)),
        row("small-tls", entry(OURS, 2.0, kind="ours", call=1.0), entry(EARLIER, 1.2, kind="earlier", call=1.0)),
        row("medium-cdn", entry(OURS, 2.0, kind="ours")),
    )

    lines = [line.split() for line in page(found, "a.svg").splitlines()]

    assert ["small-cdn", "not", "met", "1.10", "1.00", "1.10"] in lines
    assert ["small-tls", "met", "1.00", "1.00", "1.00"] in lines
    one = goal(found, "against 0.1.0", "1.05")
    assert (NOT_MET, "at most 1.10 (small-cdn)") == (one.verdict, one.figures)


def test_the_page_takes_in_the_reasons_beside_it() -> None:
    assert ".. include:: why.txt" in page(results(row("small-cdn", entry(OURS, 1.0, kind="ours"))), "a.svg", "why.txt")


def test_a_run_in_pieces_is_one_run_and_the_last_piece_has_the_say() -> None:
    first = results(row("small-tls", entry(OURS, 1.0, kind="ours")), row("small-cdn", entry(OURS, 2.0, kind="ours")))
    second = results(row("small-loopback", entry(OURS, 3.0, kind="ours")), row("small-tls", entry(OURS, 4.0)))

    merged = merge([first, second])

    walls = [(piece.name, piece.entries[0].wall) for piece in merged.rows]
    assert [("small-loopback", 3.0), ("small-cdn", 2.0), ("small-tls", 4.0)] == walls


# -- goals


@pytest.mark.parametrize(("call", "verdict"), [(1.0, MET), (1.1, NOT_MET)])
def test_a_ratio_is_judged_by_the_call(call: float, verdict: str) -> None:
    found = results(
        row("small-loopback", entry(OURS, 9.0, kind="ours", call=call), entry(PLAIN, 99.0, call=8.0)),
    )

    assert verdict == goal(found, "small-loopback", PLAIN).verdict


def test_a_program_is_judged_by_its_whole_process_with_a_note() -> None:
    found = results(row("real-cdn", entry(OURS, 3.0, kind="ours", call=1.0), entry("aria2c", 2.0)))

    one = goal(found, "real-cdn", "aria2c")

    assert (MET, "2.00 (aria2c 2.00 s, whole process; transferkit 1.00 s)") == (one.verdict, one.figures)


def test_floors_and_our_own_variants_are_no_opponents() -> None:
    others = [
        entry("transferkit, bar", 0.5, kind="ours"),
        entry(EARLIER, 0.4, kind="earlier"),
        entry("bare sockets", 0.1, kind="floor"),
        entry("pooch", 3.0, call=3.0),
    ]
    found = results(row("small-tls", entry(OURS, 2.0, kind="ours", call=2.0), *others))

    one = goal(found, "small-tls", "the best contestant")

    assert (MET, "1.50 (pooch 3.00 s; transferkit 2.00 s)") == (one.verdict, one.figures)


@pytest.mark.parametrize(
    ("name", "who", "other", "most"),
    [
        ("large-loopback", OURS, "SHA-256 alone", 2.6),
        ("limited-1", OURS, "aria2c, retrying", 1.15),
        ("limited-2", OURS, "aria2c, retrying", 1.15),
        ("small-loopback", OWN_SESSION, OURS, 1.1),
    ],
)
def test_a_limit_from_above(name: str, who: str, other: str, most: float) -> None:
    def verdict(seconds: float) -> str:
        entries = [entry(who, 9.0, kind="ours", call=seconds), entry(other, 9.0, call=1.0)]
        return goal(results(row(name, *entries)), name, f"{most:g} times the time of {other}").verdict

    assert (MET, NOT_MET) == (verdict(most), verdict(most + 0.01))


def test_an_opponent_that_was_ended_took_at_least_that_long() -> None:
    ended = Entry(contestant=PLAIN, kind="other", runs=[run(120.0, status=TIMEOUT)])
    found = results(row("small-loopback", entry(OURS, 10.0, kind="ours"), ended))

    one = goal(found, "small-loopback", PLAIN)

    assert (MET, "more than 12.00") == (one.verdict, one.figures)


def test_rows_that_did_not_run_are_not_measured() -> None:
    assert {NOT_MEASURED} == {goal.verdict for goal in goals(results())}


@pytest.mark.parametrize(("seconds", "verdict", "figures"), [(0.05, MET, "2,000"), (0.0501, NOT_MET, "1,996")])
def test_small_blobs_that_are_pushed_to_our_server_are_counted_by_the_second(
    seconds: float, verdict: str, figures: str
) -> None:
    found = results(row("demo-push", entry(DEMO, 9.0, kind="ours", call=seconds)))

    one = goal(found, "demo-push", "blobs a second")

    assert (verdict, figures) == (one.verdict, one.figures)


def test_requests_are_counted_for_each_blob() -> None:
    found = results(
        row("small-cdn", entry(OURS, 1.0, kind="ours", requests=101)),
        row("registry-small-upload", entry(OURS, 1.0, kind="ours", requests=300)),
    )

    down, up = goal(found, "downloads", "one request"), goal(found, "uploads", "at most 3")

    assert [(NOT_MET, "at most 1.010 a blob (small-cdn)"), (MET, "at most 3.000 a blob (registry-small-upload)")] == [
        (down.verdict, down.figures),
        (up.verdict, up.figures),
    ]


def test_growth_compares_what_a_further_blob_costs() -> None:
    def grown(walls: list[float], megabytes: list[int]) -> Results:
        names = [("growth-1k", 1000), ("growth-10k", 10_000), ("growth-100k", 100_000)]
        return results(
            *(
                row(name, Entry(contestant=OURS, kind="ours", runs=[run(wall, rss=mb * 1_000_000)]), blobs=blobs)
                for (name, blobs), wall, mb in zip(names, walls, megabytes, strict=True)
            )
        )

    level, worse = grown([0.3, 1.2, 10.2], [50, 53, 83]), grown([0.3, 1.2, 11.2], [50, 53, 153])

    assert [MET, MET, MET] == [
        goal(level, "growth", "time").verdict,
        goal(level, "growth", "memory").verdict,
        goal(level, "memory", "further").verdict,
    ]
    assert [NOT_MET, NOT_MET, NOT_MET] == [
        goal(worse, "growth", "time").verdict,
        goal(worse, "growth", "memory").verdict,
        goal(worse, "memory", "further").verdict,
    ]
    assert "100 and then 111 microseconds" == goal(worse, "growth", "time").figures


@pytest.mark.parametrize(("seconds", "megabytes", "verdict"), [(1.0, 139, MET), (1.1, 141, NOT_MET)])
def test_a_folder_that_is_there_already_has_a_second_and_a_kilobyte_a_blob(
    seconds: float, megabytes: int, verdict: str
) -> None:
    figures = [("present-10k", 10_000, 0.1, 50), ("present-100k", 100_000, seconds, megabytes)]
    found = results(
        *(
            row(name, Entry(contestant=OURS, kind="ours", runs=[run(time, rss=size * 1_000_000)]), blobs=blobs)
            for name, blobs, time, size in figures
        )
    )

    time, memory = goal(found, "present-100k", "is found so"), goal(found, "present-100k", "memory")

    assert [(verdict, f"{seconds:.2f} s"), (verdict, f"{(megabytes - 50) / 0.09:.0f} bytes")] == [
        (time.verdict, time.figures),
        (memory.verdict, memory.figures),
    ]
    assert {NOT_MEASURED} == {each.verdict for each in goals(results()) if each.row == "present-100k"}


@pytest.mark.parametrize(("healed", "verdict"), [(2.0, MET), (2.1, NOT_MET)])
def test_a_slow_connection_may_add_half_a_second(healed: float, verdict: str) -> None:
    found = results(
        row("heal-none", entry(OURS, 1.0, 1.5, 2.0, kind="ours"), blobs=1),
        row("heal-one", entry(OURS, healed, kind="ours"), blobs=1),
    )

    one = goal(found, "heal", "50 KB/s")

    assert verdict == one.verdict
    assert f"{healed - 1.5:.2f} s (1.50 s without, {healed:.2f} s with it)" == one.figures


@pytest.mark.parametrize(("healed", "verdict"), [(2.5, MET), (2.6, NOT_MET)])
def test_a_connection_that_falls_silent_in_the_last_chunk_may_add_a_second(healed: float, verdict: str) -> None:
    found = results(
        row("heal-none", entry(OURS, 1.0, 1.5, 2.0, kind="ours"), blobs=1),
        row("heal-silent", entry(OURS, healed, kind="ours"), blobs=1),
    )

    assert verdict == goal(found, "heal-silent", "falls silent in the last chunk").verdict


@pytest.mark.parametrize(("first", "verdict"), [(0.13, MET), (0.15, NOT_MET)])
def test_a_first_call_is_measured_beside_the_import_of_requests(first: float, verdict: str) -> None:
    floor = entry("import requests", 0.2, kind="floor", call=0.1)
    found = results(row("start", entry(FIRST_CALL, 0.3, kind="ours", call=first), floor, blobs=1))

    assert verdict == goal(found, "start", "a first call").verdict
