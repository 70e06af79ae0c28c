"""Uploads: every way to push a blob, and every way to do it wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import Client, TestResponse

from transferkit.server import OCIRegistry

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BLOB = f"/v2/library/model/blobs/{HELLO}"
UPLOADS = "/v2/library/model/blobs/uploads/"

Push = Callable[..., str]


def begin(client: Client) -> str:
    answer = client.post(UPLOADS)
    assert answer.status_code == 202
    return answer.headers["Location"]


def patch(client: Client, location: str, data: bytes, content_range: str | None = None, **more: Any) -> TestResponse:
    headers = {} if content_range is None else {"Content-Range": content_range}
    return client.patch(location, data=data, headers=headers, **more)


def put(client: Client, location: str, digest: str = HELLO, data: bytes = b"") -> TestResponse:
    return client.put(f"{location}&digest={digest}", data=data)


def code(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["errors"][0]["code"]


def uploads_under_way(tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "uploads")


def test_a_session_begins_with_a_location_that_has_a_query(client: Client) -> None:
    answer = client.post(UPLOADS)

    identifier = answer.headers["Docker-Upload-UUID"]
    state = base64.b64encode(f"{identifier} 0".encode()).decode()
    assert (answer.status_code, answer.headers["Range"]) == (202, "0-0")
    assert f"{UPLOADS}{identifier}?_state={quote(state, safe='')}" == answer.headers["Location"]


def test_a_session_begins_without_the_last_slash_too(client: Client) -> None:
    assert client.post(UPLOADS.rstrip("/")).status_code == 202


@pytest.mark.parametrize(
    "change", [lambda url: url.partition("?")[0], lambda url: url.replace("%", "%25"), lambda url: url[:-4]]
)
def test_a_location_with_a_changed_query_is_refused(client: Client, change: Callable[[str], str]) -> None:
    location = change(begin(client))
    location += "" if "?" in location else "?a=b"

    for answer in (
        client.get(location),
        patch(client, location, b"hello"),
        put(client, location, data=b"hello"),
        put(client, location, EMPTY),
        client.delete(location),
    ):
        assert code(answer) == (400, "BLOB_UPLOAD_INVALID")


def test_a_location_with_the_query_of_another_session_is_refused(client: Client) -> None:
    location = begin(client).partition("?")[0] + "?" + begin(client).partition("?")[2]
    assert code(client.get(location)) == (400, "BLOB_UPLOAD_INVALID")


def test_a_session_belongs_to_its_repository(client: Client) -> None:
    location = begin(client).replace("library/model", "other/model")
    assert code(client.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_one_request_with_the_body_is_enough(client: Client, tmp_path: Path) -> None:
    answer = client.post(f"{UPLOADS}?digest={HELLO}", data=b"hello")

    assert (
        answer.status_code,
        answer.headers["Location"],
        answer.headers["Docker-Content-Digest"],
    ) == (201, BLOB, HELLO)
    assert client.get(BLOB).data == b"hello"
    assert uploads_under_way(tmp_path) == []


@pytest.mark.parametrize("data", [b"hellO", b"hello "])
def test_one_request_with_another_body_is_refused_and_leaves_nothing(
    client: Client, tmp_path: Path, data: bytes
) -> None:
    answer = client.post(f"{UPLOADS}?digest={HELLO}", data=data)

    assert code(answer) == (400, "DIGEST_INVALID")
    assert {"digest": "sha256:" + hashlib.sha256(data).hexdigest()} == answer.json["errors"][0]["detail"]
    assert (uploads_under_way(tmp_path), os.listdir(tmp_path / "blobs")) == ([], [])
    assert client.head(BLOB).status_code == 404


def test_an_empty_request_with_a_digest_asks_whether_the_blob_is_here(client: Client, push: Push) -> None:
    asked = client.post(f"{UPLOADS}?digest={HELLO}")
    push(b"hello", "other/model")
    still = client.post(f"{UPLOADS}?digest={HELLO}")
    push(b"hello")
    answered = client.post(f"{UPLOADS}?digest={HELLO}")

    assert [202, 202, 201] == [answer.status_code for answer in (asked, still, answered)]
    assert (HELLO, "Location" in answered.headers) == (answered.headers["Docker-Content-Digest"], False)
    assert client.put(asked.headers["Location"], data=b"hellO").status_code == 400
    assert client.put(still.headers["Location"], data=b"hello").headers["Location"] == BLOB


def test_an_upload_that_was_begun_for_a_digest_may_come_in_parts_and_remembers_it(client: Client) -> None:
    location = client.post(f"{UPLOADS}?digest={HELLO}").headers["Location"]
    location = patch(client, location, b"hel", "0-2").headers["Location"]
    refused = patch(client, location, b"x", "9-9").headers["Location"]
    told = client.get(refused).headers["Location"]

    assert client.put(told, data=b"lo").status_code == 201
    assert client.get(BLOB).data == b"hello"


def test_put_takes_the_whole_body(client: Client, tmp_path: Path) -> None:
    answer = put(client, begin(client), data=b"hello")

    assert (answer.status_code, answer.headers["Location"]) == (201, BLOB)
    assert client.get(BLOB).data == b"hello"
    assert uploads_under_way(tmp_path) == []


def test_parts_go_one_after_another(client: Client) -> None:
    first = patch(client, begin(client), b"he", "0-1")
    second = patch(client, first.headers["Location"], b"l", "2-2")
    last = client.put(f"{second.headers['Location']}&digest={HELLO}", data=b"lo", headers={"Content-Range": "3-4"})

    assert [(answer.status_code, answer.headers["Range"]) for answer in (first, second)] == [(202, "0-1"), (202, "0-2")]
    assert (last.status_code, client.get(BLOB).data) == (201, b"hello")


def test_a_stream_without_content_range_is_appended(client: Client) -> None:
    first = patch(client, begin(client), b"hel")
    second = patch(client, first.headers["Location"], b"lo")

    assert put(client, second.headers["Location"]).status_code == 201
    assert client.get(BLOB).data == b"hello"


def test_a_stream_without_content_range_at_an_old_location_is_not_appended_twice(client: Client) -> None:
    location = begin(client)
    patch(client, location, b"hel")

    answer = patch(client, location, b"hel")

    assert (answer.status_code, answer.headers["Range"]) == (416, "0-2")
    assert put(client, answer.headers["Location"], data=b"lo").status_code == 201


@pytest.mark.parametrize("content_range", ["2-3", "4-5"])
def test_a_part_out_of_order_is_told_how_far_the_upload_is(client: Client, content_range: str) -> None:
    location = patch(client, begin(client), b"hel", "0-2").headers["Location"]

    answer = patch(client, location, b"xx", content_range)

    assert code(answer) == (416, "BLOB_UPLOAD_INVALID")
    assert ("0-2", location) == (answer.headers["Range"], answer.headers["Location"])
    assert put(client, location, data=b"lo").status_code == 201


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "0",
        "a-b",
        "-1-3",
        "4-0",
        "0-4/5",
        "bytes 0-4/5",
        "0-4\n",
        "٠-٤".encode().decode("latin-1"),
        "0-" + 5000 * "9",
    ],
)
def test_a_content_range_that_is_none_is_refused(client: Client, content_range: str) -> None:
    location = begin(client)
    environ = {"HTTP_CONTENT_RANGE": content_range}

    assert code(patch(client, location, b"hello", environ_overrides=environ)) == (400, "BLOB_UPLOAD_INVALID")
    assert client.get(location).headers["Range"] == "0-0"


def test_a_content_range_of_another_length_than_the_body_is_refused(client: Client) -> None:
    assert code(patch(client, begin(client), b"hello", "0-3")) == (400, "SIZE_INVALID")


def test_status_tells_how_far_the_upload_is(client: Client) -> None:
    location = begin(client)
    patched = patch(client, location, b"hel")

    answer = client.get(location)

    assert (answer.status_code, answer.data, answer.headers["Range"]) == (204, b"", "0-2")
    assert patched.headers["Location"] == answer.headers["Location"]
    assert client.head(location).status_code == 204


def test_a_cancelled_session_is_gone(client: Client, tmp_path: Path) -> None:
    location = begin(client)

    assert client.delete(location).status_code == 204

    assert uploads_under_way(tmp_path) == []
    assert code(client.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert code(client.delete(location)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_wrong_digest_ends_the_session(client: Client, tmp_path: Path) -> None:
    location = begin(client)

    assert code(put(client, location, EMPTY, b"hello")) == (400, "DIGEST_INVALID")

    assert (uploads_under_way(tmp_path), os.listdir(tmp_path / "blobs")) == ([], [])
    assert client.get(location).status_code == 404


def test_a_finish_without_digest_keeps_the_session(client: Client) -> None:
    location = patch(client, begin(client), b"hello").headers["Location"]

    assert code(client.put(location)) == (400, "DIGEST_INVALID")
    assert put(client, location).status_code == 201


def test_a_body_that_ends_early_is_kept_in_the_session_and_nowhere_else(client: Client, tmp_path: Path) -> None:
    location = begin(client)
    short = {"input_stream": io.BytesIO(b"hel"), "environ_overrides": {"CONTENT_LENGTH": "5"}}

    assert code(client.put(f"{location}&digest={HELLO}", **short)) == (400, "BLOB_UPLOAD_INVALID")

    assert os.listdir(tmp_path / "blobs") == []
    resumed = client.get(location).headers
    assert resumed["Range"] == "0-2"
    assert put(client, resumed["Location"], data=b"lo").status_code == 201


def test_a_body_that_falls_silent_is_a_408_and_may_be_continued(client: Client) -> None:
    class Silent(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            if data := super().read1(size):
                return data
            raise TimeoutError("timed out")

    location = begin(client)
    environ = {"wsgi.input": Silent(b"hel"), "CONTENT_LENGTH": "5"}

    assert code(client.put(f"{location}&digest={HELLO}", environ_overrides=environ)) == (408, "BLOB_UPLOAD_INVALID")
    assert client.get(location).headers["Range"] == "0-2"


def test_one_request_that_ends_early_leaves_nothing(client: Client, tmp_path: Path) -> None:
    short = {"input_stream": io.BytesIO(b"hel"), "environ_overrides": {"CONTENT_LENGTH": "5"}}

    assert client.post(f"{UPLOADS}?digest={HELLO}", **short).status_code == 400
    assert (uploads_under_way(tmp_path), os.listdir(tmp_path / "blobs")) == ([], [])


@pytest.mark.parametrize(
    "length", ["-1", "+5", "5 ", "1_0", "0x5", "٥".encode().decode("latin-1"), str(2**63), 5000 * "9"]
)
def test_a_content_length_that_is_none_is_refused(client: Client, length: str) -> None:
    environ = {"CONTENT_LENGTH": length}

    for answer in (
        client.post(f"{UPLOADS}?digest={HELLO}", input_stream=io.BytesIO(b"hello"), environ_overrides=environ),
        client.patch(begin(client), input_stream=io.BytesIO(b"hello"), environ_overrides=environ),
    ):
        assert code(answer) == (400, "SIZE_INVALID")


class OnlyRead:
    """A ``wsgi.input`` that has nothing but what PEP 3333 asks for."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


def test_a_chunked_body_is_taken(client: Client) -> None:
    environ = {**CHUNKED, "wsgi.input": OnlyRead(b"hello")}

    assert client.post(f"{UPLOADS}?digest={HELLO}", environ_overrides=environ).status_code == 201
    assert client.get(BLOB).data == b"hello"


def test_a_chunked_part_is_held_to_its_content_range(client: Client) -> None:
    location = begin(client)
    environ = {**CHUNKED, "HTTP_CONTENT_RANGE": "0-4", "wsgi.input": io.BytesIO(b"hel")}

    assert client.patch(location, environ_overrides=environ).status_code == 400
    assert client.get(location).headers["Range"] == "0-2"


def test_a_mounted_blob_needs_no_body(client: Client, push: Push) -> None:
    push(b"hello", "other/model")

    answer = client.post(f"{UPLOADS}?mount={HELLO}&from=other/model")

    assert (
        answer.status_code,
        answer.headers["Location"],
        answer.headers["Docker-Content-Digest"],
    ) == (201, BLOB, HELLO)
    assert client.get(BLOB).data == b"hello"


@pytest.mark.parametrize("source", ["&from=empty/model", ""])
def test_a_mount_that_does_not_come_about_is_a_session(client: Client, push: Push, source: str) -> None:
    push(b"hello", "other/model")

    answer = client.post(f"{UPLOADS}?mount={HELLO}{source}")

    assert answer.status_code == 202
    assert client.head(BLOB).status_code == 404
    assert put(client, answer.headers["Location"], data=b"hello").status_code == 201


@pytest.mark.parametrize("source", ["..", "../../blobs", "%2e%2e%2f", "a%00", "A", "a%0a"])
def test_a_mount_from_what_is_no_repository_is_refused(client: Client, source: str) -> None:
    assert code(client.post(f"{UPLOADS}?mount={HELLO}&from={source}")) == (400, "NAME_INVALID")


def test_a_session_outlives_the_process(client: Client, tmp_path: Path) -> None:
    location = patch(client, begin(client), b"hel").headers["Location"]
    later = Client(OCIRegistry(tmp_path))

    location = patch(later, location, b"l").headers["Location"]

    assert later.get(location).headers["Range"] == "0-3"
    assert put(later, location, data=b"o").status_code == 201
    assert later.get(BLOB).data == b"hello"


def test_a_session_may_be_finished_with_another_algorithm(client: Client) -> None:
    digest = "sha512:" + hashlib.sha512(b"hello").hexdigest()
    location = patch(client, begin(client), b"hel").headers["Location"]

    assert put(client, location, digest, b"lo").status_code == 201
    assert client.get(f"/v2/library/model/blobs/{digest}").data == b"hello"


class Slow(io.RawIOBase):
    """A body whose second half comes when it is let go."""

    def __init__(self) -> None:
        self.halfway = threading.Event()
        self.go_on = threading.Event()
        self._parts = [b"hel", b"lo"]

    def read1(self, _size: int) -> bytes:
        if len(self._parts) == 1:
            self.halfway.set()
            assert self.go_on.wait(10)
        return self._parts.pop(0)


def test_two_requests_do_not_write_to_one_session_at_once(tmp_path: Path) -> None:
    client = Client(OCIRegistry(tmp_path, patience=0.05))
    location, body = begin(client), Slow()
    answers: list[TestResponse] = []

    def write() -> None:
        environ = {"wsgi.input": body, "CONTENT_LENGTH": "5"}
        answers.append(client.patch(location, environ_overrides=environ))

    thread = threading.Thread(target=write)
    thread.start()
    assert body.halfway.wait(10)
    refused = patch(client, location, b"XX")
    status = client.get(location)
    body.go_on.set()
    thread.join()

    assert code(refused) == (409, "BLOB_UPLOAD_INVALID")
    assert status.headers["Range"] == "0-2"
    assert (answers[0].status_code, answers[0].headers["Range"]) == (202, "0-4")
    assert put(client, answers[0].headers["Location"]).status_code == 201


def test_many_writers_of_one_part_leave_one_part(client: Client) -> None:
    location = begin(client)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(patch(client, location, b"hello", "0-4").status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [202] + 7 * [416]
    assert put(client, client.get(location).headers["Location"]).status_code == 201


def test_a_session_that_ends_while_another_request_waits_for_it_is_unknown(client: Client) -> None:
    location, body = begin(client), Slow()
    answers: list[int] = []

    def finish() -> None:
        environ = {"wsgi.input": body, "CONTENT_LENGTH": "5"}
        answers.append(client.put(f"{location}&digest={HELLO}", environ_overrides=environ).status_code)

    first = threading.Thread(target=finish)
    first.start()
    assert body.halfway.wait(10)
    second = threading.Thread(target=lambda: answers.append(client.delete(location).status_code))
    second.start()
    threading.Event().wait(0.05)  # let it get to the lock; if it does not, it finds no session all the same
    body.go_on.set()
    first.join()
    second.join()

    assert sorted(answers) == [201, 404]
    assert client.get(BLOB).data == b"hello"


def test_the_query_is_decoded_once(client: Client) -> None:
    location = begin(client)
    assert code(put(client, location, quote(quote(HELLO)), b"hello")) == (400, "DIGEST_INVALID")
    assert put(client, location, quote(HELLO), b"hello").status_code == 201


def test_an_algorithm_may_be_named_at_the_beginning(client: Client) -> None:
    digest = "sha512:" + hashlib.sha512(b"hello").hexdigest()
    location = client.post(f"{UPLOADS}?digest-algorithm=sha512").headers["Location"]

    assert put(client, location, digest, b"hello").headers["Docker-Content-Digest"] == digest
    assert code(client.post(f"{UPLOADS}?digest-algorithm=md5")) == (400, "DIGEST_INVALID")


def test_ollamas_clients_are_told_whole_locations(client: Client) -> None:
    ollama = {"User-Agent": "ollama/0.13.0 (amd64 linux) Go/go1.25"}
    answer = client.post(f"{UPLOADS}?digest={HELLO}", headers=ollama, base_url="http://registry.test:5000")
    assert answer.headers["Location"].startswith(f"http://registry.test:5000{UPLOADS}")
