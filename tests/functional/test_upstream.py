"""A mirror with a registry upstream: what it lacks is pulled once, served while it arrives, and kept."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.models import (
    IMPATIENT,
    OCI_INDEX,
    Model,
    ask,
    client,
    described,
    digest_of,
    host,
    index_of,
    links,
    names_of,
    put_manifest,
    stored,
)
from transferkit.server import Application, serving
from transferkit.server.upstream import Upstream, Upstreams
from transferkit.testing import Close, FaultRule, HTTPFaults, answer, corrupt, respond, running_registry, with_faults
from transferkit.testing.scripted import ScriptedServer

MIB = 1024 * 1024
WEIGHTS = random.Random(15).randbytes(24 * MIB)  # more than what comes in chunks
MODEL = Model([b"weights " * 100_000, b"do as you like"])
LARGE = Model([WEIGHTS, b"do as you like"])
NO_LIST = FaultRule(respond(404), path="/chunksums/")  # a chunk of a list is in place when it is whole
DIGEST, WEIGHTS_DIGEST = digest_of(MODEL.layers[0]), digest_of(WEIGHTS)


@contextmanager
def mirror(folder, *urls, **keywords):
    cache = tk.DiskCache(folder)
    with tk.Registry(cache=cache, options=IMPATIENT) as registry:
        upstreams = Upstreams(registry, urls, **keywords)
        with Application(mirror=cache, upstreams=upstreams) as application, serving(application, threads=40) as url:
            yield url


@pytest.fixture
def url(registry, tmp_path):
    """A mirror of a registry that has the model."""
    MODEL.put(registry.url, "team/smol", "v1")
    registry.log.clear()
    with mirror(tmp_path / "mirror", registry.url) as url:
        yield url


def eventually(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def code_of(answered):
    status, _, body = answered
    (error,) = json.loads(body)["errors"]
    return status, error["code"]


def test_an_unknown_model_is_pulled_and_served_and_kept(registry, url, tmp_path):
    with client(tmp_path / "mine") as mine:
        assert MODEL.digest == str(mine.pull(f"{url}/team/smol:v1").digest)
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "mine"))
    assert eventually(lambda: [f"{host(registry.url)}/team/smol/v1"] == links(tmp_path / "mirror"))
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "mirror"))
    assert {digest_of(blob): 1 for blob in MODEL.blobs} == {
        digest_of(blob): registry.log.count("GET", f"/blobs/{digest_of(blob)}") for blob in MODEL.blobs
    }
    registry.log.clear()
    with client(tmp_path / "second") as second:
        second.pull(f"{url}/team/smol:v1")
    assert 0 == registry.log.count("GET", "/blobs/")


def test_a_look_at_a_manifest_or_at_the_size_of_a_blob_moves_no_blob(registry, url, tmp_path):
    assert 200 == ask(url, "GET", "/v2/team/smol/manifests/v1")[0]
    status, headers, body = ask(url, "HEAD", f"/v2/team/smol/blobs/{DIGEST}")
    assert (200, str(len(MODEL.layers[0])), b"") == (status, headers["content-length"], body)
    status, headers, _ = ask(url, "HEAD", f"/v2/team/smol/blobs/{DIGEST}", Range="bytes=5-9")
    assert (206, "5", f"bytes 5-9/{len(MODEL.layers[0])}") == (
        status,
        headers["content-length"],
        headers["content-range"],
    )
    assert 0 == registry.log.count("GET", "/blobs/")


def test_many_askers_cause_one_transfer(registry, url):
    ask(url, "GET", "/v2/team/smol/manifests/v1")
    registry.log.clear()
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda _: ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")[2], range(30)))
    assert [MODEL.layers[0]] * 30 == found
    assert 1 == registry.log.count("GET", "/manifests/"), "there were several pulls"
    assert 1 == registry.log.count("GET", f"/blobs/{DIGEST}")


def test_many_askers_for_a_tag_ask_upstream_together(tmp_path):
    arrived, released = [], threading.Event()

    def script(request):
        arrived.append(request.target)
        assert released.wait(20)
        return answer(200, MODEL.raw, {"Content-Type": MODEL.media_type})

    with ScriptedServer(script) as registry, mirror(tmp_path, registry.url) as url, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, url, "GET", "/v2/team/smol/manifests/v1") for _ in range(8)]
        assert eventually(lambda: arrived)
        time.sleep(0.3)  # for the others, which might ask as well
        released.set()
        assert {MODEL.raw} == {each.result()[2] for each in asked}
    assert len(arrived) < 4  # those that came when the first ones had their answer


def test_a_blob_of_which_nobody_has_seen_a_manifest_comes_alone(registry, url, tmp_path):
    assert MODEL.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")[2]
    assert MODEL.layers[0][10:20] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}", Range="bytes=10-19")[2]
    assert (1, 1) == (registry.log.count("GET", "/blobs/"), registry.log.count("HEAD", "/blobs/"))
    assert (names_of(MODEL.layers[0]), []) == (set(stored(tmp_path / "mirror")), links(tmp_path / "mirror"))


def test_our_own_client_fills_a_mirror_that_it_knows_as_one(registry, url, tmp_path):
    hosts = {host(registry.url): tk.HostOptions(mirrors=[url])}
    with client(tmp_path / "mine", hosts=hosts) as mine:
        mine.pull(f"{registry.url}/team/smol:v1")
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "mine"))
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "mirror"))
    assert 1 == registry.log.count("GET", f"/blobs/{DIGEST}")


@contextmanager
def held(model, after):
    """A registry that sends so many bytes of the first layer, and waits until it is released."""
    sent, released, digest = [], threading.Event(), digest_of(model.layers[0])

    def holding(app):
        def middle(environ, start_response):
            body = app(environ, start_response)
            is_held = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(f"/blobs/{digest}")
            return blocks(body) if is_held else body

        def blocks(body):
            try:
                for block in body:
                    for start in range(0, len(block), 64 * 1024):
                        if sum(sent) >= after:
                            assert released.wait(30)
                        sent.append(len(block[start : start + 64 * 1024]))
                        yield block[start : start + 64 * 1024]
            finally:
                getattr(body, "close", lambda: None)()

        return middle

    with running_registry(middleware=lambda app: holding(with_faults(app, NO_LIST))) as registry:
        model.put(registry.url, "team/smol", "v1")
        try:
            yield registry.url, released
        finally:
            released.set()


@pytest.mark.parametrize(
    ("model", "after"), [(Model([WEIGHTS[: 2 * MIB]]), MIB), (LARGE, 6 * MIB)], ids=["one stream", "three chunks"]
)
def test_a_blob_is_served_while_it_arrives(model, after, tmp_path):
    content = model.layers[0]
    with held(model, after) as (registry, released), mirror(tmp_path, registry) as url:
        ask(url, "GET", "/v2/team/smol/manifests/v1")
        with closing(http.client.HTTPConnection(host(url), timeout=20)) as connection:
            connection.request("GET", f"/v2/team/smol/blobs/{digest_of(content)}")
            response = connection.getresponse()
            assert str(len(content)) == response.headers["Content-Length"]
            first = response.read(100_000)
            assert not released.is_set()
            assert names_of(content).isdisjoint(stored(tmp_path))
            released.set()
            assert content == first + response.read()
        assert eventually(lambda: names_of(content) <= set(stored(tmp_path)))


def test_a_range_that_is_in_place_is_served_before_what_is_ahead_of_it(tmp_path):
    """The first chunk stands still; the second one is there."""
    released = threading.Event()

    def holding(app):
        def middle(environ, start_response):
            body = app(environ, start_response)
            is_first = environ.get("HTTP_RANGE", "").startswith("bytes=0-") and WEIGHTS_DIGEST in environ["PATH_INFO"]
            return blocks(body) if is_first else body

        def blocks(body):
            for block in body:
                yield block[:1000]
                assert released.wait(30)
                yield block[1000:]

        return middle

    options = tk.TransferOptions(chunk_size=8 * MIB, stall_timeout=30.0)
    with running_registry(middleware=holding) as registry:
        LARGE.put(registry.url, "team/smol", "v1")
        cache = tk.DiskCache(tmp_path, resume_threshold=8 * MIB)
        with tk.Registry(cache=cache, options=options) as pulling:
            upstreams = Upstreams(pulling, [registry.url])
            with Application(mirror=cache, upstreams=upstreams) as application, serving(application) as url:
                ask(url, "GET", "/v2/team/smol/manifests/v1")
                path = f"/v2/team/smol/blobs/{WEIGHTS_DIGEST}"
                status, _, found = ask(url, "GET", path, Range=f"bytes={20 * MIB}-{21 * MIB - 1}")
                assert not released.is_set()
                assert (206, WEIGHTS[20 * MIB : 21 * MIB]) == (status, found)
                released.set()
                assert WEIGHTS == ask(url, "GET", path)[2]


def test_wrong_content_cuts_its_readers_off_and_is_never_in_the_store(tmp_path):
    fault = FaultRule(corrupt(at=5), method="GET", path=f"/blobs/{DIGEST}")
    with running_registry(middleware=lambda app: with_faults(app, fault)) as registry:
        MODEL.put(registry.url, "team/smol", "v1")
        with mirror(tmp_path, registry.url) as url:
            ask(url, "GET", "/v2/team/smol/manifests/v1")
            for _ in range(2):
                with pytest.raises((http.client.IncompleteRead, AssertionError)):
                    status, _, found = ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")
                    assert 200 == status  # or there was nothing yet, and it is an error of upstream
                    pytest.fail(f"{len(found)} wrong bytes came as if they were whole")
        assert names_of(MODEL.layers[0]).isdisjoint(stored(tmp_path))
        assert [] == links(tmp_path)


def test_a_client_that_hangs_up_leaves_the_transfer_to_the_others(tmp_path):
    content = LARGE.layers[0]
    with held(LARGE, 6 * MIB) as (registry, released), mirror(tmp_path, registry) as url:
        ask(url, "GET", "/v2/team/smol/manifests/v1")
        with closing(http.client.HTTPConnection(host(url), timeout=20)) as connection:
            connection.request("GET", f"/v2/team/smol/blobs/{digest_of(content)}")
            with connection.getresponse() as response:
                response.read(1000)
        released.set()
        assert eventually(lambda: [f"{host(registry)}/team/smol/v1"] == links(tmp_path))


def test_an_index_brings_the_manifest_that_is_asked_for(registry, tmp_path):
    arm, amd = Model([b"for arm " * 100]), Model([b"for amd " * 100])
    for model, tag in ((arm, "arm"), (amd, "amd")):
        model.put(registry.url, "team/smol", tag)
    raw = index_of((arm, "linux/arm64/v8"), (amd, "linux/amd64"))
    put_manifest(registry.url, "team/smol", "v1", raw, OCI_INDEX)
    with mirror(tmp_path / "mirror", registry.url) as url, client(tmp_path / "mine") as mine:
        mine.pull(f"{url}/team/smol:v1", platform="linux/arm64/v8")
        assert eventually(lambda: [f"{host(registry.url)}/team/smol/v1"] == links(tmp_path / "mirror"))
        found = set(stored(tmp_path / "mirror"))
        assert names_of(arm.layers[0], arm.raw, raw) <= found
        assert names_of(amd.layers[0]).isdisjoint(found)


def test_a_model_whose_blobs_are_here_already_gets_its_name(registry, url, tmp_path):
    cache = tk.DiskCache(tmp_path / "mirror")
    for blob in MODEL.blobs:
        cache.put(blob)
    ask(url, "GET", "/v2/team/smol/manifests/v1")
    assert eventually(lambda: [f"{host(registry.url)}/team/smol/v1"] == links(tmp_path / "mirror"))


def test_a_tag_that_moves_upstream_moves_here(registry, url, tmp_path):
    with client(tmp_path / "mine") as mine:
        mine.pull(f"{url}/team/smol:v1")
        other = Model([b"other weights"]).put(registry.url, "team/smol", "v1")
        assert other.digest == str(mine.pull(f"{url}/team/smol:v1").digest)
    assert names_of(*other.blobs) <= set(stored(tmp_path / "mirror"))


# -- when upstream cannot be asked


def test_what_is_here_is_served_while_upstream_is_down(tmp_path):
    with running_registry() as registry:
        MODEL.put(registry.url, "team/smol", "v1")
        with mirror(tmp_path / "mirror", registry.url) as url, client(tmp_path / "mine") as mine:
            mine.pull(f"{url}/team/smol:v1")
            assert eventually(lambda: links(tmp_path / "mirror"))
    with mirror(tmp_path / "mirror", registry.url) as url:
        with client(tmp_path / "other") as other:
            assert MODEL.digest == str(other.pull(f"{url}/team/smol:v1").digest)
            assert ["v1"] == other.tags(f"{url}/team/smol")
        assert (502, "UNAVAILABLE") == code_of(ask(url, "GET", "/v2/team/smol/manifests/v2"))
        assert (502, "UNAVAILABLE") == code_of(ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(b'?')}"))
        assert (502, "UNAVAILABLE") == code_of(ask(url, "GET", "/v2/team/other/tags/list"))


@pytest.mark.parametrize(
    ("fault", "expected", "wait"),
    [
        (respond(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), (403, "DENIED"), None),
        (respond(403), (403, "DENIED"), None),
        (respond(404), (404, "MANIFEST_UNKNOWN"), None),
        (respond(429, headers={"Retry-After": "999"}), (429, "TOOMANYREQUESTS"), "999"),
        (respond(500, b"secret of the host"), (502, "UNAVAILABLE"), None),
        (respond(200, b"<html>"), (404, "MANIFEST_UNKNOWN"), None),
    ],
    ids=["401", "403", "404", "429", "500", "page"],
)
def test_what_upstream_says_is_told_without_its_words(tmp_path, fault, expected, wait):
    with running_registry(middleware=lambda app: with_faults(app, FaultRule(fault, path="/manifests/"))) as registry:
        with mirror(tmp_path, registry.url) as url:
            answered = ask(url, "GET", "/v2/team/smol/manifests/v1")
    assert (expected, wait) == (code_of(answered), answered[1].get("retry-after"))
    assert b"secret" not in answered[2]
    assert host(registry.url).encode() not in answered[2]


def test_a_blob_that_upstream_does_not_have_is_unknown(registry, url):
    missing = digest_of(b"missing")
    for method in ("GET", "HEAD"):
        assert 404 == ask(url, method, f"/v2/team/smol/blobs/{missing}")[0]
    assert (404, "BLOB_UNKNOWN") == code_of(ask(url, "GET", f"/v2/team/smol/blobs/{missing}"))


def test_a_transfer_that_fails_cuts_its_readers_off_and_the_next_one_goes_on(tmp_path):
    """Upstream refuses the last bytes, until it is repaired; what has come by then is not asked for again."""
    fault = FaultRule(respond(500), where=lambda environ: environ.get("HTTP_RANGE", "").startswith("bytes=16777216-"))
    broken = HTTPFaults(fault)
    with running_registry(middleware=broken) as registry, mirror(tmp_path, registry.url) as url:
        LARGE.put(registry.url, "team/smol", "v1")
        ask(url, "GET", "/v2/team/smol/manifests/v1")
        path = f"/v2/team/smol/blobs/{WEIGHTS_DIGEST}"
        with pytest.raises((http.client.IncompleteRead, AssertionError)):
            status, _, _ = ask(url, "GET", path)
            assert 502 != status  # it failed before a byte was there
        broken.set()
        registry.log.clear()
        assert WEIGHTS == ask(url, "GET", path)[2]
        sent = sum(request.sent for request in registry.log if WEIGHTS_DIGEST in request.path)
        assert 8 * MIB <= sent < len(WEIGHTS)


# -- names


def test_the_registry_is_the_one_that_the_client_names(tmp_path):
    with running_registry() as one, running_registry() as two:
        other = Model([b"of the second"])
        MODEL.put(one.url, "team/smol", "v1")
        other.put(two.url, "team/smol", "v1")
        with mirror(tmp_path, one.url, f"second.example={two.url}") as url:
            path = "/v2/team/smol/manifests/v1"
            assert [MODEL.raw, MODEL.raw] == [
                ask(url, "GET", path)[2],
                ask(url, "GET", f"{path}?ns={host(one.url)}")[2],
            ]
            assert other.raw == ask(url, "GET", f"{path}?ns=Second.Example")[2]
            assert other.raw == ask(url, "GET", path, OCI_Namespace=host(two.url))[2]
            assert (404, "MANIFEST_UNKNOWN") == code_of(ask(url, "GET", f"{path}?ns=169.254.169.254"))


def test_tags_come_from_upstream_in_pages(registry, url):
    MODEL.put(registry.url, "team/smol", "v3", "v2")
    status, headers, body = ask(url, "GET", "/v2/team/smol/tags/list?n=2")
    assert (200, ["v1", "v2"]) == (status, json.loads(body)["tags"])
    assert '</v2/team/smol/tags/list?n=2&last=v2>; rel="next"' == headers["link"]
    assert ["v3"] == json.loads(ask(url, "GET", "/v2/team/smol/tags/list?n=2&last=v2")[2])["tags"]
    assert (404, "NAME_UNKNOWN") == code_of(ask(url, "GET", "/v2/team/unknown/tags/list"))


def test_what_another_registry_brought_is_found_where_upstream_has_nothing(registry, url, tmp_path):
    cache, raw = tk.DiskCache(tmp_path / "mirror"), Model([b"weights"]).raw
    cache.put(b"weights")
    cache.link("other.example/team/mine:v1", raw)
    assert raw == ask(url, "GET", "/v2/team/mine/manifests/v1")[2]
    assert ["v1"] == json.loads(ask(url, "GET", "/v2/team/mine/tags/list")[2])["tags"]
    assert 404 == ask(url, "GET", f"/v2/team/mine/manifests/v1?ns={host(registry.url)}")[0]
    cache.link(f"{host(registry.url)}/team/gone:v1", raw)
    assert 404 == ask(url, "GET", "/v2/team/gone/manifests/v1")[0], "it was removed upstream"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://registry.example.com", ("registry.example.com", "https://", "registry.example.com")),
        ("http://127.0.0.1:5000/", ("127.0.0.1:5000", "http://", "127.0.0.1:5000")),
        ("docker.io=http://10.0.0.7:5000", ("docker.io", "http://", "10.0.0.7:5000")),
        ("localhost:5000", ("localhost:5000", "", "localhost:5000")),
        ("https+insecure://[::1]:5000", ("[::1]:5000", "https+insecure://", "[::1]:5000")),
    ],
)
def test_an_upstream_is_a_url_with_a_name_before_it(text, expected):
    found = Upstream.parse(text)
    assert expected == (found.name, found.scheme, found.host)


@pytest.mark.parametrize(
    "text", ["", "=", "ftp://h", "http://", "http://h/path", "http://u:p@h", "a=b=c", "a b", "h?x"]
)
def test_anything_else_is_no_upstream(text):
    with pytest.raises(ValueError, match="an upstream is"):
        Upstream.parse(text)


def test_a_model_is_served_that_is_larger_than_what_is_remembered(registry, tmp_path):
    """One layer of each of many models, asked for in another order than their manifests."""
    models = [
        Model([f"layer {number}".encode() * 10]).put(registry.url, "team/smol", f"v{number}") for number in range(80)
    ]
    with mirror(tmp_path, registry.url) as url:
        for number in range(80):
            ask(url, "GET", f"/v2/team/smol/manifests/v{number}")
        for model in models[:3] + models[-3:]:
            assert model.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(model.layers[0])}")[2]


def test_descriptions_of_a_blob_need_no_head(tmp_path):
    """A storage host may take no HEAD; the head of the answer to GET says how large the blob is."""
    content = b"hello"

    def script(request):
        if request.method == "HEAD":
            return answer(403)
        if "/blobs/" in request.target:
            return answer(200, content)
        return [Close()]

    with ScriptedServer(script) as registry, client(tmp_path) as mine:
        name = f"{registry.url}/team/smol@{digest_of(content)}"
        assert described(content)["size"] == mine.resolve_blob(name).size
        assert 5 == mine.pull_blob(name).size
        assert content == Path(mine.cache.path(digest_of(content))).read_bytes()
        assert 5 == mine.resolve_blob(name).size
    with client(tmp_path, offline=True) as mine:
        assert (5, 5) == (mine.resolve_blob(name).size, mine.pull_blob(name).size)
        with pytest.raises(tk.BlobNotFoundError):
            mine.pull_blob(f"{registry.url}/team/smol@{digest_of(b'?')}")
        with pytest.raises(tk.InvalidNameError, match="names no blob"):
            mine.pull_blob(f"{registry.url}/team/smol:v1")
