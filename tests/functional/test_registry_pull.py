"""Pulling by name: announced, verified, linked last, and nothing that is in place is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

import transferkit as tk
from tests.functional import models
from tests.functional.models import (
    Model,
    Still,
    at_once,
    client,
    digest_of,
    host,
    index_of,
    links,
    names_of,
    put_manifest,
    stored,
)
from transferkit.names import Name
from transferkit.registry import Registry
from transferkit.storage.cache import DiskCache
from transferkit.testing import FaultRule, HTTPFaults, corrupt, respond, running_registry

WHERE = "library/model"


def name_in(registry, tag: str = "v1") -> str:
    return f"{host(registry.url)}/{WHERE}:{tag}"


def blob_gets(registry) -> list[str]:
    return [r.path.rpartition("/")[2] for r in registry.log if r.method == "GET" and "/blobs/" in r.path]


class Events(tk.Trace):
    def __init__(self, watch=lambda: None) -> None:
        self.watch = watch
        self.told: list[tuple[str, object]] = []

    def announced(self, descriptors):
        self.told.append(("announced", [d.digest for d in descriptors]))
        self.told.append(("watch", self.watch()))

    def cached(self, descriptor):
        self.told.append(("cached", descriptor.digest))

    def done(self, descriptor):
        self.told.append(("done", descriptor.digest))


def test_a_model_is_pulled_verified_and_linked(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        manifest = registries.pull(name_in(registry))
        assert (model.raw, model.digest) == (manifest.raw, manifest.digest)
        path = registries.cache.path(manifest.layers[0].digest)
    with open(path, "rb") as file:
        assert model.layers[0] == file.read()
    assert names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))
    assert [f"{host(registry.url)}/{WHERE}/v1"] == links(tmp_path / "c")
    assert model.raw == (tmp_path / "c" / "manifests" / host(registry.url) / WHERE / "v1").read_bytes()


def test_the_result_is_small(registry, tmp_path):
    """One request for the manifest and one for each blob, besides those that find out whether the host speaks TLS."""
    model = models.small().put(registry.url)
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        registries.pull(f"http://{name_in(registry)}")
        assert len(model.blobs) + 1 == len(registry.log)
        registry.log.clear()
        registries.pull(f"http://{name_in(registry)}")
    assert [f"/v2/{WHERE}/manifests/v1"] == [request.path for request in registry.log]


def test_all_layers_are_announced_before_the_first_byte_and_the_config_comes_first(registry, tmp_path):
    model = models.small().put(registry.url)
    registry.log.clear()
    events = Events(lambda: len(blob_gets(registry)))
    options = tk.TransferOptions(concurrency=1)
    with client(tmp_path / "c", options=options) as registries:
        registries.pull(name_in(registry), trace=events)
        registries.pull(name_in(registry), trace=(again := Events()))
    order = [digest_of(content) for content in model.blobs]
    assert [("announced", order), ("watch", 0)] == events.told[:2]
    fetched = [order[-1], *order[:-1]]
    assert (fetched, [("done", digest) for digest in fetched]) == (blob_gets(registry), events.told[2:])
    assert [("announced", order), ("watch", None), *(("cached", digest) for digest in fetched)] == again.told


def test_no_layer_is_asked_for_before_the_config_is_in_place(tmp_path):
    """Many workers, and a config that comes late: without it nobody needs the layers."""
    faults, figures = HTTPFaults(), []
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        model = Model([bytes([number]) * 100 for number in range(8)], config=b"config").put(registry.url)
        config, where = digest_of(model.config), {"method": "GET", "path": digest_of(model.config)}
        registry.log.clear()
        faults.set(FaultRule(respond(404), **where))
        with pytest.raises(tk.IncompleteError):
            registries.pull(name_in(registry))
        assert [config] == blob_gets(registry)
        faults.set(FaultRule(respond(503), times=1, **where))
        registry.log.clear()
        registries.pull(name_in(registry), progress=lambda *pair: figures.append(pair))
    assert [config, config] == blob_gets(registry)[:2]
    assert {digest_of(layer) for layer in model.layers} == set(blob_gets(registry)[2:])
    assert ((0, 806), (806, 806)) == (figures[0], figures[-1])
    assert {806} == {total for _, total in figures}
    assert sorted(figures) == figures


def test_a_trace_that_raises_harms_nothing(registry, tmp_path, caplog):
    models.small().put(registry.url)

    class Angry(tk.Trace):
        def announced(self, descriptors):
            raise RuntimeError("no")

    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), trace=Angry())
    assert "the trace raised" in caplog.text


def test_the_name_is_linked_last(tmp_path):
    seen = []

    def middleware(app):
        def middle(environ, start_response):
            if "/blobs/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] == "GET":
                seen.append(links(tmp_path / "c"))
            return app(environ, start_response)

        return middle

    with running_registry(middleware=middleware) as registry, client(tmp_path / "c") as registries:
        models.small().put(registry.url)
        registries.pull(name_in(registry))
    assert [[], [], []] == seen
    assert 1 == len(links(tmp_path / "c"))


def test_what_is_in_place_stays_where_another_blob_fails(tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        model = models.small().put(registry.url)
        bad = digest_of(model.layers[1])
        faults.set(FaultRule(respond(404), method="GET", path=bad))
        with pytest.raises(tk.IncompleteError) as caught:
            registries.pull(name_in(registry))
        assert {bad: tk.BlobNotFoundError} == {d: type(e) for d, e in caught.value.failures.items()}
        assert names_of(model.layers[0], model.config) == set(stored(tmp_path / "c"))
        assert [] == links(tmp_path / "c")

        faults.set()
        registry.log.clear()
        registries.pull(name_in(registry))
        assert [bad] == blob_gets(registry)
    assert 1 == len(links(tmp_path / "c"))


def test_wrong_bytes_never_get_a_name(tmp_path):
    faults = HTTPFaults(FaultRule(corrupt(0), method="GET", path="/blobs/"))
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        models.small().put(registry.url)
        with pytest.raises(tk.IncompleteError) as caught:
            registries.pull(name_in(registry))
    assert all(isinstance(error, tk.DigestMismatchError) for error in caught.value.failures.values())
    assert ({}, []) == (stored(tmp_path / "c"), links(tmp_path / "c"))


def test_an_older_model_stays_under_its_name_until_the_new_one_is_whole(tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        old = models.small().put(registry.url)
        registries.pull(name_in(registry))
        new = Model([b"new weights"]).put(registry.url)
        faults.set(FaultRule(respond(404), method="GET", path=digest_of(b"new weights")))
        with pytest.raises(tk.IncompleteError):
            registries.pull(name_in(registry))
        assert old.digest == registries.resolve_local(name_in(registry)).digest
        faults.set()
        registries.pull(name_in(registry))
        assert new.digest == registries.resolve_local(name_in(registry)).digest


def test_ollamas_model_without_a_config(registry, tmp_path):
    none = {"digest": f"sha256:{64 * '0'}", "mediaType": "", "size": 0}
    model = Model([b"weights"], config=None, more={"config": none})
    models.put_blob(registry.url, WHERE, b"weights")

    def middleware(app):
        def middle(environ, start_response):
            if environ["PATH_INFO"].endswith("/manifests/v1"):
                start_response("200 OK", [("Content-Length", str(len(model.raw)))])
                return [model.raw]
            return app(environ, start_response)

        return middle

    with running_registry(registry.store, middleware=middleware) as other, client(tmp_path / "c") as registries:
        manifest = registries.pull(name_in(other))
        assert (None, [digest_of(b"weights")]) == (manifest.config, blob_gets(other))


def test_without_layers_there_is_nothing_to_pull(registry, tmp_path):
    Model([]).put(registry.url)
    with client(tmp_path / "c") as registries:
        assert () == registries.resolve(name_in(registry)).layers
        with pytest.raises(tk.InvalidManifestError, match=r"^model .* cannot be read: invalid manifest: no layers$"):
            registries.pull(name_in(registry))


def test_a_large_layer_comes_in_chunks_and_goes_on(registry, tmp_path):
    data = os.urandom(1024) * 3 * 1024
    model = Model([data]).put(registry.url)
    options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**20, resume_threshold=2**20)
    cancel = tk.Cancellation()

    def stop(completed, total):
        if completed > len(data) // 2:
            cancel.cancel("enough")

    slow = tk.TransferOptions(
        chunk_threshold=2**20, chunk_size=2**20, resume_threshold=2**20, max_bandwidth=10e6, progress_interval=0.001
    )
    with client(tmp_path / "c", options=slow) as registries, pytest.raises(tk.CancelledError, match="enough"):
        registries.pull(name_in(registry), cancel=cancel, progress=stop)
    assert [] == links(tmp_path / "c")
    figures = []
    registry.log.clear()
    with client(tmp_path / "c", options=options) as registries:
        registries.pull(name_in(registry), progress=lambda *figure: figures.append(figure))
    assert any("range" in r.headers for r in registry.log if "/blobs/" in r.path)
    assert len(data) // 4 < figures[0][0] < figures[0][1] == sum(map(len, model.blobs))
    assert figures[-1] == (figures[0][1], figures[0][1])
    sent = sum(r.sent for r in registry.log if r.method == "GET" and "/blobs/" in r.path)
    assert sent <= figures[0][1] - figures[0][0] + 1024


# -- indexes


@pytest.fixture
def platforms(registry):
    """An index with two platforms, the second within another index, and an attestation."""
    one, two, neither = (Model([content, b"shared"], config=content[:3]) for content in (b"one", b"two", b"neither"))
    for model in (one, two, neither):
        model.put(registry.url, WHERE, model.digest)
    inner = index_of((two, "linux/arm64/v8"))
    put_manifest(registry.url, WHERE, digest_of(inner), inner, models.OCI_INDEX)
    raw = index_of((one, "linux/amd64"), (inner, "linux/arm64/v8"), (neither, "unknown/unknown"))
    put_manifest(registry.url, WHERE, "v1", raw, models.OCI_INDEX)
    return one, two, neither, inner, raw


def test_of_an_index_one_platform_is_pulled(registry, platforms, tmp_path):
    one, two, _, inner, raw = platforms
    with client(tmp_path / "c") as registries:
        assert one.digest == registries.pull(name_in(registry), platform="linux/amd64").digest
        assert names_of(*one.blobs, one.raw, raw) == set(stored(tmp_path / "c"))
        assert raw == registries.resolve_local(name_in(registry)).raw
        assert two.digest == registries.pull(name_in(registry), platform="linux/arm64").digest
    assert names_of(*one.blobs, one.raw, raw, *two.blobs, two.raw, inner) == set(stored(tmp_path / "c"))


def test_of_an_index_all_platforms_are_pulled_nested_ones_too(registry, platforms, tmp_path):
    one, two, neither, inner, raw = platforms
    with client(tmp_path / "c") as registries:
        index = registries.pull(name_in(registry), platform="all")
    assert (raw, digest_of(raw)) == (index.raw, index.digest)
    everything = [content for model in (one, two, neither) for content in (*model.blobs, model.raw)]
    assert names_of(*everything, inner, raw) == set(stored(tmp_path / "c"))


def test_a_platform_that_is_not_there_is_said_with_those_that_are(registry, platforms, tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidManifestError) as caught:
        registries.pull(name_in(registry), platform="plan9/mips")
    assert "has nothing for plan9/mips; it has linux/amd64, linux/arm64/v8, unknown/unknown" in str(caught.value)
    assert not (tmp_path / "c" / "manifests").exists()


# -- several at once


def test_two_processes_send_each_body_once_and_both_succeed(tmp_path):
    """The first one's bodies wait until the second one has begun."""
    arrived = threading.Event()

    def middleware(app):
        manifests = []

        def middle(environ, start_response):
            if environ["PATH_INFO"].startswith("/v2/") and environ["REQUEST_METHOD"] == "GET":
                if "/blobs/" in environ["PATH_INFO"]:
                    arrived.wait(10)
                elif "/manifests/" in environ["PATH_INFO"]:
                    manifests.append(1)
            return app(environ, start_response)

        return middle

    code = (
        "import sys; from transferkit.registry import Registry\n"
        "print('ready', flush=True)\n"
        "with Registry(cache=sys.argv[2]) as registry: print(registry.pull(sys.argv[1]).digest)\n"
    )
    with running_registry(middleware=middleware) as registry:
        model = Model([os.urandom(300_000), os.urandom(20_000_000), b"licence"]).put(registry.url)
        registry.log.clear()
        command = [sys.executable, "-c", code, f"http://{name_in(registry)}", str(tmp_path / "c")]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in processes:
            assert "ready\n" == process.stdout.readline()
        time.sleep(0.2)  # both are at the lock, or at the bodies
        arrived.set()
        said = [process.communicate(timeout=60)[0] for process in processes]
        assert [0, 0] == [process.returncode for process in processes]
        whole = sorted(digest_of(content) for content in model.blobs)
        sent = sum(r.sent for r in registry.log if "/blobs/" in r.path)
        assert (whole, sum(map(len, model.blobs))) == (sorted(set(blob_gets(registry))), sent)
    assert [f"{model.digest}\n"] * 2 == said
    assert 1 == len(links(tmp_path / "c"))


def test_threads_share_a_registry(registry, tmp_path):
    model = models.small().put(registry.url, WHERE, "v1", "v2")
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        assert [] == at_once(lambda tag: registries.pull(name_in(registry, tag)), ("v1", "v2", "v1", "v2"))
    assert 2 == len(links(tmp_path / "c"))
    assert names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))


def test_the_wait_for_another_who_pulls_the_name_can_be_cancelled(registry, tmp_path):
    models.small().put(registry.url)
    cancel, held, done = tk.Cancellation(), threading.Event(), threading.Event()
    cache = DiskCache(tmp_path / "c")

    def hold():
        with cache.lock(Name.parse(name_in(registry)), Still()):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(5)
        timer = threading.Timer(0.2, cancel.cancel, ["enough"])
        timer.start()
        began = time.monotonic()
        with client(tmp_path / "c") as registries, pytest.raises(tk.CancelledError, match="enough"):
            registries.pull(name_in(registry), cancel=cancel)
        assert time.monotonic() - began < 1.2
        timer.join()
    finally:
        done.set()
        thread.join()
    assert not any("/blobs/" in request.path for request in registry.log if request.method == "GET")
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))


def test_a_store_that_can_only_be_read_is_enough_for_what_is_there(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
    before = sorted(os.walk(tmp_path / "c"))

    class ReadOnly(DiskCache):
        def open_unfinished(self):
            raise tk.StorageError("read-only file system", errno=30)

    with Registry(cache=ReadOnly(tmp_path / "c"), options=models.IMPATIENT) as registries:
        assert model.digest == registries.pull(name_in(registry)).digest
    assert before == sorted(os.walk(tmp_path / "c"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_registry_works_in_a_forked_child(registry, tmp_path):
    models.small().put(registry.url, WHERE, "v1", "v2")
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if registries.pull(name_in(registry, "v2")).layers else 1)
            except BaseException:
                os._exit(2)
        assert 0 == os.waitpid(child, 0)[1]
        registries.pull(name_in(registry))
    assert 2 == len(links(tmp_path / "c"))


def test_a_blob_that_somebody_prunes_meanwhile_is_fetched_again(registry, tmp_path):
    model = models.small().put(registry.url)
    pruned = tmp_path / "c" / "blobs" / digest_of(model.layers[1]).replace(":", "-")

    class Pruning(tk.Trace):
        def done(self, descriptor):
            if descriptor.digest == digest_of(model.layers[1]) and not times:
                times.append(1)
                os.unlink(pruned)

    times = []
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), trace=Pruning())
    assert names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))
    assert 2 == blob_gets(registry).count(digest_of(model.layers[1]))


def test_a_store_that_loses_all_that_is_stored_is_an_error(registry, tmp_path):
    model = models.small().put(registry.url)

    class Pruning(tk.Trace):
        def done(self, descriptor):
            os.unlink(tmp_path / "c" / "blobs" / descriptor.digest.file_name)

    with client(tmp_path / "c") as registries, pytest.raises(tk.StorageError, match="as fast as they are stored"):
        registries.pull(name_in(registry), trace=Pruning())
    assert ({}, []) == (stored(tmp_path / "c"), links(tmp_path / "c"))
    assert 3 * len(model.blobs) == len(blob_gets(registry))


def test_json_of_the_manifest_is_what_was_sent(registry, tmp_path):
    model = Model([b"x"], more={"annotations": {"a": "b"}}).put(registry.url)
    with client(tmp_path / "c") as registries:
        manifest = registries.pull(name_in(registry))
    assert ({"a": "b"}, json.loads(model.raw)) == (manifest.annotations, manifest.json())
