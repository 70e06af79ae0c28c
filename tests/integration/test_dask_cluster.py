"""Four workers of Dask's on four hosts: killed, paused, late, with a full disk, without their scheduler or caller.

Each ends with the right bytes everywhere, or with an error that names the worker and the blob.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.clusters import MIB, blobs_right, machines, nanny, origin, right
from tests.functional.models import get
from transferkit.cluster.dask import fan_out, mirror, spread
from transferkit.testing import running_registry

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

SIZES = [24 * MIB, 5 * MIB, 3 * MIB, *range(1000, 1060)]
CHUNKS = {"chunk_threshold": MIB, "chunk_size": MIB // 2}
# With few connections, as what a connection has in its buffers counts as sent.
SLOWLY = {"options": tk.TransferOptions(max_bandwidth=3e6, concurrency=8, **CHUNKS)}
QUICK = {"options": tk.TransferOptions(**CHUNKS)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    with origin(tmp_path_factory.mktemp("origin"), SIZES) as running:
        yield running


@pytest.fixture
def asked(shelf):
    shelf.log.clear()
    return shelf.log


@pytest.fixture(scope="module")
def planned(shelf, tmp_path_factory):
    with tk.Registry(cache=tmp_path_factory.mktemp("planned")) as registry:
        return registry.plan_pull(shelf.name)


@pytest.fixture(scope="module")
def quick_to_notice():
    """A scheduler that gives up a worker which is silent for 5 s."""
    import dask
    import distributed  # noqa: F401 - first: what is set before goes with all of its settings when it ends

    with dask.config.set({"distributed.scheduler.worker-ttl": "5s", "distributed.comm.timeouts.connect": "10s"}):
        yield


@pytest.fixture
def four(tmp_path, quick_to_notice):
    with machines(tmp_path, 4) as running:
        yield running


class When(tk.Trace):
    """Does something once, when so many bytes are in place."""

    def __init__(self, completed: int, then) -> None:
        self._completed, self._then, self.is_over = completed, then, False

    def status(self, status):
        if status.completed >= self._completed and not self.is_over:
            self.is_over = True
            self._then()


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("count", [1, 2])
def test_what_killed_workers_had_begun_is_gone_on_with(shelf, four, planned, asked, tmp_path, count):
    when = When(4 * MIB, lambda: kill(*(four.pid(number) for number in range(count))))
    report = spread(four.client, planned, to=tmp_path / "to", trace=when, settings=SLOWLY)

    assert when.is_over
    assert right(tmp_path / "to", shelf.files)
    assert report.again >= 1
    # What was in whole chunks was not asked for again: less than a half of it came twice.
    assert shelf.sent() < 1.5 * shelf.size


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_registry_sends_each_byte_once_to_a_tree_of_any_width(shelf, four, asked, width):
    report = fan_out(four.client, shelf.name, to="$HOST/model", cache="$HOST/cache", width=width, settings=QUICK)

    assert [True] * 4 == [right(host / "model", shelf.files) for host in four.hosts()]
    assert ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] == [row.name for row in report.workers]
    assert shelf.sent() < 1.05 * shelf.size


def test_the_registry_sends_it_twice_at_most_where_the_first_machine_dies(shelf, four, asked):
    when = When(8 * MIB, lambda: kill(four.pid(0)))
    fan_out(four.client, shelf.name, to="$HOST/model", cache="$HOST/cache", width=2, trace=when, settings=SLOWLY)

    assert when.is_over
    assert [True] * 4 == [right(host / "model", shelf.files) for host in four.hosts()]
    # Once to the first machine, once to one behind it, and what was on its way when the first one died.
    assert shelf.sent() < 2.7 * shelf.size


def test_a_machine_in_the_middle_of_a_tree_that_dies_costs_the_registry_nothing(shelf, four, asked):
    when = When(8 * MIB, lambda: kill(four.pid(1)))
    fan_out(four.client, shelf.name, to="$HOST/model", cache="$HOST/cache", width=1, trace=when, settings=SLOWLY)

    assert when.is_over
    assert [True] * 4 == [right(host / "model", shelf.files) for host in four.hosts()]
    assert shelf.sent() < 1.3 * shelf.size


def test_a_worker_that_joins_late_takes_its_share(shelf, planned, tmp_path, quick_to_notice):
    with machines(tmp_path, 1) as one:
        when = When(MIB, lambda: one.cluster.scale(1))  # the specification below comes first
        one.cluster.worker_spec[1] = nanny(tmp_path, 1)
        threading.Timer(0.5, lambda: one.cluster.sync(one.cluster._correct_state)).start()
        report = spread(one.client, planned, to=tmp_path / "to", pieces=24, settings=SLOWLY)

    assert right(tmp_path / "to", shelf.files)
    assert 2 == len(report.workers)
    assert when is not None


def test_a_machine_that_joins_late_gets_it_from_those_that_serve(shelf, asked, tmp_path, quick_to_notice):
    with machines(tmp_path, 2) as two:

        def join() -> None:
            two.cluster.worker_spec[2] = nanny(tmp_path, 2)
            two.cluster.loop.add_callback(two.cluster._correct_state)

        when = When(MIB, join)
        report = fan_out(two.client, shelf.name, cache="$HOST/cache", to="$HOST/model", trace=when, settings=SLOWLY)

    assert when.is_over
    assert ["127.0.0.1", "127.0.0.2", "127.0.0.3"] == [row.name for row in report.workers]
    assert [True] * 3 == [right(host / "model", shelf.files) for host in two.hosts()]
    assert shelf.sent() < 1.05 * shelf.size


def test_a_paused_worker_holds_nobody_up_for_ever(shelf, four, planned, tmp_path):
    pid = four.pid(2)
    when = When(4 * MIB, lambda: os.kill(pid, signal.SIGSTOP))
    try:
        spread(four.client, planned, to=tmp_path / "to", trace=when, settings=SLOWLY)
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)

    assert when.is_over
    assert right(tmp_path / "to", shelf.files)


@contextlib.contextmanager
def small_disk(four, megabytes: int):
    """Have ``small`` of the last host be a disk of its own, so small; the others have a folder there."""
    small = four.folder / "host3" / "small"
    for host in four.hosts():
        (host / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this needs the right to mount a tmpfs")
    try:
        yield small
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_full_disk_of_one_machine_is_an_error_that_names_it(shelf, four):
    with small_disk(four, 8), pytest.raises(tk.IncompleteError) as caught:
        fan_out(four.client, shelf.name, cache="$HOST/small/cache", settings=QUICK, retries=1)

    assert "1 of 4 machines have it not: 127.0.0.4: " in str(caught.value)
    assert "8.0 MiB left" in str(caught.value)
    for host in four.hosts()[:3]:
        with tk.Registry(cache=host / "small" / "cache", offline=True) as registry:
            assert shelf.size == sum(layer.size for layer in registry.resolve_local(shelf.name).layers)


def test_a_disk_that_fills_up_in_mid_blob_is_an_error_that_names_machine_and_blob(shelf, four):
    """And the next call goes on, once there is room."""
    with small_disk(four, 96) as small:

        def fill() -> None:
            with contextlib.suppress(OSError), open(small / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(MIB))

        when = When(8 * MIB, fill)
        with pytest.raises(tk.IncompleteError) as caught:
            fan_out(four.client, shelf.name, cache="$HOST/small/cache", settings=SLOWLY, retries=0, trace=when)
        (small / "filler").unlink()
        fan_out(four.client, shelf.name, cache="$HOST/small/cache", settings=QUICK)
        for host in four.hosts():
            assert blobs_right(host / "small" / "cache")
            with tk.Registry(cache=host / "small" / "cache", offline=True) as registry:
                assert shelf.size == sum(layer.size for layer in registry.resolve_local(shelf.name).layers)

    assert when.is_over
    assert "1 of 4 machines have it not: 127.0.0.4: " in str(caught.value)
    assert "no space left" in str(caught.value).lower()
    assert any("127.0.0.4" in str(error) for error in caught.value.failures.values())


def test_a_scheduler_that_goes_away_is_said(shelf, planned, tmp_path, quick_to_notice):
    script = "import asyncio, sys\nfrom distributed import Scheduler\n"
    script += "async def main():\n    async with Scheduler(host='127.0.0.1', port=0, dashboard_address=':0') as s:\n"
    script += "        print(s.address, flush=True)\n        await s.finished()\nasyncio.run(main())\n"
    from distributed import Client

    scheduler = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = None
    try:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().strip()
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        worker = subprocess.Popen(
            [*command, "--local-directory", str(tmp_path / "scratch"), "--host", "127.0.0.2", "--death-timeout", "5"],
            stderr=subprocess.DEVNULL,
        )
        with Client(address, timeout="30s") as client:
            client.wait_for_workers(1, timeout=60)
            when = When(4 * MIB, scheduler.kill)
            with pytest.raises(tk.TransferKitError, match=r"the scheduler at tcp://127.0.0.1:.* has gone"):
                spread(client, planned, to=tmp_path / "to", trace=when, settings=SLOWLY)
    finally:
        scheduler.kill()
        scheduler.wait()
        assert scheduler.stdout is not None
        scheduler.stdout.close()
        if worker is not None:
            worker.terminate()
            worker.wait(timeout=60)
    planned.run(to=tmp_path / "to")
    assert right(tmp_path / "to", shelf.files)


CALLER = """
import sys, transferkit as tk
from distributed import Client
from transferkit.cluster.dask import spread

plan = tk.TransferPlan.from_json(sys.stdin.read())
options = tk.TransferOptions(max_bandwidth=1e6, chunk_threshold=2**20, chunk_size=2**19)
with Client(sys.argv[1]) as client:
    tell = lambda completed, total: print(completed, flush=True)
    spread(client, plan, to=sys.argv[2], settings={"options": options}, progress=tell)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_pieces_of_a_caller_that_has_gone_end_and_the_next_call_goes_on(shelf, four, planned, tmp_path, number):
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, four.cluster.scheduler_address, str(tmp_path / "to")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    assert caller.stderr is not None
    caller.stdin.write(planned.to_json())
    caller.stdin.close()
    while int(caller.stdout.readline() or 0) < 2 * MIB:
        assert caller.poll() is None
    os.kill(caller.pid, number)
    assert 0 != caller.wait(timeout=60)
    caller.stdout.close()
    caller.stderr.close()
    deadline = time.monotonic() + 30
    while any(four.client.run(transfers_left).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {0} == {*four.client.run(transfers_left).values()}

    spread(four.client, planned, to=tmp_path / "to", settings=QUICK)
    assert right(tmp_path / "to", shelf.files)


MIRRORING = """
import sys, transferkit as tk
from distributed import Client
from transferkit.cluster.dask import mirror

options = tk.TransferOptions(max_bandwidth=2e6, chunk_threshold=2**20, chunk_size=2**19)
with Client(sys.argv[1]) as client:
    tell = lambda completed, total: print(completed, flush=True)
    mirror(client, *sys.argv[2:], repositories=["team/model"], settings={"options": options}, progress=tell)
"""


def test_a_mirror_goes_on_after_the_loss_of_its_caller(shelf, four):
    with running_registry() as target:
        command = [sys.executable, "-c", MIRRORING, four.cluster.scheduler_address, shelf.url, target.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
            assert caller.stdout is not None
            while int(caller.stdout.readline() or 0) < 6 * MIB:
                assert caller.poll() is None
            caller.kill()
        again = mirror(four.client, shelf.url, target.url, repositories=["team/model"])

        assert get(shelf.url, "team/model", "v1") == get(target.url, "team/model", "v1")
        assert 0 < again.bytes < shelf.size  # what was there was not sent again


def transfers_left() -> int:
    import threading

    return sum(1 for thread in threading.enumerate() if thread.name.startswith("transferkit"))


def test_tls_of_the_cluster_reaches_the_pieces(shelf, planned, tmp_path, quick_to_notice):
    from distributed.security import Security

    with machines(tmp_path, 2, security=Security.temporary()) as two:
        report = spread(two.client, planned, to=tmp_path / "to", settings=QUICK)
        fan_out(two.client, planned, to="$HOST/model", cache="$HOST/cache", settings=QUICK)

    assert right(tmp_path / "to", shelf.files)
    assert all(row.name.startswith("tls://127.0.0.") for row in report.workers)
    assert [True, True] == [right(host / "model", shelf.files) for host in two.hosts()]


@pytest.mark.integration
def test_many_repositories_from_one_docker_registry_to_another(four, docker_registry, run_docker_registry, tmp_path):
    """Killed in the middle, and again for nothing."""
    source = docker_registry.url
    names = [f"team/model{number}" for number in range(12)]
    (tmp_path / "shared.bin").write_bytes(os.urandom(3 * MIB))
    with tk.Registry(cache=tmp_path / "first") as registry:
        for name in names:
            (tmp_path / "own.bin").write_bytes(name.encode() * 1000)
            for tag in ("v1", "v2"):
                registry.push(f"{source}/{name}:{tag}", files=[tmp_path / "shared.bin", tmp_path / "own.bin"])
    with run_docker_registry(tmp_path / "second") as second:
        target = second.url
        threading.Timer(0.5, lambda: kill(four.pid(1))).start()
        mirror(four.client, source, target, repositories=names)

        for name in names:
            for tag in ("v1", "v2"):
                assert get(source, name, tag) == get(target, name, tag)
        again = mirror(four.client, source, target, repositories=names)
    assert (12, 0, 0) == (again.pieces, again.blobs, again.bytes)
    assert Counter() == Counter(each.failed for each in again.workers if each.failed)
