"""Plans on a small cluster of Dask's, with real workers: what always runs of it."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest

import transferkit as tk
from tests.functional.clusters import MIB, machines, origin, right
from transferkit.cluster.dask import fan_out, mirror, spread
from transferkit.cluster.dask.tree import mirrors, serves

pytestmark = pytest.mark.xdist_group("dask")  # they share a cluster

SIZES = [2 * MIB, MIB, *range(1000, 1040)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    with origin(tmp_path_factory.mktemp("origin"), SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two workers, on two hosts."""
    with machines(tmp_path_factory.mktemp("machines"), 2, resources={"net": 1}) as running:
        yield running


@pytest.fixture
def planned(shelf, tmp_path):
    with tk.Registry(cache=tmp_path / "planned") as registry:
        yield registry.plan_pull(shelf.name)


class Heard(tk.Trace):
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.threads: set[int] = set()

    def done(self, descriptor):
        self.ended.append(descriptor.digest)
        self.threads.add(threading.get_ident())


def test_a_plan_is_spread_over_the_workers_into_one_store(shelf, pair, planned, tmp_path):
    shelf.log.clear()
    heard, seen = Heard(), []
    report = spread(
        pair.client, planned, to=tmp_path / "to", trace=heard, progress=lambda *pair: seen.append(pair), pieces=4
    )

    assert right(tmp_path / "to", shelf.files)
    assert (planned.size, planned.size) == seen[-1]
    assert (planned.size, len(planned.blobs), 4) == (report.bytes, report.blobs, report.pieces)
    assert {row.name for row in report.workers} <= {*pair.pids}
    assert sorted(blob.digest for blob in planned.blobs) == sorted(heard.ended)
    assert {threading.get_ident()} == heard.threads
    assert planned.size == shelf.sent()

    shelf.log.clear()
    again = tk.run_plan(planned, pair.client.get_executor(), to=tmp_path / "to", pieces=3)
    assert (0, len(planned.blobs), 0) == (again.bytes, again.skipped, len(shelf.log))


def test_a_model_comes_to_every_host_and_the_registry_sends_it_once(shelf, pair):
    shelf.log.clear()
    seen = []
    report = fan_out(
        pair.client, shelf.name, to="$HOST/model", cache="$HOST/cache", progress=lambda *pair: seen.append(pair)
    )

    assert [True, True] == [right(host / "model", shelf.files) for host in pair.hosts()]
    assert ["127.0.0.1", "127.0.0.2"] == [row.name for row in report.workers]
    assert [report.bytes // 2] * 2 == [row.bytes for row in report.workers]
    assert seen[-1][0] == seen[-1][1] == report.bytes
    assert report.bytes // 2 == shelf.sent()

    shelf.log.clear()
    assert 0 == fan_out(pair.client, shelf.name, to="$HOST/model", cache="$HOST/cache").bytes
    assert 0 == shelf.sent()


def test_two_hosts_in_one_process(shelf, planned, tmp_path):
    """What runs in workers runs here. Nothing arrives: both of them would have one cache, and wait for each other."""
    import logging

    from distributed import Client, Scheduler, SpecCluster, Worker

    common = {"nthreads": 1, "dashboard_address": ":0", "local_directory": str(tmp_path / "scratch")}
    workers = {n: {"cls": Worker, "options": {**common, "host": f"127.0.0.{n + 1}"}} for n in range(2)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}}
    shelf.log.clear()
    with (
        SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(tk.IncompleteError, match="2 of 2 machines have it not"):
            fan_out(client, planned, cache="$NOWHERE/cache", retries=0)
        cancel = tk.Cancellation()
        cancel.cancel("enough")
        with pytest.raises(tk.CancelledError, match="enough"):
            fan_out(client, planned, cache=tmp_path / "never", cancel=cancel)
        with pytest.raises(ValueError, match="a piece pull"):
            fan_out(client, planned.split(pieces=2)[0])

    assert 0 == shelf.sent()


def test_machines_with_one_cache_are_told_so_and_not_left_to_wait_for_each_other(shelf, pair, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(tk.IncompleteError, match=r"1 of 2 machines .*127\.0\.0\.2.* in common .*spread\(\)"):
        fan_out(pair.client, shelf.name, cache=cache, retries=0)
    assert [] == [path.name for path in cache.iterdir() if path.name.startswith(".transferkit")]
    with tk.Registry(cache=cache, offline=True) as registry:
        assert shelf.size == sum(layer.size for layer in registry.resolve_local(shelf.name).layers)


def test_a_mirror_is_incremental(shelf, pair, tmp_path):
    from tests.functional.models import get
    from transferkit.testing import running_registry

    with running_registry() as target:
        where = f"{target.url}/mirrored"
        heard, seen = Heard(), []
        tell = lambda *pair: seen.append(pair)  # noqa: E731 - one line
        first = mirror(pair.client, shelf.url, where, repositories=["team/model"], trace=heard, progress=tell)
        assert {f"sha256:{hashlib.sha256(content).hexdigest()}" for content in shelf.files.values()} <= {*heard.ended}
        assert ({threading.get_ident()}, (first.bytes, first.bytes)) == (heard.threads, seen[-1])
        assert get(shelf.url, "team/model", "v1") == get(target.url, "mirrored/team/model", "v1")
        assert (1, shelf.size) == (first.pieces, first.bytes - len(b"{}"))

        shelf.log.clear()
        again = mirror(pair.client, shelf.url, where, repositories=["team/model"], tags="v*")
        assert (0, 0) == (again.bytes, shelf.sent())

        with pytest.raises(tk.IncompleteError, match=r"team/nothing.* \(tcp://127\.0\.0\."):
            mirror(pair.client, shelf.url, where, repositories=["team/model", "team/nothing"])


def test_failures_name_the_worker_and_the_blob(shelf, pair, tmp_path):
    missing = tk.Blob(f"sha256:{'a' * 64}", 100)
    plan = tk.plan_download([missing], base_url=shelf.url, repository="team/model")
    with pytest.raises(tk.IncompleteError) as caught:
        spread(pair.client, plan, to=tmp_path / "to")

    assert [missing.digest] == [*caught.value.failures]
    assert "tcp://127.0.0." in str(caught.value)


def test_a_folder_that_one_machine_does_not_know_is_an_error_that_names_it(shelf, pair, planned):
    with pytest.raises(tk.IncompleteError, match=r"NOWHERE is not set on .*tcp://127\.0\.0\."):
        spread(pair.client, planned, to="$NOWHERE/model", retries=0)


@pytest.mark.full
def test_a_cancel_ends_the_pieces_on_their_workers(shelf, pair, planned, tmp_path, caplog):
    """Within two seconds: what takes longer is no longer waited for, and the log says so."""
    cancel = tk.Cancellation()
    slowly = {"options": tk.TransferOptions(max_bandwidth=1e6)}

    def progress(completed, total):
        if completed:
            cancel.cancel("enough")

    with pytest.raises(tk.CancelledError, match="enough"):
        spread(pair.client, planned, to=tmp_path / "to", cancel=cancel, progress=progress, settings=slowly)
    assert "have not ended" not in caplog.text
    assert {0} == {*pair.client.run(transfers_left).values()}
    spread(pair.client, planned, to=tmp_path / "to")
    assert right(tmp_path / "to", shelf.files)


def transfers_left() -> int:
    import threading

    return sum(1 for thread in threading.enumerate() if thread.name.startswith("transferkit"))


def test_a_worker_with_another_version_is_refused_with_its_address(pair, planned, tmp_path):
    def become(version: str) -> None:
        import transferkit

        transferkit.__version__ = version

    first = min(pair.pids)
    pair.client.run(become, "0.1.0", workers=[first])
    try:
        with pytest.raises(tk.TransferKitError, match=f"{first} has 0.1.0"):
            spread(pair.client, planned, to=tmp_path / "to")
    finally:
        pair.client.run(become, tk.__version__, workers=[first])


def test_a_cluster_without_workers_is_said_at_once(planned, tmp_path):
    with machines(tmp_path, 0) as empty:
        for call in (
            lambda: spread(empty.client, planned, to=tmp_path / "to"),
            lambda: fan_out(empty.client, planned),
            lambda: mirror(empty.client, "a.example", "b.example", repositories=["a/b"]),
        ):
            with pytest.raises(tk.TransferKitError, match="has no workers"):
                call()


def test_a_resource_that_no_worker_has_is_said_at_once(pair, planned, tmp_path):
    with pytest.raises(tk.TransferKitError, match="no worker of the cluster has gpu=1"):
        spread(pair.client, planned, to=tmp_path / "to", resources={"gpu": 1})


def test_what_is_no_client_is_refused(planned, tmp_path):
    with pytest.raises(TypeError, match=r"a distributed\.Client, not str"):
        spread("tcp://127.0.0.1:8786", planned, to=tmp_path / "to")
    with pytest.raises(ValueError, match="width is at least 1"):
        fan_out(None, planned, width=0)
    with pytest.raises(TypeError, match="a list of names"):
        mirror(None, "a.example", "b.example", repositories="a/b")
    with pytest.raises(tk.InvalidNameError):
        mirror(None, "a.example", "b.example", repositories=["../b"])


@pytest.mark.parametrize("width", [1, 2, 4, 16])
def test_nobody_in_a_tree_waits_for_itself_and_who_is_asked_serves(width):
    for count in (1, 2, 5, 40):
        for number in range(count):
            asked = mirrors(number, width)
            assert len(asked) == len({*asked})
            assert all(each < number for each in asked)
            assert all(serves(each, count, width) for each in asked)
            assert (number == 0) == (asked == [])
    assert json.dumps(mirrors(0, width)) == "[]"
