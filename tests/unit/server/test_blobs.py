"""Reading blobs: whole, in ranges, under conditions, and not across repositories."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import Client

from tests.descriptors import open_descriptors

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
OTHER = "sha256:" + 64 * "a"
URL = f"/v2/library/model/blobs/{HELLO}"

Push = Callable[..., str]


def test_a_blob_comes_back_with_its_digest_as_etag(client: Client, push: Push) -> None:
    push(b"hello")

    answer = client.get(URL)

    assert (answer.status_code, answer.data) == (200, b"hello")
    assert {
        "Accept-Ranges": "bytes",
        "ETag": f'"{HELLO}"',
        "Docker-Content-Digest": HELLO,
        "Content-Type": "application/octet-stream",
        "Content-Length": "5",
        "Docker-Distribution-Api-Version": "registry/2.0",
        "X-Content-Type-Options": "nosniff",
    } == dict(answer.headers)


def test_ollamas_clients_are_told_where_the_blob_is(client: Client, push: Push) -> None:
    push(b"hello")
    ollama = {"User-Agent": "ollama/0.13.0 (amd64 linux) Go/go1.25"}
    answer = client.get(URL, headers=ollama, base_url="http://registry.test:5000")
    assert (200, f"http://registry.test:5000{URL}") == (answer.status_code, answer.headers["Location"])


def test_head_has_the_headers_of_get_and_no_body(client: Client, push: Push) -> None:
    push(b"hello")

    answer = client.head(URL)

    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "5")
    assert dict(client.get(URL).headers) == dict(answer.headers)


def test_an_empty_blob_has_no_bytes(client: Client, push: Push) -> None:
    assert push(b"") == EMPTY
    answer = client.get(f"/v2/library/model/blobs/{EMPTY}")
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "0")


def test_a_large_blob_comes_in_bounded_blocks(client: Client, push: Push) -> None:
    data = os.urandom(1_000_000)
    digest = push(data)

    answer = client.get(f"/v2/library/model/blobs/{digest}", buffered=False)
    blocks = list(answer.iter_encoded())
    answer.close()

    assert data == b"".join(blocks)
    assert [len(block) for block in blocks] == [262144, 262144, 262144, 213568]


@pytest.mark.parametrize(
    ("asked", "body", "content_range"),
    [
        ("bytes=0-0", b"h", "bytes 0-0/5"),
        ("bytes=1-3", b"ell", "bytes 1-3/5"),
        ("bytes=3-", b"lo", "bytes 3-4/5"),
        ("bytes=-2", b"lo", "bytes 3-4/5"),
        ("bytes=-99", b"hello", "bytes 0-4/5"),
        ("bytes=2-99", b"llo", "bytes 2-4/5"),
        ("bytes=0-9999999999999999999", b"hello", "bytes 0-4/5"),
    ],
)
def test_a_range_is_cut_out(client: Client, push: Push, asked: str, body: bytes, content_range: str) -> None:
    push(b"hello")

    answer = client.get(URL, headers={"Range": asked})

    assert (206, body) == (answer.status_code, answer.data)
    assert (content_range, str(len(body))) == (answer.headers["Content-Range"], answer.headers["Content-Length"])


@pytest.mark.parametrize("asked", ["bytes=5-", "bytes=5-6", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_past_the_end_is_refused_with_the_size(client: Client, push: Push, asked: str) -> None:
    push(b"hello")

    answer = client.get(URL, headers={"Range": asked})

    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */5")
    assert answer.json["errors"][0]["code"] == "RANGE_INVALID"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=3-1",
        "bytes=-",
        "bytes=a-b",
        "bytes=-1-2",
        "bytes=--1",
        "bytes=0-1,3-4",
        "bytes=0-1\x00",
        "lines=0-1",
        "bytes=٠-١".encode().decode("latin-1"),
        "bytes=" + 5000 * "9" + "-",
        "",
    ],
)
def test_a_range_that_is_none_gets_the_whole(client: Client, push: Push, asked: str) -> None:
    push(b"hello")

    answer = client.get(URL, headers={"Range": asked})

    assert (answer.status_code, answer.data) == (200, b"hello")
    assert "Content-Range" not in answer.headers


def test_every_range_of_an_empty_blob_is_past_its_end(client: Client, push: Push) -> None:
    push(b"")
    assert client.get(f"/v2/library/model/blobs/{EMPTY}", headers={"Range": "bytes=0-"}).status_code == 416


def test_a_large_range_starts_and_ends_where_it_was_asked_to(client: Client, push: Push) -> None:
    data = os.urandom(700_000)
    digest = push(data)

    answer = client.get(f"/v2/library/model/blobs/{digest}", headers={"Range": "bytes=100000-599999"})

    assert (206, data[100000:600000]) == (answer.status_code, answer.data)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Range": f'"{HELLO}"'}, 206),
        ({"If-Range": f'"{OTHER}"'}, 200),
        ({"If-Range": f'W/"{HELLO}"'}, 200),
        ({"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200),
        ({"If-Match": f'"{HELLO}"'}, 206),
        ({"If-Match": f'"{OTHER}", "{HELLO}"'}, 206),
        ({"If-Match": "*"}, 206),
        ({"If-Match": f'"{OTHER}"'}, 412),
        ({"If-Match": f'W/"{HELLO}"'}, 412),
        ({"If-None-Match": f'"{OTHER}"'}, 206),
        ({"If-None-Match": f'W/"{HELLO}"'}, 304),
        ({"If-None-Match": "*"}, 304),
    ],
)
def test_conditions_are_held(client: Client, push: Push, headers: dict[str, str], status: int) -> None:
    push(b"hello")

    answer = client.get(URL, headers={"Range": "bytes=1-3", **headers})

    assert status == answer.status_code
    assert f'"{HELLO}"' == answer.headers["ETag"]
    assert ("Content-Length" in answer.headers) == (status != 304)


def test_a_blob_of_another_repository_is_not_here(client: Client, push: Push) -> None:
    push(b"hello", "other/model")

    assert client.get(URL).status_code == 404
    assert client.head(URL).status_code == 404
    assert client.get(f"/v2/other/model/blobs/{HELLO}").status_code == 200


def test_content_is_stored_once(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello", "a")
    push(b"hello", "b")

    assert [f"sha256-{HELLO[7:]}"] == os.listdir(tmp_path / "blobs")
    assert (tmp_path / "blobs" / f"sha256-{HELLO[7:]}").read_bytes() == b"hello"


def test_a_deleted_blob_is_gone_from_its_repository_alone(client: Client, push: Push) -> None:
    push(b"hello")
    push(b"hello", "other/model")

    assert client.delete(URL).status_code == 202

    assert client.get(URL).status_code == 404
    assert client.delete(URL).status_code == 404
    assert client.get(f"/v2/other/model/blobs/{HELLO}").status_code == 200


def test_a_blob_whose_file_was_removed_by_hand_is_not_here(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello")
    (tmp_path / "blobs" / f"sha256-{HELLO[7:]}").unlink()

    assert client.get(URL).status_code == 404


def test_sha512_is_a_digest_as_well(client: Client) -> None:
    digest = "sha512:" + hashlib.sha512(b"hello").hexdigest()

    assert client.post(f"/v2/a/blobs/uploads/?digest={digest}", data=b"hello").status_code == 201
    assert client.get(f"/v2/a/blobs/{digest}").data == b"hello"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_no_answer_leaves_a_descriptor_open(client: Client, push: Push) -> None:
    digest = push(b"x" * 600_000)
    url = f"/v2/library/model/blobs/{digest}"
    before = len(open_descriptors())

    client.head(url)
    client.get(url, buffered=True)
    client.get(url, headers={"Range": "bytes=1-599999"}, buffered=True)
    client.get(url, headers={"Range": "bytes=600000-"})
    client.get(url, headers={"If-Match": f'"{OTHER}"'})
    client.get(url, headers={"If-None-Match": "*"})
    client.get(url, buffered=False).close()

    assert before == len(open_descriptors())
