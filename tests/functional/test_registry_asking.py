"""What a name stands for, in a registry and in the cache; what is refused; what is mended."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import requests

import transferkit as tk
from tests.functional import models
from tests.functional.models import Model, ask, client, digest_of, host, index_of, links, names_of, put_manifest, stored
from transferkit.registry import Registry, copy, defaults, pull, push
from transferkit.report import human_bytes
from transferkit.testing import FaultRule, HTTPFaults, answer, respond, running_registry, scripted_server, until_close
from transferkit.testing.wire import Close

WHERE = "library/model"
A = digest_of(b"a")


def name_in(registry, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/{WHERE}:{tag}"


class Panic(requests.Session):
    """A session that is not to be used."""

    def send(self, *_: object, **__: object):
        raise AssertionError("a request was sent")


# -- resolving


def test_a_tag_and_a_digest_are_resolved(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        for name in (
            name_in(registry),
            f"{name_in(registry)}@{model.digest}",
            f"{name_in(registry, 'x')}@{model.digest}",
        ):
            manifest = registries.resolve(name)
            assert (model.raw, [digest_of(content) for content in model.layers]) == (
                manifest.raw,
                [layer.digest for layer in manifest.layers],
            )
    assert not (tmp_path / "c").exists()


def test_a_mask_completes_names(registry, tmp_path):
    model = models.small().put(registry.url, WHERE, "latest")
    with client(tmp_path / "c", mask=f"{host(registry.url)}/library/_:latest") as registries:
        assert model.digest == registries.pull("model").digest == registries.resolve_local("MODEL").digest


def test_a_host_of_this_machine_is_asked_how_it_speaks_once(registry, tmp_path):
    models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.resolve(name_in(registry).removeprefix("http://"))
        registry.log.clear()
        registries.resolve(name_in(registry).removeprefix("http://"))
    assert 1 == len(registry.log)


@pytest.mark.parametrize("dialect", ["oci", "ollama"])
def test_a_pinned_digest_is_held_to_the_bytes(tmp_path, dialect):
    """Ollama's registry has manifests by their digests where the blobs are."""
    raw = models.small().raw
    with scripted_server(
        lambda request: answer(200, raw if request.target.endswith(digest_of(raw)) else raw + b" ")
    ) as server:
        hosts = frozenset({host(server.url)} if dialect == "ollama" else ())
        options = tk.TransferOptions(transport=tk.TransportOptions(ollama_hosts=hosts))
        with client(tmp_path / "c", options=options) as registries:
            name = f"http://{host(server.url)}/library/model"
            assert raw == registries.resolve(f"{name}@{digest_of(raw)}").raw
            with pytest.raises(tk.DigestMismatchError):
                registries.resolve(f"{name}@{A}")
            kind = "blobs" if dialect == "ollama" else "manifests"
            assert f"/v2/library/model/{kind}/{digest_of(raw)}" == server.requests[0].target


def test_a_digest_alone_has_no_repository(tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="is a digest alone"):
        registries.resolve(f"@{A}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("://", 'invalid or missing name: ""'),
        ("", 'invalid or missing name: ""'),
        ("ftp://m", 'unsupported scheme: "ftp": supported schemes are http, https, https+insecure'),
        ("m@sha256:x", 'invalid digest: "sha256:x"'),
        (None, "invalid or missing name"),
    ],
)
def test_what_is_no_name_is_refused_by_every_method(tmp_path, name, says):
    with client(tmp_path / "c", session=Panic()) as registries:
        for method in ("resolve", "resolve_local", "pull", "push", "unlink", "tags", "referrers", "plan"):
            with pytest.raises(tk.InvalidNameError) as caught:
                getattr(registries, method)(name)
            assert str(caught.value).startswith(says)


# -- refusals, as Ollama's own tests have them


def refused(tmp_path, reply, call="pull"):
    with scripted_server(lambda _: reply) as server, client(tmp_path / "c") as registries:
        with pytest.raises(tk.TransferKitError) as caught:
            getattr(registries, call)(f"http://{host(server.url)}/library/BOOM:latest")
        return caught.value, f"{server.url}/v2/library/BOOM/manifests/latest", len(server.requests)


def test_status_999_is_reported_at_once(tmp_path):
    error, url, asked = refused(tmp_path, answer(999, b'{"error": "boom"}'))
    assert (tk.RegistryError, 999, "boom", url, 1) == (type(error), error.status, error.message, error.url, asked)
    assert f"{url}: registry responded with status 999: boom" in str(error)


def test_a_code_is_said_with_its_message(tmp_path):
    error, _, _ = refused(tmp_path, answer(400, b'{"errors": [{"code": "X", "message": "message"}]}'))
    assert str(error).endswith("registry responded with status 400: code X: message")


@pytest.mark.parametrize("status", [400, 403, 404, 500])
@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "manifest_unknown"])
def test_an_unknown_manifest_is_a_model_that_is_not_found(tmp_path, status, code):
    body = json.dumps({"errors": [{"code": code, "message": "manifest unknown"}]}).encode()
    for call in ("resolve", "pull", "plan"):
        error, _, asked = refused(tmp_path, answer(status, body), call)
        assert (tk.ManifestNotFoundError, 1) == (type(error), asked)
        assert 'library/BOOM:latest" not found' in str(error)
        assert str(error).startswith('model "http://127.0.0.1:')


def test_a_bare_404_says_its_status(tmp_path):
    error, _, _ = refused(tmp_path, answer(404))
    assert isinstance(error, tk.ManifestNotFoundError)
    assert "registry responded with status 404; check the name" in str(error)


def test_a_cut_blob_says_how_much_came(tmp_path):
    raw = Model([b"0123456789"], config=None).raw

    def script(request):
        return answer(200, raw) if "/manifests/" in request.target else until_close(b"01234")

    with scripted_server(script) as server, client(tmp_path / "c") as registries:
        with pytest.raises(tk.IncompleteError, match="incomplete: received 5/10 bytes"):
            registries.pull(f"http://{host(server.url)}/library/model")


# -- confused manifests


def layer(content: bytes = b"a", **changes) -> dict:
    return {**models.described(content), **changes}


LAYERS = {"schemaVersion": 2, "layers": [layer()]}
DEEP = b'{"layers":' + 100_000 * b"[" + 100_000 * b"]" + b"}"
CONFUSED = {
    "both": ({**LAYERS, "manifests": []}, "both layers and manifests"),
    "index with layers": ({**LAYERS, "mediaType": models.OCI_INDEX}, "and has layers"),
    "manifest with manifests": ({"mediaType": models.OCI_MANIFEST, "manifests": []}, "and has manifests"),
    "null layers": ({"config": layer(), "layers": None}, "layers are null"),
    "null manifests": ({"manifests": None}, "manifests are null"),
    "a layer that is null": ({"layers": [None]}, "not a JSON object"),
    "negative": ({"layers": [layer(size=-1)]}, "should be between 0 and"),
    "absurd": ({"layers": [layer(size=2**63)]}, "should be between 0 and"),
    "a fraction": ({"layers": [layer(size=1.5)]}, "a number of bytes"),
    "true": ({"layers": [layer(size=True)]}, "a number of bytes"),
    "a text": ({"layers": [layer(size="1")]}, "a number of bytes"),
    "no size": ({"layers": [{"digest": A}]}, "a number of bytes"),
    "two sizes": ({"layers": [layer(), layer(size=2)]}, "two sizes"),
    "no digest": ({"layers": [layer(digest="sha256:x")]}, "malformed"),
    "a path": ({"layers": [layer(digest="sha256:../../x")]}, "malformed"),
    "NaN": (b'{"layers": [], "x": NaN}', "not JSON"),
    "infinity": (b'{"layers": [], "x": -Infinity}', "not JSON"),
    "deep": (DEEP, "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "nothing": (b"", "not JSON"),
    "schema 1": ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
    "an error": ({"errors": [{"code": "X"}]}, "an error and no manifest"),
}


@pytest.mark.parametrize("name", CONFUSED)
def test_a_confused_manifest_is_refused_with_the_reason(tmp_path, name):
    content, why = CONFUSED[name]
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with scripted_server(lambda _: answer(200, raw)) as server, client(tmp_path / "c") as registries:
        for call in ("resolve", "pull", "plan"):
            with pytest.raises(tk.InvalidManifestError, match=why):
                getattr(registries, call)(f"http://{host(server.url)}/library/model")
    assert ({}, []) == (stored(tmp_path / "c"), links(tmp_path / "c"))


def test_what_the_server_calls_it_must_be_what_it_is(tmp_path):
    raw = json.dumps(LAYERS).encode()
    with (
        scripted_server(lambda _: answer(200, raw, {"Content-Type": models.OCI_INDEX})) as server,
        client(tmp_path / "c") as registries,
        pytest.raises(tk.InvalidManifestError, match=r"is called .*index.* and has layers"),
    ):
        registries.pull(f"http://{host(server.url)}/library/model")


def test_more_than_4_mib_are_not_read(tmp_path):
    raw = b'{"layers": []}' + 5 * 2**20 * b" "
    with (
        scripted_server(lambda _: answer(200, raw)) as server,
        client(tmp_path / "c") as registries,
        pytest.raises(tk.ProtocolError, match="4194304"),
    ):
        registries.pull(f"http://{host(server.url)}/library/model")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size": 1}, "bytes, and the index says 1"),
        ({"mediaType": models.OCI_INDEX}, "is a manifest, and its index calls it"),
    ],
)
def test_an_index_that_says_something_else_of_a_manifest_is_refused(registry, tmp_path, change, why):
    model = models.small().put(registry.url)
    raw = json.dumps({"manifests": [{**models.described(model.raw, models.OCI_MANIFEST), **change}]}).encode()
    put_manifest(registry.url, WHERE, "v2", raw, models.OCI_INDEX)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidManifestError, match=why):
        registries.pull(name_in(registry, "v2"), platform="all")


def test_two_manifests_that_give_one_blob_two_sizes_are_refused(registry, tmp_path):
    one = Model([b"a"], config=None).put(registry.url)
    raw = json.dumps({"layers": [layer(size=7)]}).encode()
    put_manifest(registry.url, WHERE, "lie", raw)
    index = json.dumps({"manifests": [models.described(each, models.OCI_MANIFEST) for each in (one.raw, raw)]}).encode()
    put_manifest(registry.url, WHERE, "v2", index, models.OCI_INDEX)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidManifestError, match="contradict each other"):
        registries.pull(name_in(registry, "v2"), platform="all")


def test_the_urls_of_a_foreign_layer_are_ignored(registry, tmp_path):
    Model([b"a"], config=None).put(registry.url)
    with scripted_server(lambda _: answer(200, b"a")) as foreign:
        raw = json.dumps({"layers": [layer(urls=[f"{foreign.url}/layer"])]}).encode()
        put_manifest(registry.url, WHERE, "v2", raw)
        with client(tmp_path / "c", auth=("user", "secret")) as registries:
            registries.pull(name_in(registry, "v2"))
        assert [] == foreign.requests
    assert names_of(b"a", raw) == set(stored(tmp_path / "c"))


def _foreign_layer(registry, urls, **more):
    """Put a manifest whose one layer, b"a", the registry does not have."""
    raw = json.dumps({"mediaType": models.OCI_MANIFEST, "layers": [layer(urls=urls, **more)]}).encode()
    put_manifest(registry.url, WHERE, "v2", raw)
    return raw


def test_a_foreign_layer_comes_from_its_urls_where_that_is_wanted(registry, tmp_path):
    with scripted_server(lambda request: answer(404 if "gone" in request.target else 200, b"a")) as foreign:
        raw = _foreign_layer(registry, [f"{foreign.url}/gone", 7, "ftp://host/x", f"{foreign.url}/layer"])
        with client(tmp_path / "c", auth=("user", "secret"), token=None) as registries:
            with pytest.raises(tk.IncompleteError, match=r"BLOB_UNKNOWN|unknown"):
                registries.pull(name_in(registry, "v2"))
            assert [] == foreign.requests
            registries.pull(name_in(registry, "v2"), foreign=True)
        assert ["/gone", "/layer"] == [request.target for request in foreign.requests]
        assert not any("authorization" in request.headers for request in foreign.requests)
    assert names_of(b"a", raw) == set(stored(tmp_path / "c"))


def test_a_large_foreign_layer_comes_in_chunks_and_a_wrong_one_is_refused(registry, tmp_path):
    content = bytes(range(256)) * 40
    digest = models.digest_of(content)

    def script(request):
        match = re.match(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if "wrong" in request.target or match is None:
            return answer(200, bytes(len(content)) if "wrong" in request.target else content)
        first, last = int(match[1]), int(match[2])
        return answer(206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    options = tk.TransferOptions(
        chunk_threshold=4000, chunk_size=3000, resume_threshold=4000, retry=models.IMPATIENT.retry
    )
    with scripted_server(script) as foreign:
        _foreign_layer(registry, [f"{foreign.url}/layer"], digest=digest, size=len(content))
        with client(tmp_path / "c", options=options) as registries:
            registries.pull(name_in(registry, "v2"), foreign=True)
            assert content == Path(registries.cache.path(digest)).read_bytes()
        assert 4 == sum("range" in request.headers for request in foreign.requests)
        _foreign_layer(registry, [f"{foreign.url}/wrong"], digest=digest, size=len(content))
        with client(tmp_path / "d", options=options) as registries, pytest.raises(tk.IncompleteError) as caught:
            registries.pull(name_in(registry, "v2"), foreign=True)
        assert isinstance(caught.value.failures[digest], tk.VerificationError)


def _served_by(foreign_script, registry, tmp_path, urls, content=b"a" * 5000, **options):
    """Pull a model with a foreign layer; return what its hosts were asked for."""
    with scripted_server(foreign_script) as foreign:
        digest = models.digest_of(content)
        _foreign_layer(registry, [f"{foreign.url}/{url}" for url in urls], digest=digest, size=len(content))
        with client(tmp_path / "c", options=tk.TransferOptions(retry=models.IMPATIENT.retry, **options)) as registries:
            registries.pull(name_in(registry, "v2"), foreign=True)
            assert content == Path(registries.cache.path(digest)).read_bytes()
        return [request.target for request in foreign.requests]


@pytest.mark.parametrize(
    "bad",
    [answer(200, b"x" * 5000), [answer(200, b"a" * 5000)[:-100], Close()], answer(200, b"short"), answer(404)],
    ids=["wrong", "cut", "short", "gone"],
)
@pytest.mark.parametrize("options", [{}, {"chunk_threshold": 4000, "chunk_size": 3000, "resume_threshold": 4000}])
def test_a_foreign_host_that_fails_is_left_for_the_next(registry, tmp_path, bad, options):
    def script(request):
        if "bad" in request.target:
            return bad
        match = re.match(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if match is None:
            return answer(200, b"a" * 5000)
        first, last = int(match[1]), int(match[2])
        fields = {"Content-Range": f"bytes {first}-{last}/5000"}
        return answer(206, b"a" * (last + 1 - first), fields)

    assert {"/bad", "/good"} == set(_served_by(script, registry, tmp_path, ["bad", "good"], **options))


def test_a_foreign_host_that_is_busy_is_asked_again_whatever_the_one_before_it_said(registry, tmp_path):
    busy = [answer(503)]
    asked = _served_by(
        lambda request: answer(404) if "bad" in request.target else busy.pop() if busy else answer(200, b"a" * 5000),
        registry,
        tmp_path,
        ["bad", "good"],
    )
    assert 2 == asked.count("/good")


@pytest.mark.parametrize("url", ["{}/refused", "http://127.0.0.1:1/nobody", "http://no-such-host.invalid/layer"])
def test_a_foreign_host_that_fails_does_not_end_the_others(registry, tmp_path, url):
    there = [b"%d" % number for number in range(5)]
    Model(there, config=None).put(registry.url)
    options = tk.TransferOptions(concurrency=1, retry=models.IMPATIENT.retry)
    with scripted_server(lambda request: answer(401)) as foreign:
        layers = [layer(urls=[url.format(foreign.url)]), *map(models.described, there)]
        put_manifest(registry.url, WHERE, "v2", json.dumps({"layers": layers}).encode())
        with client(tmp_path / "c", options=options) as registries, pytest.raises(tk.IncompleteError) as caught:
            registries.pull(name_in(registry, "v2"), foreign=True)
    assert [A] == list(caught.value.failures)
    assert names_of(*there) <= set(stored(tmp_path / "c"))


# -- the cache alone


def test_what_asks_the_cache_alone_sends_no_request(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
    registry.log.clear()
    with client(tmp_path / "c", session=Panic()) as registries:
        assert model.raw == registries.resolve_local(name_in(registry)).raw
        assert model.raw == registries.resolve_local(f"{name_in(registry, 'x')}@{model.digest}").raw
        assert model.raw == registries.resolve_local(f"@{model.digest}").raw
        assert [True, False] == [registries.unlink(name_in(registry)) for _ in range(2)]
        with pytest.raises(tk.ManifestNotFoundError, match=r'model ".*library/model:v1" not found in'):
            registries.resolve_local(name_in(registry))
        with pytest.raises(tk.ManifestNotFoundError, match="not found in"):
            registries.resolve_local(f"{name_in(registry)}@{A}")
    assert (0, []) == (len(registry.log), links(tmp_path / "c"))
    assert names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))


def test_offline_the_cache_answers_and_says_what_is_missing(registry, tmp_path, monkeypatch):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
    monkeypatch.setenv("TRANSFERKIT_OFFLINE", "1")
    with client(tmp_path / "c", session=Panic()) as registries:
        assert model.digest == registries.pull(name_in(registry)).digest == registries.resolve(name_in(registry)).digest
        assert ["v1"] == registries.tags(name_in(registry))
        assert 0 == registries.plan(name_in(registry)).bytes
        for content in model.layers:
            os.unlink(registries.cache.path(digest_of(content)))
        with pytest.raises(tk.IncompleteError) as caught:
            registries.pull(name_in(registry))
        assert {digest_of(content) for content in model.layers} == set(caught.value.failures)
        for call in (registries.push, registries.referrers, lambda name: registries.copy(name, f"{name}2")):
            with pytest.raises(tk.ConnectError, match="offline"):
                call(name_in(registry))
        with pytest.raises(tk.ManifestNotFoundError):
            registries.pull(name_in(registry, "v2"))


# -- lists and plans


def test_tags_are_listed_in_the_order_of_the_registry_over_all_pages(registry, tmp_path):
    tags = [f"v{number:03}" for number in range(12)]
    models.small().put(registry.url, WHERE, *tags)

    def three(app):
        def middle(environ, start_response):
            if environ["PATH_INFO"].endswith("/tags/list"):
                environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("n=1000", "n=3")
            return app(environ, start_response)

        return middle

    with running_registry(registry.store, middleware=three) as paged, client(tmp_path / "c") as registries:
        assert tags == registries.tags(name_in(paged))
        assert 4 == paged.log.count("GET", "/tags/list")
        with pytest.raises(tk.NotFoundError):
            registries.tags(f"http://{host(paged.url)}/library/nothing")


def test_a_plan_says_what_a_pull_would_move(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        plan = registries.plan(name_in(registry))
        total = sum(map(len, model.blobs))
        assert (3, 0, total, total) == (plan.blobs, plan.present, plan.bytes, plan.needed)
        assert not (tmp_path / "c").exists()
        registries.pull(name_in(registry))
        os.unlink(registries.cache.path(digest_of(model.layers[1])))
        plan = registries.plan(name_in(registry))
    assert (3, 2, len(model.layers[1])) == (plan.blobs, plan.present, plan.bytes)


# -- repair


def damage(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"\0damaged")


def test_what_is_wrong_or_missing_is_fetched_again_and_nothing_else(registry, tmp_path):
    model = Model([b"weights " * 1000, b"licence of it", b"third"]).put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        assert [] == registries.repair()
        damage(registries.cache.path(digest_of(model.layers[0])))
        os.unlink(registries.cache.path(digest_of(model.layers[1])))
        damage(registries.cache.path(model.digest))
        registry.log.clear()
        healed = registries.repair(name_in(registry))
        assert {digest_of(model.layers[0]), digest_of(model.layers[1]), model.digest} == set(healed)
        assert [] == registries.repair()
    fetched = [r.path.rpartition("/")[2] for r in registry.log if r.method == "GET" and "/blobs/" in r.path]
    assert sorted([digest_of(model.layers[0]), digest_of(model.layers[1])]) == sorted(fetched)
    assert names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))
    assert all(name == content for name, content in stored(tmp_path / "c").items())


def test_a_digest_without_a_tag_is_no_name_to_repair(tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="has no tag"):
        registries.repair(f"h.example/team/model@{digest_of(b'')}")


@pytest.mark.parametrize("named", [True, False])
def test_of_an_index_what_was_pulled_is_repaired(registry, tmp_path, named):
    one, two = (Model([content]).put(registry.url, WHERE, tag) for content, tag in ((b"1" * 99, "a"), (b"2", "b")))
    raw = index_of((one, "linux/amd64"), (two, "linux/arm64"))
    put_manifest(registry.url, WHERE, "v1", raw, models.OCI_INDEX)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), platform="linux/amd64")
        assert [] == registries.repair()
        for digest in (one.digest, digest_of(one.layers[0])):
            damage(registries.cache.path(digest))
        healed = registries.repair(*[name_in(registry)] * named)
        assert {one.digest, digest_of(one.layers[0])} == set(healed)
        assert [] == registries.cache.verify()
    assert names_of(*one.blobs, one.raw, raw) == set(stored(tmp_path / "c"))


def test_an_index_without_any_manifest_is_pulled_again(registry, tmp_path):
    model = Model([b"1" * 99]).put(registry.url, WHERE, "a")
    put_manifest(registry.url, WHERE, "v1", index_of((model, None)), models.OCI_INDEX)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        os.unlink(registries.cache.path(model.digest))
        os.unlink(registries.cache.path(digest_of(model.layers[0])))
        registries.repair()
        assert model.digest == registries.resolve_local(f"@{model.digest}").digest
        assert [] == registries.repair()
    assert names_of(*model.blobs) < set(stored(tmp_path / "c"))


@pytest.mark.parametrize("content", [b"", b"{", b"null"])
def test_a_manifest_that_is_none_is_pulled_again_and_hides_no_other(registry, tmp_path, content):
    model = models.small().put(registry.url, WHERE, "v1", "v2")
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        registries.pull(name_in(registry, "v2"))
        (tmp_path / "c" / "manifests" / host(registry.url) / WHERE / "v1").write_bytes(content)
        damage(registries.cache.path(digest_of(model.layers[0])))
        registries.repair()
        assert model.raw == registries.resolve_local(name_in(registry)).raw
        assert [] == registries.cache.verify()


def test_what_cannot_be_had_again_is_an_error(tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        model = models.small().put(registry.url)
        registries.pull(name_in(registry))
        damage(registries.cache.path(digest_of(model.layers[0])))
        faults.set(FaultRule(respond(404), method="GET", path="/blobs/"))
        with pytest.raises(tk.IncompleteError):
            registries.repair()
        with pytest.raises(tk.ManifestNotFoundError):
            registries.repair(name_in(registry, "nothing"))


# -- arguments, and the default registry


@pytest.mark.parametrize("keyword", ["progress", "trace", "cancel", "logger"])
@pytest.mark.parametrize("method", ["resolve", "pull", "push", "tags", "referrers", "plan", "repair"])
def test_a_wrong_type_is_refused_before_anything_is_done(tmp_path, method, keyword):
    with (
        client(tmp_path / "c", session=Panic()) as registries,
        pytest.raises(TypeError, match=rf"{keyword} is .*, not"),
    ):
        getattr(registries, method)("localhost:9/m/m", **{keyword: 3})


@pytest.mark.parametrize(
    ("method", "keywords"),
    [
        ("pull", {"platform": 3}),
        ("plan", {"platform": b"linux"}),
        ("push", {"files": "a.bin"}),
        ("push", {"files": 5}),
        ("push", {"annotations": ["a"]}),
        ("push", {"artifact_type": 5}),
        ("push", {"source": 5}),
        ("pull", {"nothing": 5}),
    ],
)
def test_a_wrong_type_of_an_argument_is_refused(tmp_path, method, keywords):
    with client(tmp_path / "c", session=Panic()) as registries, pytest.raises(TypeError):
        getattr(registries, method)("localhost:9/m/m", **keywords)


@pytest.mark.parametrize("keywords", [{"options": {}}, {"auth": "user:secret"}, {"session": 5}, {"hosts": ["a"]}])
def test_a_registry_refuses_a_wrong_type(tmp_path, keywords):
    with pytest.raises(TypeError, match=r" is .*, not ") as caught:
        Registry(cache=tmp_path, **keywords)
    assert "secret" not in str(caught.value)


def test_progress_draws_a_bar(registry, tmp_path, capsys):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), progress=True)
        assert f"model: {human_bytes(sum(map(len, model.blobs)))} of " in capsys.readouterr().err
        registries.repair(progress=True)
        assert "verify: " in capsys.readouterr().err
        registries.push(name_in(registry, "v2"), source=name_in(registry), progress=True)
        registries.copy(name_in(registry), name_in(registry, "v3"), progress=True)
    assert 2 == capsys.readouterr().err.count("(100 %)")


@pytest.fixture
def default(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "c"))
    defaults._made.clear()
    yield
    for made in defaults._made.values():
        made.close()
    defaults._made.clear()


@pytest.mark.usefixtures("default")
def test_the_functions_use_one_registry_that_is_made_when_it_is_needed(registry, tmp_path):
    model = models.small().put(registry.url)
    assert {} == defaults._made
    manifest = pull(name_in(registry))
    push(name_in(registry, "v2"), source=name_in(registry))
    copy(name_in(registry), name_in(registry, "v3"))
    assert model.digest == manifest.digest
    assert 1 == len(defaults._made)
    assert [200, 200] == [ask(registry.url, "GET", f"/v2/{WHERE}/manifests/{tag}")[0] for tag in ("v2", "v3")]
    assert 1 == len(links(tmp_path / "c"))


@pytest.mark.usefixtures("default")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_makes_its_own(registry):
    models.small().put(registry.url, WHERE, "v1", "v2")
    pull(name_in(registry))
    mine = defaults.default()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if pull(name_in(registry, "v2")) and defaults.default() is not mine else 1)
        except BaseException:
            os._exit(2)
    assert 0 == os.waitpid(child, 0)[1]
    assert mine is defaults.default()
