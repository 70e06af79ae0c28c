"""Uploads to the embedded registry, over real sockets."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import parse_qs, urljoin

import pytest
import requests

import transferkit as tk
from transferkit.testing import FaultRule, HTTPFaults, answer, respond, scripted_server
from transferkit.testing.registry import running_registry
from transferkit.testing.wire import Pause

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
SOON = tk.TransferOptions(retry=tk.RetryOptions(max_wait=0.01))
UNKNOWN_BLOB = answer(404, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown"}]}')
SIZES = [0, 1, 100, 16 * 1024, 1024 * 1024 + 1]
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def blobs(make_blobs, source):
    return make_blobs(source, SIZES)


def upload(registry, blobs, folder: Path, **keywords) -> tk.Report:
    return tk.upload(blobs, folder, base_url=registry.url, repository=REPOSITORY, **keywords)


def manifest_of(blobs: list[tk.Blob]) -> bytes:
    layers = [{"mediaType": "application/octet-stream", "digest": b.digest, "size": b.size} for b in blobs]
    # Two blanks and a newline: bytes that a parser would not give back.
    return json.dumps({"schemaVersion": 2, "layers": layers, "config": layers[0]}, indent=2).encode() + b"  \n"


def stored(registry, blobs) -> list[str]:
    return ["sha256:" + hashlib.sha256(registry.blob_path(b.digest).read_bytes()).hexdigest() for b in blobs]


def test_blobs_arrive_in_at_most_three_requests_each(registry, blobs, source):
    report = upload(registry, blobs, source)

    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert (5, sum(SIZES), 0) == (report.blobs, report.bytes, report.skipped)
    assert len(registry.log) == 3 * len(blobs)
    assert [5, 5, 5] == [registry.log.count(method=method) for method in ("HEAD", "POST", "PUT")]


def test_a_blob_that_is_there_is_not_sent(registry, blobs, source):
    upload(registry, blobs[:3], source)
    registry.log.clear()

    report = upload(registry, blobs, source)

    assert (3, SIZES[3] + SIZES[4]) == (report.skipped, report.bytes)
    assert 2 == registry.log.count(method="PUT")


def test_many_new_ones_are_hardly_asked_for(registry, make_blobs, source):
    """The first 16, the first that comes with its POST, the 16th after them and the 32nd after it."""
    blobs = make_blobs(source, range(1000, 1100))

    upload(registry, blobs, source, concurrency=1)

    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert [19, 100, 15] == [registry.log.count(method=method) for method in ("HEAD", "POST", "PUT")]


def test_the_longer_none_is_there_the_fewer_are_asked_for(registry, make_blobs, source):
    """One of 16, 32, 48 and so on up to 128; with the first 16, and one for the first that comes at once."""
    blobs = make_blobs(source, range(1000, 2000))

    upload(registry, blobs, source, concurrency=1)

    # The eight steps take 576 blobs; of the 408 others one of 128 is asked for, three times.
    assert 16 + 1 + 8 + 3 == registry.log.count(method="HEAD")


def test_once_one_is_there_the_others_are_asked_for_again(registry, make_blobs, source):
    """The last 40 are there. Three of them are sent, before one is asked for; 15 and no more in two requests."""
    blobs = make_blobs(source, range(1000, 1100))
    upload(registry, blobs[60:], source)
    registry.log.clear()

    report = upload(registry, blobs, source, concurrency=1)

    assert 37 == report.skipped
    assert (63, 15) == (registry.log.count(method="POST"), registry.log.count(method="PUT"))
    assert [b.digest for b in blobs] == stored(registry, blobs)


def test_a_server_error_on_head_is_an_error_and_not_an_absence(make_blobs, source, impatient):
    def failing(app):
        def middle(environ, start_response):
            if environ["REQUEST_METHOD"] == "HEAD":
                start_response("500 Internal Server Error", [("Content-Length", "0")])
                return [b""]
            return app(environ, start_response)

        return middle

    with running_registry(middleware=failing) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry, make_blobs(source, [10]), source, options=impatient)

        (error,) = caught.value.failures.values()
        assert isinstance(error, tk.RetriesExhaustedError)
        assert isinstance(error.__cause__, tk.ServerError)
        assert 0 == registry.log.count(method="POST")


def test_where_no_upload_may_begin_the_call_ends_and_no_other_blob_is_tried(make_blobs, source):
    blobs = make_blobs(source, [1000 + number for number in range(50)])
    denied = FaultRule(respond(403, '{"errors": [{"code": "DENIED"}]}'), method="POST", path="/uploads/")
    with running_registry(middleware=HTTPFaults(denied)) as registry:
        with pytest.raises(tk.DeniedError) as caught:
            upload(registry, blobs, source, concurrency=2)
        assert registry.log.count("POST") <= 2
    assert 4 == caught.value.exit_code


def test_a_blob_that_is_denied_fails_alone(make_blobs, source):
    blobs = make_blobs(source, [1000 + number for number in range(50)])
    fault = FaultRule(respond(403), method="PUT", path=blobs[7].digest)
    elsewhere = FaultRule(respond(403), method="POST", path="mount=")
    with running_registry(middleware=HTTPFaults(fault, elsewhere)) as registry:
        mounted = [tk.Blob(blob.digest, blob.size, source="another/model") for blob in blobs[:2]]
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry, [*mounted, *blobs[2:]], source, concurrency=2)
        assert [blobs[7].digest] == list(caught.value.failures)
        others = [blob for blob in blobs if blob is not blobs[7]]
        assert [blob.digest for blob in others] == stored(registry, others)


def test_a_refusal_for_now_is_none_for_all(make_blobs, source):
    blobs = make_blobs(source, [1000 + number for number in range(50)])
    later = FaultRule(respond(403, '{"errors": [{"code": "UNAVAILABLE"}]}'), method="POST", path="/uploads/", times=1)
    denied = FaultRule(respond(403), method="PUT", path=blobs[7].digest)
    with running_registry(middleware=HTTPFaults(later, denied)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry, blobs, source, concurrency=2, options=SOON)
    assert [blobs[7].digest] == list(caught.value.failures)


def test_a_blob_whose_commit_was_answered_by_an_error_was_not_there_already(make_blobs, source):
    (blob,) = make_blobs(source, [2_000_000])
    heard = []

    class Heard(tk.Trace):
        def done(self, descriptor):
            heard.append(("done", descriptor.digest))

        def cached(self, descriptor):
            heard.append(("cached", descriptor.digest))

    lost = FaultRule(respond(502, "bad gateway", after_app=True), method="PUT", times=1)
    with running_registry(middleware=HTTPFaults(lost)) as registry:
        report = upload(registry, [blob], source, trace=Heard(), options=SOON)
        assert (1, 1) == (registry.log.count("PUT"), registry.log.count("POST"))
    assert (0, 1, 2_000_000) == (report.skipped, report.retried, report.bytes)
    assert [("done", blob.digest)] == heard


def test_a_registry_that_takes_crumbs_of_parts_gets_it_in_one_request(make_blobs, source):
    (blob,) = make_blobs(source, [8 * 1024 * 1024])
    parts = []

    def say(request):
        if request.method == "PATCH":
            parts.append(len(request.body))
            return answer(202, headers={"Location": "/v2/a/b/blobs/uploads/1", "Range": f"0-{2 * len(parts) - 1}"})
        if request.method == "POST":
            return answer(202, headers={"Location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "PUT":
            parts.append(len(request.body))
            return answer(201, headers={"Docker-Content-Digest": blob.digest})
        return answer(404)

    with scripted_server(say) as server:
        tk.upload([blob], source, base_url=server.url, repository="a/b", options=tk.TransferOptions(part_size=1 << 20))
    assert 8 * [1 << 20] + [8 << 20] == parts


def test_a_blob_with_a_source_is_mounted(registry, blobs, source):
    tk.upload(blobs, source, base_url=registry.url, repository="library/other")
    registry.log.clear()

    report = upload(registry, [tk.Blob(b.digest, b.size, source="library/other") for b in blobs], source)

    assert (5, 0) == (report.mounted, report.bytes)
    assert 0 == registry.log.count(method="PUT")
    queries = [parse_qs(r.query) for r in registry.log if r.method == "POST"]
    assert {("library/other",)} == {tuple(q["from"]) for q in queries}


def test_a_mount_that_the_registry_declines_becomes_an_upload_in_the_same_session(registry, blobs, source):
    report = upload(registry, [tk.Blob(b.digest, b.size, source="library/nothing-here") for b in blobs], source)

    assert (0, sum(SIZES)) == (report.mounted, report.bytes)
    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert len(blobs) == registry.log.count(method="POST")


@pytest.mark.parametrize("relative", [True, False])
def test_a_location_is_followed_with_its_query_kept(make_blobs, source, relative):
    """Absolute or relative, as the registry likes; the query carries its state."""

    def middleware(app):
        def middle(environ, start_response):
            def start(status, headers, exc_info=None):
                host = f"http://{environ['HTTP_HOST']}"
                return start_response(
                    status,
                    [
                        (k, (v.removeprefix(host) if relative else host + v.removeprefix(host)) + "&keep=a%2Fb")
                        if k == "Location" and environ["REQUEST_METHOD"] == "POST"
                        else (k, v)
                        for k, v in headers
                    ],
                    exc_info,
                )

            return app(environ, start)

        return middle

    with running_registry(middleware=middleware) as registry:
        blobs = make_blobs(source, [1000])
        upload(registry, blobs, source)

        (put,) = [r for r in registry.log if r.method == "PUT"]
        assert "keep=a%2Fb" in put.query
        assert put.query.endswith(f"digest={blobs[0].digest}")


def test_a_redirect_to_storage_gets_the_body_and_no_credentials(make_blobs, source):
    """307 on the PUT: the body goes to the other origin, nothing of the user's does."""
    import requests

    class Authorization(requests.auth.AuthBase):
        def __call__(self, request):
            request.headers["Authorization"] = "Bearer secret"
            return request

    with running_registry() as storage:

        def redirecting(app):
            def middle(environ, start_response):
                if environ["REQUEST_METHOD"] == "PUT" and "/uploads/" in environ["PATH_INFO"]:
                    digest = parse_qs(environ["QUERY_STRING"])["digest"][0]
                    where = urljoin(storage.url, f"{session_location}&digest={digest}")
                    environ["wsgi.input"].read()
                    start_response("307 Temporary Redirect", [("Location", where), ("Content-Length", "0")])
                    return [b""]
                return app(environ, start_response)

            return middle

        begun = requests.post(f"{storage.url}/v2/bucket/a/blobs/uploads/", timeout=10)
        session_location = begun.headers["Location"]
        storage.log.clear()
        with running_registry(middleware=redirecting) as registry, requests.Session() as session:
            session.auth = Authorization()
            session.cookies.set("login", "secret", domain="127.0.0.1")
            session.headers["X-Custom"] = "secret"
            blobs = make_blobs(source, [300_000])
            calls = []
            report = upload(registry, blobs, source, session=session, progress=lambda *c: calls.append(c))

            assert {"Bearer secret"} == {r.headers.get("authorization") for r in registry.log}
        (put,) = storage.log
        assert 300_000 == put.received
        assert not {"authorization", "cookie", "x-custom"} & set(put.headers)
        assert [blobs[0].digest] == stored(storage, blobs)
    assert calls[-1] == (300_000, 300_000)
    assert 300_000 <= report.bytes


def test_the_manifest_goes_out_last_and_unchanged(registry, blobs, source):
    raw = manifest_of(blobs)
    hexdigest = hashlib.sha256(raw).hexdigest()

    upload(registry, blobs, source, manifest=raw, manifest_ref="v1", manifest_media_type=MEDIA_TYPE)

    assert ("PUT", f"/v2/{REPOSITORY}/manifests/v1") == (registry.log[-1].method, registry.log[-1].path)
    assert MEDIA_TYPE == registry.log[-1].headers["content-type"]
    fetched = tk.fetch_manifest("v1", base_url=registry.url, repository=REPOSITORY)
    assert raw == fetched.raw
    assert f"sha256:{hexdigest}" == fetched.digest
    assert {b.digest for b in blobs} == {d.digest for d in fetched.layers}


def test_a_manifest_without_a_tag_goes_under_its_digest(registry, blobs, source):
    raw = manifest_of(blobs)

    upload(registry, blobs, source, manifest=raw)

    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    assert raw == tk.fetch_manifest(digest, base_url=registry.url, repository=REPOSITORY).raw


def test_a_manifest_alone_is_pushed(registry, blobs, source):
    upload(registry, blobs, source)

    upload(registry, [], source, manifest=manifest_of(blobs), manifest_ref="later")

    assert manifest_of(blobs) == tk.fetch_manifest("later", base_url=registry.url, repository=REPOSITORY).raw


def test_a_registry_that_stores_another_manifest_is_caught(blobs, source):
    def lying(app):
        def middle(environ, start_response):
            def start(status, headers, exc_info=None):
                wrong = "sha256:" + 64 * "0"
                changed = [(k, wrong if k == "Docker-Content-Digest" else v) for k, v in headers]
                is_put = environ["REQUEST_METHOD"] == "PUT" and "/manifests/" in environ["PATH_INFO"]
                return start_response(status, changed if is_put else headers, exc_info)

            return app(environ, start)

        return middle

    with running_registry(middleware=lying) as registry:
        with pytest.raises(tk.DigestMismatchError, match="sha256:000000000000"):
            upload(registry, blobs, source, manifest=manifest_of(blobs), manifest_ref="v1")


def test_a_manifest_reference_that_is_another_digest_is_refused(registry, blobs, source):
    with pytest.raises(tk.DigestMismatchError):
        upload(registry, blobs, source, manifest=manifest_of(blobs), manifest_ref="sha256:" + 64 * "0")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"layers": {}}', b'{"layers": [], "manifests": []}'])
def test_a_malformed_manifest_is_refused_before_any_request(registry, blobs, source, raw):
    with pytest.raises(tk.InvalidManifestError):
        upload(registry, blobs, source, manifest=raw, manifest_ref="v1")
    assert len(registry.log) == 0


def test_a_tag_without_a_manifest_is_refused(registry, blobs, source):
    with pytest.raises(tk.InvalidManifestError, match="pass manifest="):
        upload(registry, blobs, source, manifest_ref="v1")


def remove(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("spoil", "requests_before"), [(remove, 0), (shorten, 0), (make_folder, 0), (change, None)])
def test_a_bad_source_file_is_named_and_no_manifest_goes_out(registry, blobs, source, spoil, requests_before):
    bad = source / tk.digest_to_path(blobs[4].digest)
    spoil(bad)

    with pytest.raises(tk.SourceError, match=bad.name) as caught:
        upload(registry, blobs, source, manifest=manifest_of(blobs), manifest_ref="v1")

    assert not caught.value.retryable
    if requests_before is not None:
        assert requests_before == len(registry.log)
    assert 0 == registry.log.count(path_contains="/manifests/")
    assert not registry.blob_path(blobs[4].digest).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_source_file_is_named(registry, blobs, source):
    (source / tk.digest_to_path(blobs[4].digest)).chmod(0)

    with pytest.raises(tk.SourceError, match="cannot be read: Permission denied"):
        upload(registry, blobs, source)


def test_a_file_that_is_empty_and_should_not_be_is_refused(registry, source, make_blobs):
    blob = tk.Blob("sha256:" + 64 * "a", 0)
    source.mkdir()
    (source / tk.digest_to_path(blob.digest)).write_bytes(b"")

    with pytest.raises(tk.SourceError, match="is empty"):
        upload(registry, [blob], source)


def test_several_bad_files_are_counted(registry, blobs, source):
    for blob in blobs[1:]:
        (source / tk.digest_to_path(blob.digest)).unlink()

    with pytest.raises(tk.SourceError, match="and 3 more files"):
        upload(registry, blobs, source)


def test_progress_ends_at_the_total(registry, blobs, source):
    calls = []
    upload(registry, blobs[:2], source)
    upload(registry, blobs, source, progress=lambda *figures: calls.append(figures))

    assert calls[0] == (0, sum(SIZES))
    assert calls[-1] == (sum(SIZES), sum(SIZES))


def test_an_upload_over_a_users_session(registry, blobs, source):
    import requests

    with requests.Session() as session:
        upload(registry, blobs, source, session=session)

    assert [b.digest for b in blobs] == stored(registry, blobs)


# -- blobs that the registry has confirmed, and does not find

UNKNOWN = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}'


def forgetful(times, *, loses=()):
    """A registry that does not find the blobs of a manifest a few times, and may really have lost some."""
    left = [times]

    def wrap(app):
        def middle(environ, start_response):
            if environ["REQUEST_METHOD"] == "PUT" and "/manifests/" in environ["PATH_INFO"] and left[0]:
                left[0] -= 1
                environ["wsgi.input"].read()
                for digest in loses if not left[0] else ():
                    gone = {**environ, "REQUEST_METHOD": "DELETE", "PATH_INFO": f"/v2/{REPOSITORY}/blobs/{digest}"}
                    list(app({**gone, "CONTENT_LENGTH": "0"}, lambda status, headers, exc_info=None: None))
                start_response("400 Bad Request", [("Content-Length", str(len(UNKNOWN)))])
                return [UNKNOWN]
            return app(environ, start_response)

        return middle

    return wrap


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr("transferkit.bulk._SETTLING", (0.01, 0.01, 0.01))


@pytest.mark.parametrize("times", [1, 3])
def test_a_registry_that_needs_a_moment_for_its_blobs_gets_it(make_blobs, source, soon, times):
    """image-registry#220 and konk#626."""
    with running_registry(middleware=forgetful(times)) as registry:
        blobs = make_blobs(source, [10, 20])
        report = upload(registry, blobs, source, manifest=manifest_of(blobs), manifest_ref="v1")

        assert 200 == requests.get(f"{registry.url}/v2/{REPOSITORY}/manifests/v1", timeout=10).status_code
        assert (30, 2, 0) == (report.bytes, registry.log.count(method="POST"), report.retried)


def test_what_a_registry_has_lost_is_sent_again(make_blobs, source, soon):
    lost = []
    with running_registry(middleware=forgetful(4, loses=lost)) as registry:
        blobs = make_blobs(source, [10, 20, 30])
        lost.append(blobs[1].digest)
        calls = []
        report = upload(
            registry,
            blobs,
            source,
            manifest=manifest_of(blobs),
            manifest_ref="v1",
            progress=lambda *figures: calls.append(figures),
        )

        assert 200 == requests.get(f"{registry.url}/v2/{REPOSITORY}/manifests/v1", timeout=10).status_code
        assert (80, 1, 4) == (report.bytes, report.retried, registry.log.count(method="POST"))
        assert (60, 60) == calls[-1]
        assert {60} == {total for _, total in calls}


def test_what_was_healed_while_that_was_sent_again_is_in_the_report(make_blobs, source, soon):
    (blob,) = make_blobs(source, [24 * 1024 * 1024])  # more than the buffers between two sockets hold
    commits, manifests = [], []

    def say(request):
        if "/manifests/" in request.target:
            manifests.append(request.method)
            return UNKNOWN_BLOB if len(manifests) <= 4 else answer(201)
        if request.method == "PUT":
            commits.append(request.target)
            return Pause() if len(commits) == 2 else answer(201, headers={"Docker-Content-Digest": blob.digest})
        return answer(202, headers={"Location": "/v2/a/b/uploads/1"}) if request.method == "POST" else answer(404)

    with scripted_server(say, read_body=False) as server:
        report = tk.upload(
            [blob],
            source,
            base_url=server.url,
            repository="a/b",
            manifest=manifest_of([blob]),
            manifest_ref="v1",
            options=tk.TransferOptions(stall_timeout=0.3),
        )
    assert (3, 1) == (len(commits), report.healed)
    assert ["healed"] == [event.kind for event in report.record.events if event.kind == "healed"]


def test_a_registry_that_never_finds_them_is_told_as_it_is(make_blobs, source, soon):
    with running_registry(middleware=forgetful(99)) as registry:
        blobs = make_blobs(source, [10])
        with pytest.raises(tk.BlobNotFoundError, match="MANIFEST_BLOB_UNKNOWN"):
            upload(registry, blobs, source, manifest=manifest_of(blobs), manifest_ref="v1")
        assert 1 == registry.log.count(method="POST")
