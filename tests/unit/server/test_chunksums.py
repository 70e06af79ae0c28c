"""The list of a blob's chunks, as the registry gives it out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import Client

from tests.descriptors import open_descriptors
from transferkit.server import OCIRegistry

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
URL = f"/v2/library/model/chunksums/{HELLO}"
# printf he | sha256sum, and so on
PARTS = (
    "sha256:372f7e2fd2d01ce2a1d71dc072acbba4c6fd25a1087cd7f153f4ec0ce37e1ede 0-1\n"
    "sha256:f9e012396be65db022bd11de9308a9b40e04e492cc4ee8636c09fb83df4aa27b 2-3\n"
    "sha256:65c74c15a686187bb6bbf9958f494fc6b80068034a659a9ad44991b08c58f2d2 4-4\n"
)

Push = Callable[..., str]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(OCIRegistry(tmp_path, chunk_size=2))


def test_a_list_names_the_digest_of_each_part_and_where_the_blob_is(client: Client, push: Push) -> None:
    push(b"hello")

    answer = client.get(URL)

    assert (answer.status_code, answer.text) == (200, PARTS)
    assert answer.headers["Content-Location"] == f"/v2/library/model/blobs/{HELLO}"
    assert answer.headers["Content-Type"] == "text/plain; charset=us-ascii"


def test_ollamas_clients_are_told_the_whole_location_of_the_blob(client: Client, push: Push) -> None:
    push(b"hello")
    ollama = {"User-Agent": "ollama/0.13.0 (amd64 linux) Go/go1.25"}
    answer = client.get(URL, headers=ollama, base_url="http://registry.test:5000")
    assert f"http://registry.test:5000/v2/library/model/blobs/{HELLO}" == answer.headers["Content-Location"]


def test_the_second_list_comes_from_the_disk(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello")
    first = client.get(URL).text
    (kept,) = (tmp_path / "blobs").glob("*.chunks-2")

    second = client.get(URL)

    assert (second.text, second.headers["Content-Length"]) == (first, str(len(PARTS)))
    assert kept.read_text() == PARTS
    assert kept.name == f"{HELLO.replace(':', '-')}.chunks-2"
    kept.write_text("kept\n")
    assert client.get(URL).text == "kept\n"


def test_a_list_is_made_as_it_is_read_and_kept_only_when_it_is_whole(
    client: Client, push: Push, tmp_path: Path
) -> None:
    push(b"hello")
    answer = client.get(URL, buffered=False)
    lines = answer.iter_encoded()
    assert next(lines).decode() == PARTS.splitlines(keepends=True)[0]
    answer.close()
    assert list((tmp_path / "blobs").glob("*.chunks-*")) == []


def test_head_makes_nothing_and_leaves_nothing_open(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello")
    before = len(open_descriptors())
    fresh = client.head(URL)
    assert list((tmp_path / "blobs").glob("*.chunks-*")) == []
    with client.get(URL) as answer:
        assert answer.text == PARTS
    kept = client.head(URL)
    assert kept.headers["Content-Length"] == str(len(PARTS))

    assert [(answer.status_code, answer.data) for answer in (fresh, kept)] == [(200, b""), (200, b"")]
    assert len(open_descriptors()) == before


def test_an_empty_blob_has_no_parts(client: Client, push: Push) -> None:
    push(b"")
    answer = client.get(f"/v2/library/model/chunksums/{EMPTY}")
    assert (answer.status_code, answer.data) == (200, b"")


def test_parts_are_8_mib_by_default(tmp_path: Path, push: Push) -> None:
    client = Client(OCIRegistry(tmp_path))
    data = bytes(8 * 1024 * 1024 + 5)
    digest = push(data)
    assert [line.split()[1] for line in client.get(f"/v2/library/model/chunksums/{digest}").text.splitlines()] == [
        "0-8388607",
        "8388608-8388612",
    ]


def test_another_size_of_parts_is_another_list(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello")
    assert client.get(URL).text == PARTS
    other = Client(OCIRegistry(tmp_path, chunk_size=5))
    assert other.get(URL).text == f"{HELLO} 0-4\n"


def test_what_another_repository_has_is_not_listed(client: Client, push: Push) -> None:
    push(b"hello", "library/other")
    answer = client.get(URL)
    assert (answer.status_code, answer.json["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_blob_that_somebody_removed_by_hand_is_unknown(client: Client, push: Push, tmp_path: Path) -> None:
    push(b"hello")
    (tmp_path / "blobs" / HELLO.replace(":", "-")).unlink()
    assert client.get(URL).status_code == 404


def test_a_blob_that_shrinks_meanwhile_breaks_the_answer_and_keeps_nothing(
    client: Client, push: Push, tmp_path: Path
) -> None:
    push(b"hello")
    answer = client.get(URL, buffered=False)
    os.truncate(tmp_path / "blobs" / HELLO.replace(":", "-"), 3)
    with pytest.raises(OSError, match="became shorter"):
        list(answer.iter_encoded())
    answer.close()
    assert list((tmp_path / "blobs").glob("*.chunks-*")) == []


@pytest.mark.parametrize(("digest", "code"), [("sha256:..", "DIGEST_INVALID"), ("latest", "DIGEST_INVALID")])
def test_what_is_no_digest_is_refused(client: Client, digest: str, code: str) -> None:
    answer = client.get(f"/v2/library/model/chunksums/{digest}")
    assert (answer.status_code, answer.json["errors"][0]["code"]) == (400, code)


def test_only_reading_is_allowed(client: Client, push: Push) -> None:
    push(b"hello")
    answer = client.put(URL, data=b"x")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_it_can_be_switched_off(tmp_path: Path, push: Push) -> None:
    push(b"hello")
    answer = Client(OCIRegistry(tmp_path, chunksums=False)).get(URL)
    assert (answer.status_code, answer.json["errors"][0]["code"]) == (404, "UNSUPPORTED")


def test_parts_have_a_byte_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^chunk_size is a number of bytes, not 0$"):
        OCIRegistry(tmp_path, chunk_size=0)
