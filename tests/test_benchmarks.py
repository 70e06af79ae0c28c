"""The benchmark works: its rows and data, and a small run on real servers. Never a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from benchmarks import data, releases, scheduling
from benchmarks.contestants.job import Job, parse
from benchmarks.results import CLUSTER, EARLIER, OK, OURS, PROCESSES, Results
from benchmarks.rows import ROWS, select
from benchmarks.runner import Runner
from benchmarks.servers import file_server, has_lua, nginx_path

ROOT = Path(__file__).parents[1]


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
        return ROWS[name].title(scale)

    assert "5,000 blobs of 16 KiB, download, loopback, to a disk" == title("disk-small", 1.0)
    assert "2 blobs of 1 GiB, verify, files in memory" == title("verify-large", 1.0)
    assert "400 blobs of 1 MiB, copy, docker-registry" == title("copy-medium", 1.0)
    assert "400 blobs of 1 MiB, upload, docker-registry" == title("registry-medium-upload", 1.0)
    assert "1 blob of 512 MiB, download, loopback with 20 ms and 40 MB/s a connection, 50 KB/s on the first" == title(
        "heal-one", 1.0
    )
    assert "1 blob of 18 MiB and 4 blobs of 2 MiB, download, one connection at once, of 1 MB/s" == title(
        "limited-1", 1.0
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


def test_one_more_blob_of_another_size_comes_first(tmp_path: Path) -> None:
    workload = data.Workload("made", 2, 100, scale_size=True, least=1, first=700)

    made = data.prepare(workload, tmp_path, scale=0.5)

    assert [350, 50, 50] == [blob.size for blob in made.blobs]
    assert "made-1x350-2x50" == made.folder.name


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
    copy = replace(job, action="copy", target="http://127.0.0.1:2", ca=None)
    assert copy == parse(copy.arguments())


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
def test_a_small_benchmark_runs_verifies_and_writes_its_figures(tmp_path: Path) -> None:
    need(nginx_light=nginx_path(), docker_registry=shutil.which("docker-registry"))
    picture = tmp_path / "out.svg"
    names = ["small-loopback", "registry-small-download", "limited-1", "start", "present-10k"]

    found, said = benchmark(tmp_path, "--rows", ",".join(names), "--size", "0.002", "--svg", str(picture))

    assert names == [row.name for row in found.rows]
    # A run is "ok" only after every file of it was hashed.
    assert {OK} == {run.status for row in found.rows for entry in row.entries for run in entry.runs}
    assert [10, 10, 5, 1, 20] == [row.blobs for row in found.rows]
    ours = [row.entry() for row in found.rows]
    assert [10, 10] == [entry.requests for entry in ours[:2] if entry is not None]
    assert 0 == ours[-1].requests  # all of them were there
    assert [] == [row for row in found.rows if row.left_out.get("")]
    assert "Goals\n-----" in said
    assert "Against version 0.1.0\n-----" in said
    assert picture.read_text().startswith("<svg ")
    # Nothing stays but the data that --work asked for.
    assert ["blobs"] == [path.name for path in (tmp_path / "work").iterdir()]
    assert {"out.json", "out.svg", "work"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.integration
@pytest.mark.full
def test_an_upload_is_verified_in_the_storage_of_the_registry(tmp_path: Path) -> None:
    need(docker_registry=shutil.which("docker-registry"))
    contestants = [OURS, EARLIER, "oras", "bare sockets"]

    found, _ = benchmark(
        tmp_path, "--rows", "registry-small-upload", "--size", "0.002", "--only", ";".join(contestants)
    )

    (row,) = found.rows
    assert set(contestants) == {entry.contestant for entry in row.entries} | set(row.left_out)
    assert {OK} == {run.status for entry in row.entries for run in entry.runs}


@pytest.mark.integration
def test_servers_are_compared_by_one_client(tmp_path: Path) -> None:
    need(nginx_light=nginx_path())

    names = ["server-small-download", "server-large-upload-disk"]
    contestants = ["transferkit serve", "nginx"]

    found, _ = benchmark(tmp_path, "--rows", ",".join(names), "--size", "0.002", "--only", ";".join(contestants))

    # The client hashes what it fetches, or has pushed, before it ends.
    assert {OK} == {run.status for row in found.rows for entry in row.entries for run in entry.runs}
    assert [contestants, contestants[:1]] == [[entry.contestant for entry in row.entries] for row in found.rows]


@pytest.mark.integration
@pytest.mark.full
def test_several_processes_and_a_cluster_take_part_and_what_scheduling_costs_is_told(tmp_path: Path) -> None:
    need(nginx_light=nginx_path())

    found, _ = benchmark(tmp_path, "--rows", "several-tiny", "--size", "0.001")
    costs = scheduling.measure(100, (2, 50), tmp_path / "costs")

    (row,) = found.rows
    assert {OK} == {run.status for entry in row.entries for run in entry.runs}
    assert [OURS, PROCESSES, CLUSTER] == [entry.contestant for entry in row.entries]
    assert [2, 50] == [cost.pieces for cost in costs]
    assert all(cost.scheduling > 0 and cost.moving > 0 and cost.share > 0 for cost in costs)


@pytest.mark.integration
@pytest.mark.full
def test_copies_pulls_and_checks_by_name_are_verified(tmp_path: Path) -> None:
    need(docker_registry=shutil.which("docker-registry"), skopeo=shutil.which("skopeo"))

    names = ["copy-small", "verify-large"]

    found, _ = benchmark(tmp_path, "--rows", ",".join(names), "--size", "0.002")

    assert names == [row.name for row in found.rows]
    assert [{OURS, "skopeo"}, {OURS, "sha256sum", "SHA-256 alone"}] == [
        {entry.contestant for entry in row.entries} for row in found.rows
    ]
    assert {OK} == {run.status for row in found.rows for entry in row.entries for run in entry.runs}


@pytest.mark.integration
@pytest.mark.full
def test_a_pull_by_name_is_verified(tmp_path: Path) -> None:
    need(docker_registry=shutil.which("docker-registry"))
    spec = replace(ROWS["pull-real"], workload=data.Workload("made", 5, 1000))
    runner = Runner(work=tmp_path, disk=tmp_path, runs=1, only=frozenset({OURS, "oras", "skopeo"}))

    row = runner.row(spec)

    assert {OK} == {run.status for entry in row.entries for run in entry.runs}
    assert OURS in {entry.contestant for entry in row.entries}


@pytest.mark.integration
def test_one_connection_is_slow_after_each_start_of_the_server(tmp_path: Path) -> None:
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua())
    made = data.prepare(data.Workload("made", 1, 100), tmp_path / "blobs", scale=1.0)
    path = f"/v2/bench/{made.folder.name}/blobs/sha256:{made.blobs[0].hexdigest}"

    def rate(connection: HTTPConnection, path: str = path) -> str | None:
        connection.request("GET", path, headers={"Range": "bytes=0-9"})
        response = connection.getresponse()
        response.read()
        return response.headers["X-Rate"]

    for number in range(2):
        with file_server("pinned", tmp_path / "blobs", tmp_path / f"server-{number}") as server:
            three = [HTTPConnection(server.url.partition("://")[2]) for _ in range(3)]
            assert rate(three[2], "/elsewhere") is None  # only who asks for a blob counts
            assert ["51200", "41943040", "41943040"] * 2 == [rate(connection) for connection in three * 2]
            for connection in three:
                connection.close()


@pytest.mark.integration
def test_the_first_part_that_ends_a_blob_stops_halfway(tmp_path: Path) -> None:
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua())
    made = data.prepare(data.Workload("made", 1, 10_000), tmp_path / "blobs", scale=1.0)
    path = f"/v2/bench/{made.folder.name}/blobs/sha256:{made.blobs[0].hexdigest}"
    content = (made.folder / f"sha256-{made.blobs[0].hexdigest}").read_bytes()
    parts = ["bytes=0-9999", "bytes=0-99", "bytes=100-199", "bytes=6000-9999", "bytes=6000-9999", "bytes=9000-"]
    read = []
    with file_server("silent", tmp_path / "blobs", tmp_path / "server") as server:
        for number, part in enumerate(parts):
            connection = HTTPConnection(server.url.partition("://")[2], timeout=10)
            connection.request("GET", path, headers={"Range": part})
            response = connection.getresponse()
            first = int(part[6:].partition("-")[0])
            half = 2000 if number == 3 else None
            read.append(response.read(half))
            assert (206, content[first : first + len(read[-1])]) == (response.status, read[-1])
            if half is not None:
                connection.sock.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    response.read(1)
            connection.close()
    assert [10_000, 100, 100, 2000, 4000, 1000] == [len(part) for part in read]


@pytest.mark.integration
@pytest.mark.parametrize("most", [1, 2])
def test_a_limited_server_refuses_one_connection_too_many(tmp_path: Path, most: int) -> None:
    need(nginx_light=nginx_path())
    made = data.prepare(data.Workload("made", 1, 16 * data.MIB), tmp_path / "blobs", scale=1.0)
    path = f"/v2/bench/{made.folder.name}/blobs/sha256:{made.blobs[0].hexdigest}"

    def begin(connection: HTTPConnection) -> HTTPResponse:
        connection.request("GET", path)
        return connection.getresponse()

    with file_server(f"limited-{most}", tmp_path / "blobs", tmp_path / "server") as server:
        connections = [HTTPConnection(server.url.partition("://")[2]) for _ in range(most + 1)]
        responses = [begin(connection) for connection in connections]
        assert [200] * most + [503] == [response.status for response in responses]
        for connection in connections:
            connection.close()


@pytest.mark.integration
def test_a_version_that_cannot_be_had_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(commit: str, folder: Path) -> None:
        raise releases.MissingReleaseError("git is not installed")

    need(nginx_light=nginx_path())
    monkeypatch.setattr(releases, "unpack", unpack)
    runner = Runner(work=tmp_path, disk=tmp_path, scale=0.0002, runs=1, only=frozenset({EARLIER}))

    row = runner.row(ROWS["small-loopback"])

    assert ([], {EARLIER: "git is not installed"}) == (row.entries, row.left_out)


@pytest.mark.full
@pytest.mark.integration
def test_a_download_is_healed_where_its_first_connection_is_slow(tmp_path: Path) -> None:
    """At 50 KB/s its chunk of 8 MiB takes longer than a run may, and so does one that is silent."""
    need(nginx_light=nginx_path(), libnginx_mod_http_lua=has_lua())

    found, _ = benchmark(tmp_path, "--rows", "heal", "--size", "0.25", "--only", OURS)

    assert ["heal-none", "heal-one", "heal-silent"] == [row.name for row in found.rows]
    without, *healed = (entry for row in found.rows for entry in row.entries)
    assert [OK, OK, OK] == [run.status for entry in (without, *healed) for run in entry.runs]
    # The rest of a chunk is asked for again.
    assert min(entry.requests or 0 for entry in healed) > (without.requests or 0) >= 16
