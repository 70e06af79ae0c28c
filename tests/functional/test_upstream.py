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
from transferkit.names import Reference
from transferkit.server import Application, serving
from transferkit.server.arriving import ArrivingBlocks
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


def before_the_cut(url, path):
    """Return what comes of a body that breaks off: nothing where upstream failed before the first byte."""
    try:
        answered = ask(url, "GET", path)
    except http.client.IncompleteRead as error:
        return error.partial
    assert (502, "UNAVAILABLE") == code_of(answered)
    return b""


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
                assert len(before_the_cut(url, f"/v2/team/smol/blobs/{DIGEST}")) < len(MODEL.layers[0])
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
        (respond(200, b"<html>"), (502, "UNAVAILABLE"), None),
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
        assert WEIGHTS.startswith(before_the_cut(url, path))
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


# -- what goes wrong upstream, and who waits for it


@pytest.mark.parametrize("size", [1000, 400_000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("fault", "expected", "wait"),
    [
        (respond(404), (404, "BLOB_UNKNOWN"), None),
        (respond(403), (403, "DENIED"), None),
        (respond(429, headers={"Retry-After": "999"}), (429, "TOOMANYREQUESTS"), "999"),
        (respond(500), (502, "UNAVAILABLE"), None),
    ],
    ids=["404", "403", "429", "500"],
)
@pytest.mark.parametrize("is_given", [True, False], ids=["of a model", "alone"])
def test_what_upstream_says_of_a_blob_is_told(tmp_path, size, fault, expected, wait, is_given):
    model = Model([b"x" * size])
    rule = FaultRule(fault, method="GET", path=f"/blobs/{digest_of(model.layers[0])}")
    with running_registry(middleware=lambda app: with_faults(app, rule)) as registry:
        model.put(registry.url, "team/smol", "v1")
        with mirror(tmp_path, registry.url) as url:
            if is_given:
                ask(url, "GET", "/v2/team/smol/manifests/v1")
            answered = ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(model.layers[0])}")
    assert (expected, wait) == (code_of(answered), answered[1].get("retry-after"))


@pytest.mark.parametrize("is_given", [True, False], ids=["by a manifest", "by HEAD"])
def test_a_blob_that_is_said_to_be_empty_is_not_believed_to_be(tmp_path, is_given):
    lie = json.dumps({"layers": [{**described(b"hello"), "size": 0}], "schemaVersion": 2}).encode()

    def script(request):
        if "/manifests/" in request.target:
            return answer(200, lie, {"Content-Type": MODEL.media_type})
        return answer(200, b"")

    with ScriptedServer(script) as registry, mirror(tmp_path, registry.url) as url:
        if is_given:
            assert lie == ask(url, "GET", "/v2/team/smol/manifests/v1")[2]
        assert 502 == ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(b'hello')}")[0]


def test_an_empty_blob_comes(registry, tmp_path):
    Model([b"", b"x"]).put(registry.url, "team/smol", "v1")
    with mirror(tmp_path, registry.url) as url:
        for _ in range(2):
            assert (200, b"") == ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(b'')}")[::2]


def test_two_manifests_of_one_tag_are_pulled_at_once(tmp_path):
    """The first one stands still; nobody waits for it who wants the other."""
    slow, quick = Model([WEIGHTS[: 2 * MIB]]), Model([b"for amd " * 100])
    with held(slow, MIB) as (registry, released), mirror(tmp_path, registry) as url:
        quick.put(registry, "team/smol", "amd")
        raw = index_of((slow, "linux/arm64"), (quick, "linux/amd64"))
        put_manifest(registry, "team/smol", "v2", raw, OCI_INDEX)
        for reference in ("v2", slow.digest, quick.digest):
            ask(url, "GET", f"/v2/team/smol/manifests/{reference}")
        with closing(http.client.HTTPConnection(host(url), timeout=20)) as connection:
            connection.request("GET", f"/v2/team/smol/blobs/{digest_of(slow.layers[0])}")
            with connection.getresponse() as response:
                assert slow.layers[0].startswith(response.read(1000))
                assert quick.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{digest_of(quick.layers[0])}")[2]
                assert not released.is_set()


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_an_old_manifest_does_not_take_its_tag_back(registry, url, tmp_path):
    new = Model([b"other weights"])
    ask(url, "GET", "/v2/team/smol/manifests/v1")
    new.put(registry.url, "team/smol", "v1")
    with client(tmp_path / "mine") as mine:
        mine.pull(f"{url}/team/smol:v1")
    assert eventually(lambda: links(tmp_path / "mirror"))
    assert MODEL.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")[2]
    assert eventually(lambda: not threads("transferkit-pull"))
    assert new.raw == tk.DiskCache(tmp_path / "mirror").manifest(f"{host(registry.url)}/team/smol:v1")


def test_a_request_that_needs_no_blob_begins_no_transfer(registry, url):
    ask(url, "GET", "/v2/team/smol/manifests/v1")
    path = f"/v2/team/smol/blobs/{DIGEST}"
    assert 304 == ask(url, "GET", path, If_None_Match=f'"{DIGEST}"')[0]
    assert 412 == ask(url, "GET", path, If_Match='"another"')[0]
    assert 416 == ask(url, "GET", path, Range="bytes=9999999-")[0]
    assert 0 == registry.log.count("GET", "/blobs/")


def test_the_head_comes_before_a_body_that_is_late(tmp_path, monkeypatch):
    """Clients wait for a head, but not for ever."""
    prepare = ArrivingBlocks.prepare
    monkeypatch.setattr(ArrivingBlocks, "prepare", lambda blocks: prepare(blocks, 0.2))
    with held(Model([b"x" * 1000]), 0) as (registry, released), mirror(tmp_path, registry) as url:
        ask(url, "GET", "/v2/team/smol/manifests/v1")
        with closing(http.client.HTTPConnection(host(url), timeout=20)) as connection:
            connection.request("GET", f"/v2/team/smol/blobs/{digest_of(b'x' * 1000)}")
            response = connection.getresponse()
            assert (200, "1000", False) == (response.status, response.headers["Content-Length"], released.is_set())
            released.set()
            assert b"x" * 1000 == response.read()


@contextmanager
def silent():
    """A registry that takes requests, and says nothing until the end."""
    asked, over = threading.Event(), threading.Event()

    def script(request):
        asked.set()
        over.wait(60)
        return [Close()]

    with ScriptedServer(script) as registry:
        try:
            yield registry.url, asked
        finally:
            over.set()


@pytest.mark.parametrize("path", ["manifests/v1", f"blobs/{DIGEST}", "tags/list"])
def test_an_end_does_not_wait_for_an_upstream_that_is_silent(tmp_path, path):
    with silent() as (registry, asked), ThreadPoolExecutor(2) as pool:
        with mirror(tmp_path, registry) as url:
            answered = pool.submit(ask, url, "GET", f"/v2/team/smol/{path}")
            assert asked.wait(20)
            pool.submit(ask, url, "GET", f"/v2/team/smol/{path}")  # who waits for the same answer
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert not threads("transferkit-question")
        assert not threads("transferkit-pull")
        assert isinstance(answered.exception(), OSError | http.client.HTTPException) or 502 == answered.result()[0]


def test_a_client_that_hangs_up_while_upstream_is_silent_leaves_its_thread(tmp_path):
    cache = tk.DiskCache(tmp_path)
    with silent() as (registry, asked), tk.Registry(cache=cache) as pulling:
        with Application(mirror=cache, upstreams=Upstreams(pulling, [registry])) as application:
            with serving(application, threads=2) as url:
                for number in range(4):
                    with closing(http.client.HTTPConnection(host(url), timeout=20)) as connection:
                        path = "manifests/v1" if number % 2 else f"blobs/{digest_of(bytes([number]))}"
                        connection.request("GET", f"/v2/team/smol/{path}")
                        assert asked.wait(20)
                assert 200 == ask(url, "GET", "/v2/")[0]
                application.close()


def test_a_pull_that_gets_no_thread_is_an_error_and_the_next_one_begins(registry, url, monkeypatch):
    start = threading.Thread.start

    def refused(thread):
        if thread.name == "transferkit-pull":
            raise RuntimeError("can't start new thread")
        start(thread)

    ask(url, "GET", "/v2/team/smol/manifests/v1")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert (502, "UNAVAILABLE") == code_of(ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}"))
    assert MODEL.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")[2]


def test_a_model_of_another_upstream_is_not_the_one_that_is_meant(tmp_path):
    with running_registry() as one, running_registry() as two:
        MODEL.put(two.url, "team/smol", "v1")
        with mirror(tmp_path, one.url, f"second.example={two.url}") as url:
            path = "/v2/team/smol/manifests/v1"
            assert MODEL.raw == ask(url, "GET", f"{path}?ns=second.example")[2]
            assert MODEL.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}?ns=second.example")[2]
            assert eventually(lambda: links(tmp_path))
            assert (404, "MANIFEST_UNKNOWN") == code_of(ask(url, "GET", path))


@pytest.mark.parametrize(
    ("url", "repository", "expected"),
    [
        ("http://registry", "model", "http://registry:80/model:v1"),
        ("https://registry", "team/model", "https://registry/team/model:v1"),
        ("https://registry.example.com", "model", "https://registry.example.com:443/model:v1"),
        ("https://registry.example.com", "team/model", "https://registry.example.com/team/model:v1"),
        ("http://10.0.0.1:5000", "a/b/c", "http://10.0.0.1:5000/a/b/c:v1"),
        ("localhost:5000", "model", "localhost:5000/model:v1"),
    ],
)
def test_no_other_host_is_asked_than_the_one_upstream(url, repository, expected):
    upstream = Upstream.parse(url)
    assert expected == upstream.model(repository, "v1")
    name = Reference.parse(expected).name
    assert (upstream.host_for(repository), repository) == (name.host, name.repository)


def test_what_nobody_has_verified_is_hashed_before_it_is_served(url, tmp_path):
    """Wrong content under a right name: it is fetched; where nobody is upstream, it is not there."""
    wrong, file = b"WEIGHTS " * 100_000, DIGEST.replace(":", "-")
    (tmp_path / "mirror" / "blobs").mkdir(parents=True, exist_ok=True)
    (tmp_path / "mirror" / "blobs" / file).write_bytes(wrong)
    assert MODEL.layers[0] == ask(url, "GET", f"/v2/team/smol/blobs/{DIGEST}")[2]
    (tmp_path / "other" / "blobs").mkdir(parents=True)
    (tmp_path / "other" / "blobs" / file).write_bytes(wrong)
    (tmp_path / "other" / "blobs" / digest_of(b"right").replace(":", "-")).write_bytes(b"right")
    with Application(mirror=tk.DiskCache(tmp_path / "other")) as application, serving(application) as alone:
        assert 404 == ask(alone, "GET", f"/v2/team/smol/blobs/{DIGEST}")[0]
        assert b"right" == ask(alone, "GET", f"/v2/team/smol/blobs/{digest_of(b'right')}")[2]


def test_one_model_is_listed_once_whoever_pulls_it(tmp_path):
    with held(LARGE, 6 * MIB) as (registry, released):
        cache = tk.DiskCache(tmp_path)
        with tk.Registry(cache=cache) as pulling:
            upstreams = Upstreams(pulling, [registry])
            with Application(registry=pulling, mirror=cache, upstreams=upstreams) as app, serving(app) as url:
                ask(url, "GET", "/v2/team/smol/manifests/v1")
                with ThreadPoolExecutor(2) as pool:
                    blob = pool.submit(ask, url, "GET", f"/v2/team/smol/blobs/{WEIGHTS_DIGEST}")
                    model = {"model": f"{registry}/team/smol:v1", "stream": False}
                    pulled = pool.submit(ask, url, "POST", "/api/pull", json.dumps(model).encode())
                    assert eventually(lambda: len(upstreams.pulls.running()) == 2)
                    listed = json.loads(ask(url, "GET", "/api/ps")[2])["models"]
                    assert [f"{host(registry)}/team/smol:v1"] == [each["name"] for each in listed]
                    released.set()
                    assert WEIGHTS == blob.result()[2]
                    assert {"status": "success"} == json.loads(pulled.result()[2])
