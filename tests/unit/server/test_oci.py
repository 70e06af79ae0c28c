"""The registry as a whole: dispatch, names, refusals. Hostile text must end in a 4xx that says which rule it broke."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from werkzeug.test import Client

import transferkit.server
from transferkit.server import OCIRegistry

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
HEX = HELLO[7:]
SESSION = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_ping_names_the_api(client: Client, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.data, answer.headers["Content-Type"]) == (200, b"{}", "application/json")
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_error_has_the_form_of_the_specification(client: Client) -> None:
    answer = client.get(f"/v2/a/blobs/{HELLO}")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "errors": [
            {"code": "BLOB_UNKNOWN", "message": "the repository has no such blob", "detail": {"digest": HELLO}},
        ]
    }


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc",
        "a/../b",
        "a/..",
        "a/./b",
        "a//b",
        "%2e%2e/%2e%2e",
        "..%2f..%2fetc",
        "..%252f",
        "_blobs",
        "a/_uploads",
        "Upper",
        "a b",
        "a%00b",
        "a%0a",
        "a%0a/b",
        "%0d%0aSet-Cookie:x",
        "%ff%fe",
        "mod%C3%A8le",
        "%D9%A1",
        "%EF%BC%91",
        "-a",
        "a-",
        ".a",
        "a..b",
        "a___b",
        "~a",
        "a\\b",
        "a" * 256,
        "a/" * 200 + "a",
    ],
)
@pytest.mark.parametrize("rest", [f"blobs/{HELLO}", "manifests/latest", "tags/list", f"referrers/{HELLO}"])
def test_a_name_outside_the_grammar_is_refused(client: Client, tmp_path: Path, name: str, rest: str) -> None:
    answer = client.get(f"/v2/{name}/{rest}")

    assert (answer.status_code, answer.json["errors"][0]["code"]) == (400, "NAME_INVALID")
    assert list((tmp_path / "repositories").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a", "0", "a.b", "a_b", "a__b", "a---b", "a1/b2/c3", "blobs", "a/blobs/uploads", "a" * 255]
)
def test_a_name_within_the_grammar_is_taken(client: Client, name: str) -> None:
    assert client.post(f"/v2/{name}/blobs/uploads/?digest={HELLO}", data=b"hello").status_code == 201
    assert client.get(f"/v2/{name}/blobs/{HELLO}").data == b"hello"


DIGESTS = [
    "sha256:..",
    "sha256:../../../etc/passwd",
    "sha256:..%2f..%2fetc%2fpasswd",
    f"sha256-{HEX}",
    f"sha256:{HEX.upper()}",
    f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0",
    f"sha256:{HEX}%0a",
    f"sha256:{HEX}%00",
    f"sha256:{HEX[:-1]}%D9%A1",
    f"sha256:{HEX[:-1]}%EF%BC%91",
    f"SHA256:{HEX}",
    f"md5:{HEX}",
    "sha256:%ff",
    "sha256:" + 5000 * "a",
]


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_digest_outside_the_grammar_is_refused(client: Client, digest: str) -> None:
    for answer in (
        client.post(f"/v2/a/blobs/uploads/?digest={digest}", data=b"hello"),
        client.post(f"/v2/a/blobs/uploads/?mount={digest}&from=b"),
    ):
        assert (answer.status_code, answer.json["errors"][0]["code"]) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_digest_in_a_path_outside_the_grammar_is_refused(client: Client, digest: str) -> None:
    # With a slash in it, decoded or not, it is no digest but another path.
    expected = (404, "UNSUPPORTED") if "/" in digest or "%2f" in digest else (400, "DIGEST_INVALID")
    for method, place in (("GET", "blobs"), ("DELETE", "blobs"), ("GET", "manifests"), ("GET", "referrers")):
        answer = client.open(f"/v2/a/{place}/{digest}", method=method)
        if place == "manifests" and ":" not in digest:  # then it is a tag, and not here
            assert answer.status_code == 404
            continue
        assert expected == (answer.status_code, answer.json["errors"][0]["code"])


@pytest.mark.parametrize(
    "identifier",
    [
        "x",
        "..",
        "..%2f..%2fblobs",
        SESSION.upper().replace("0", "A"),
        SESSION.replace("-", ""),
        f"{{{SESSION}}}",
        f"urn:uuid:{SESSION}",
        f"{SESSION}%0a",
        f"{SESSION}%00",
        SESSION.replace("4", "%D9%A4"),
        "0" * 5000,
        SESSION,
    ],
)
def test_a_session_that_cannot_be_is_unknown(client: Client, identifier: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = client.open(f"/v2/a/blobs/uploads/{identifier}?digest={HELLO}", method=method)
        assert answer.status_code == 404
        # With a slash in it, it is no session but another path.
        assert answer.json["errors"][0]["code"] in ("BLOB_UPLOAD_UNKNOWN", "UNSUPPORTED")


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v2/a", "/v2/a/b/c", "/v2/a/tags/other", "/v2//blobs/x", "/v2/a/_catalog", "/../v2/"]
)
def test_a_path_that_leads_nowhere_is_unknown(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("POST", f"/v2/a/blobs/{HELLO}", "GET, HEAD, DELETE"),
        ("PATCH", "/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v2/a/tags/list", "GET, HEAD"),
        ("DELETE", f"/v2/a/referrers/{HELLO}", "GET, HEAD"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("GET", "/v2/a/blobs/uploads", "POST"),
        ("POST", f"/v2/a/blobs/uploads/{SESSION}", "GET, HEAD, PATCH, PUT, DELETE"),
        ("BREW", "/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
    ],
)
def test_a_method_that_does_not_fit_is_told_which_do(client: Client, method: str, path: str, allowed: str) -> None:
    answer = client.open(path, method=method)

    assert (405, allowed) == (answer.status_code, answer.headers["Allow"])


def test_a_store_that_cannot_be_written_is_the_servers_fault(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "repositories" / "a").write_text("a file where a folder should be")

    with caplog.at_level(logging.ERROR):
        answer = client.post(f"/v2/a/blobs/uploads/?digest={HELLO}", data=b"hello")

    assert (answer.status_code, answer.json["errors"][0]["code"]) == (500, "UNKNOWN")
    (record,) = caplog.records
    assert "transferkit.server.oci" == record.name
    assert record.getMessage().startswith("POST '/v2/a/blobs/uploads/' failed: writing ")
    assert record.getMessage().endswith(" failed: Not a directory; a part of the path is a file")


def test_read_only_it_answers_what_reads_and_nothing_else(client: Client, tmp_path: Path) -> None:
    client.post(f"/v2/a/blobs/uploads/?digest={HELLO}", data=b"hello")
    before = sorted(tmp_path.rglob("*"))
    reader = Client(OCIRegistry(tmp_path, read_only=True, chunk_size=2))

    assert reader.get(f"/v2/a/blobs/{HELLO}").data == b"hello"
    assert len(reader.get(f"/v2/a/chunksums/{HELLO}").text.splitlines()) == 3
    for method, path in (
        ("POST", f"/v2/a/blobs/uploads/?digest={HELLO}"),
        ("POST", f"/v2/b/blobs/uploads/?mount={HELLO}&from=a"),
        ("PATCH", f"/v2/a/blobs/uploads/{SESSION}"),
        ("PUT", "/v2/a/manifests/v1"),
        ("DELETE", f"/v2/a/blobs/{HELLO}"),
    ):
        answer = reader.open(path, method=method, data=b"hello")
        assert (405, "UNSUPPORTED") == (answer.status_code, answer.json["errors"][0]["code"])
    assert reader.get(f"/v2/a/blobs/uploads/{SESSION}").status_code == 404
    assert before == sorted(tmp_path.rglob("*"))


def test_repr_names_the_directory(tmp_path: Path) -> None:
    assert f"OCIRegistry({str(tmp_path)!r})" == repr(OCIRegistry(tmp_path))


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = transferkit.server.Nothing  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (errno.ENOSPC, 507, "the store has no space left"),
        (errno.EDQUOT, 507, "the store has no space left"),
        (errno.EIO, 500, "the store cannot be read or written"),
    ],
)
def test_a_disk_that_refuses_is_told_in_a_line_of_the_log_each(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, status: int, said: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("transferkit.storage.disk.Disk.create", refuse)
    answer = client.post(f"/v2/a/b/blobs/uploads/?digest={HELLO}", data=b"hello")
    assert (status, said) == (answer.status_code, answer.json["errors"][0]["message"])
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith("POST '/v2/a/b/blobs/uploads/' failed: ")
    assert not record.exc_info


def test_what_is_no_error_of_ours_is_told_with_its_traceback(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "a fault")

    monkeypatch.setattr("transferkit.server.oci.OCIRegistry._dispatch", refuse)
    assert 500 == client.get(f"/v2/a/b/blobs/{HELLO}").status_code
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info
