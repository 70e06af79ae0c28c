"""Copying from registry to registry: through bounded memory, nothing on disk, digests kept."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

import transferkit as tk
from tests.functional import models
from tests.functional.models import Model, ask, client, digest_of, get, host, index_of, put_blob, put_manifest
from transferkit.storage.layout import OCILayout
from transferkit.testing import FaultRule, HTTPFaults, respond, running_registry, truncate

WHERE = "library/model"


@pytest.fixture
def other():
    with running_registry() as running:
        yield running


def name_in(registry, repository: str = WHERE, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/{repository}:{tag}"


def has(registry, model, repository=WHERE, reference="v1") -> bool:
    blobs = [ask(registry.url, "GET", f"/v2/{repository}/blobs/{digest_of(content)}")[2] for content in model.blobs]
    return get(registry.url, repository, reference) == (200, model.raw) and blobs == model.blobs


def test_a_model_is_copied_byte_for_byte_and_nothing_is_stored(registry, other, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        copied = registries.copy(name_in(registry), name_in(other, "me/model", "v2"))
    assert has(other, model, "me/model", "v2")
    assert ("PUT", "/v2/me/model/manifests/v2") == next((r.method, r.path) for r in other.log if "manif" in r.path)
    assert (model.digest, False) == (copied.digest, (tmp_path / "c").exists())


def test_within_one_registry_blobs_are_mounted(registry, tmp_path):
    model = models.small().put(registry.url)
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        registries.copy(name_in(registry), name_in(registry, "me/copy"))
    assert [] == [r.path for r in registry.log if r.method == "GET" and "/blobs/" in r.path]
    assert 0 == sum(r.received for r in registry.log if "/blobs/" in r.path)
    assert has(registry, model, "me/copy")


def test_where_a_registry_does_not_mount_the_blobs_are_sent(tmp_path):
    refused = FaultRule(respond(403), method="POST", path="mount=")
    with running_registry(middleware=HTTPFaults(refused)) as registry, client(tmp_path / "c") as registries:
        model = models.small().put(registry.url)
        registries.copy(name_in(registry), name_in(registry, "me/copy"))
        assert has(registry, model, "me/copy")


def test_only_another_tag_sends_only_a_manifest(registry, tmp_path):
    model = models.small().put(registry.url)
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        registries.copy(name_in(registry), name_in(registry, tag="v2"))
    assert 0 == sum(r.received + r.sent for r in registry.log if "/blobs/" in r.path and r.method != "HEAD")
    assert has(registry, model, reference="v2")


def test_a_half_copied_target_is_completed(registry, other, tmp_path):
    model = models.small().put(registry.url)
    put_blob(other.url, WHERE, model.layers[0])
    other.log.clear()
    with client(tmp_path / "c") as registries:
        registries.copy(name_in(registry), name_in(other))
    assert has(other, model)
    assert len(model.config) + len(model.layers[1]) == sum(r.received for r in other.log if "/blobs/" in r.path)


def test_an_index_is_copied_with_all_platforms_or_as_the_manifest_for_one(registry, other, tmp_path):
    one, two = (Model([content]).put(registry.url, WHERE, tag) for content, tag in ((b"1", "a"), (b"2", "b")))
    inner = index_of((two, "linux/arm64"))
    put_manifest(registry.url, WHERE, digest_of(inner), inner, models.OCI_INDEX)
    raw = index_of((one, "linux/amd64"), (inner, "linux/arm64"))
    put_manifest(registry.url, WHERE, "v1", raw, models.OCI_INDEX)
    with client(tmp_path / "c") as registries:
        assert digest_of(raw) == registries.copy(name_in(registry), name_in(other)).digest
        single = registries.copy(name_in(registry), name_in(other, tag="arm"), platform="linux/arm64")
    assert (200, raw) == get(other.url, WHERE, "v1")
    assert has(other, one, reference=one.digest)
    assert has(other, two, reference="arm")
    assert two.digest == single.digest


def test_a_source_that_breaks_off_is_gone_on_with_and_the_upload_is_not_begun_again(other, tmp_path):
    data = random.Random(1).randbytes(3_000_000)
    cut = FaultRule(truncate(1_000_000), method="GET", path=digest_of(data), times=2)
    with running_registry(middleware=HTTPFaults(cut)) as registry, client(tmp_path / "c") as registries:
        model = Model([data]).put(registry.url)
        registry.log.clear()
        registries.copy(name_in(registry), name_in(other))
        asked = [r.headers.get("range") for r in registry.log if r.path.endswith(digest_of(data))]
    assert [None, "bytes=1000000-", "bytes=2000000-"] == asked
    sent = [r.received for r in other.log if r.method in ("PUT", "PATCH") and "/blobs/" in r.path]
    assert (len(data), 2) == (max(sent), len(sent))
    assert has(other, model)


def test_a_source_without_ranges_is_read_again_from_its_beginning(other, tmp_path):
    data = random.Random(2).randbytes(300_000)

    def without_ranges(app):
        def middle(environ, start_response):
            environ.pop("HTTP_RANGE", None)
            return app(environ, start_response)

        return middle

    def middleware(app):
        return HTTPFaults(FaultRule(truncate(100_000), method="GET", path=digest_of(data), times=1))(
            without_ranges(app)
        )

    with running_registry(middleware=middleware) as registry, client(tmp_path / "c") as registries:
        model = Model([data]).put(registry.url)
        registries.copy(name_in(registry), name_in(other))
    assert has(other, model)


def test_a_source_that_lies_does_not_get_into_the_target(registry, other, tmp_path):
    model = models.small().put(registry.url)
    path = registry.blob_path(digest_of(model.layers[0]))
    path.write_bytes(model.layers[0][::-1])
    with client(tmp_path / "c") as registries, pytest.raises(tk.IncompleteError) as caught:
        registries.copy(name_in(registry), name_in(other))
    assert [tk.DigestMismatchError] == [type(error) for error in caught.value.failures.values()]
    assert 404 == get(other.url, WHERE, "v1")[0]
    assert 404 == ask(other.url, "HEAD", f"/v2/{WHERE}/blobs/{digest_of(model.layers[0])}")[0]


def test_a_registry_that_loses_a_blob_meanwhile_gets_it_once_more(registry, tmp_path):
    model = models.small().put(registry.url)
    lost = digest_of(model.layers[0])
    faults = HTTPFaults()
    with running_registry(middleware=faults) as other, client(tmp_path / "c") as registries:

        def losing(app):
            def middle(environ, start_response):
                ask(other.url, "DELETE", f"/v2/{WHERE}/blobs/{lost}")
                return app(environ, start_response)

            return middle

        faults.set(FaultRule(losing, method="PUT", path="/manifests/", times=1))
        registries.copy(name_in(registry), name_in(other))
        assert has(other, model)


def test_memory_is_bounded_whatever_the_size(registry, other, tmp_path):
    size = 160 * 2**20
    block = random.Random(3).randbytes(2**20)
    model = Model([block * 160]).put(registry.url)
    code = (
        "import resource, sys; from transferkit.registry import Registry\n"
        "with Registry(cache=sys.argv[3]) as registry: print(registry.copy(sys.argv[1], sys.argv[2]).size)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == 'linux' else 2**20))\n"
    )
    # A child that is forked begins with the peak of its parent: another program in between does not.
    command = [sys.executable, "-c", code, name_in(registry), name_in(other), str(tmp_path / "c")]
    starter = f"import subprocess, sys; sys.exit(subprocess.run({command!r}).returncode)"
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=False)
    copied, megabytes = map(int, done.stdout.split())
    assert size + len(model.config) == copied
    assert megabytes < 90
    assert size == other.blob_path(digest_of(model.layers[0])).stat().st_size


# -- what refers to it


def referring(registry, subject: bytes, content: bytes, *, media_type: str = models.OCI_MANIFEST) -> Model:
    """Put a manifest that refers to another one: a signature."""
    model = Model(
        [content],
        config=b"{}",
        more={
            "artifactType": "application/vnd.example.signature",
            "subject": models.described(subject, media_type),
            "annotations": {"signed": "yes"},
        },
    )
    return model.put(registry.url, WHERE, model.digest)


def test_signatures_are_copied_when_asked_for_and_signatures_of_signatures(registry, other, tmp_path):
    model = models.small().put(registry.url)
    first = referring(registry, model.raw, b"signature")
    second = referring(registry, first.raw, b"signature of the signature")
    with client(tmp_path / "c") as registries:
        registries.copy(name_in(registry), name_in(other))
        assert 404 == get(other.url, WHERE, first.digest)[0]
        registries.copy(name_in(registry), name_in(other), referrers=True)
        found = registries.referrers(name_in(other))
        none = registries.referrers(name_in(other), artifact_type="application/vnd.example.other")
    assert has(other, first, reference=first.digest)
    assert has(other, second, reference=second.digest)
    assert ([first.digest], ["application/vnd.example.signature"], []) == (
        [each.digest for each in found],
        [each.artifact_type for each in found],
        none,
    )
    assert ("PUT", "/v2/library/model/manifests/v1") == [(r.method, r.path) for r in other.log if r.method == "PUT"][-1]


def test_a_registry_without_a_list_of_referrers_gets_them_under_a_tag(registry, tmp_path):
    """OCI distribution specification v1.1, "Referrers tag schema"; docker-registry is one."""
    model = models.small().put(registry.url)
    one, two = (referring(registry, model.raw, content) for content in (b"one", b"two"))
    nothing = FaultRule(respond(404), path="/referrers/")
    tag = model.digest.replace(":", "-")
    with running_registry(middleware=HTTPFaults(nothing)) as other, client(tmp_path / "c") as registries:
        theirs = referring(other, b"", b"theirs")
        put_manifest(other.url, WHERE, tag, index_of((theirs, None)), models.OCI_INDEX)
        for _ in range(2):  # the second time, all of them are there
            registries.copy(name_in(registry), name_in(other), referrers=True)
        entries = json.loads(get(other.url, WHERE, tag)[1])["manifests"]
        found = [each.digest for each in registries.referrers(name_in(other))]
    assert sorted([theirs.digest, one.digest, two.digest]) == sorted(each["digest"] for each in entries)
    assert sorted(found) == sorted(each["digest"] for each in entries)
    mine = next(each for each in entries if each["digest"] == one.digest)
    assert (len(one.raw), models.OCI_MANIFEST, "application/vnd.example.signature", {"signed": "yes"}) == (
        mine["size"],
        mine["mediaType"],
        mine["artifactType"],
        mine["annotations"],
    )


def answering(pages):
    """A registry that says of each manifest which others refer to it: ``pages(digest, query)`` are its answers."""

    def middleware(app):
        def middle(environ, start_response):
            path = environ["PATH_INFO"]
            if "/referrers/" not in path:
                return app(environ, start_response)
            entries, link = pages(path.rpartition("/")[2], environ["QUERY_STRING"])
            body = json.dumps({"schemaVersion": 2, "mediaType": models.OCI_INDEX, "manifests": entries}).encode()
            headers = [("Content-Length", str(len(body))), ("Content-Type", models.OCI_INDEX)]
            start_response("200 OK", [*headers, *([("Link", f'<{link}>; rel="next"')] if link else [])])
            return [body]

        return middle

    return middleware


def test_manifests_that_refer_to_each_other_have_an_end(other, tmp_path):
    """No honest registry can say so, as a digest cannot name itself."""
    known = []

    def pages(_digest, _query):
        return [models.described(model.raw, models.OCI_MANIFEST) for model in known], ""

    with running_registry(middleware=answering(pages)) as registry, client(tmp_path / "c") as registries:
        model = models.small().put(registry.url)
        known += [model, *(Model([b"%d" % n]).put(registry.url, WHERE, f"s{n}") for n in range(3))]
        registries.copy(name_in(registry), name_in(other), referrers=True)
    assert all(has(other, each, reference=each.digest) for each in known)


def test_pages_without_an_end_are_refused(other, tmp_path):
    def pages(digest, query):
        return [], f"/v2/{WHERE}/referrers/{digest}?page={int(query.partition('=')[2] or 0) + 1}"

    with running_registry(middleware=answering(pages)) as registry, client(tmp_path / "c") as registries:
        models.small().put(registry.url)
        registry.log.clear()
        with pytest.raises(tk.ProtocolError, match=r"a list of more than .* pages"):
            registries.copy(name_in(registry), name_in(other), referrers=True)
        assert len(registry.log) < 1_100
    assert 404 == get(other.url, WHERE, "v1")[0]


def test_manifests_that_refer_to_one_without_an_end_are_refused(other, tmp_path, monkeypatch):
    monkeypatch.setattr("transferkit.registry.copying._MOST", 5)
    made = []

    def pages(_digest, _query):
        model = Model([b"%d" % len(made)]).put(registry.url, WHERE, f"s{len(made)}")
        made.append(model)
        return [models.described(model.raw, models.OCI_MANIFEST)], ""

    with running_registry(middleware=answering(pages)) as registry, client(tmp_path / "c") as registries:
        models.small().put(registry.url)
        with pytest.raises(tk.ProtocolError, match="more than 5 manifests"):
            registries.copy(name_in(registry), name_in(other), referrers=True)
    assert (6, 404) == (len(made), get(other.url, WHERE, "v1")[0])


# -- an image layout as an end


def test_a_model_goes_into_a_layout_and_out_of_it(registry, other, tmp_path):
    model = models.small().put(registry.url)
    signature = referring(registry, model.raw, b"signature")
    layout = OCILayout(tmp_path / "layout")
    with client(tmp_path / "c") as registries:
        registries.copy(name_in(registry), layout.at("v1"), referrers=True)
        layout.pack(tmp_path / "layout.tar")
        registries.copy(layout.at("v1"), name_in(other), referrers=True)
        packed = OCILayout(tmp_path / "layout.tar")
        registries.copy(packed.at("v1"), name_in(other, "from/tar"))
    assert (["v1"], model.raw) == (layout.tags(), layout.document("v1").raw)
    for content in (*model.blobs, model.raw, signature.raw):
        path = tmp_path / "layout" / "blobs" / digest_of(content).replace(":", "/")
        assert content == path.read_bytes()
    assert has(other, model)
    assert has(other, signature, reference=signature.digest)
    assert has(other, model, "from/tar")


def test_a_large_blob_comes_into_a_layout_in_chunks(registry, tmp_path):
    data = random.Random(4).randbytes(3 * 2**20)
    Model([data]).put(registry.url)
    registry.log.clear()
    options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**20, resume_threshold=2**20)
    with client(tmp_path / "c", options=options) as registries:
        layout = OCILayout(tmp_path / "layout", resume_threshold=2**20)
        registries.copy(name_in(registry), layout.at("v1"))
    asked = [r.headers.get("range") for r in registry.log if r.path.endswith(f"blobs/{digest_of(data)}")]
    assert ["bytes=0-3145727"] == asked  # one chunk, as the registry's own list has it
    assert data == (tmp_path / "layout" / "blobs" / digest_of(data).replace(":", "/")).read_bytes()


def test_nothing_is_copied_under_a_name_that_is_none(tmp_path):
    with client(tmp_path / "c") as registries:
        for pair in (("://", "a"), ("a", "ftp://a"), ("a", 5)):
            with pytest.raises(tk.InvalidNameError):
                registries.copy(*pair)
    assert not os.path.exists(tmp_path / "c")
