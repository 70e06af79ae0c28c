"""Upload sessions: how many, for how long, and over a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import Client, TestResponse

from transferkit.server import OCIRegistry
from transferkit.server.limits import Limits

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
UPLOADS = "/v2/library/model/blobs/uploads/"
HOUR = 3600.0


class Clock:
    """Time as files have it, and then some."""

    later = 0.0

    def __call__(self) -> float:
        return time.time() + self.later


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def restarted(tmp_path: Path, clock: Clock) -> Callable[[], Client]:
    limits = Limits(uploads=2, idle=HOUR)
    return lambda: Client(OCIRegistry(tmp_path, durable=False, limits=limits, clock=clock))


def begin(client: Client) -> str:
    answer = client.post(UPLOADS)
    assert answer.status_code == 202
    return answer.headers["Location"]


def code(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["errors"][0]["code"]


def test_who_begins_one_upload_too_many_is_told_so(restarted: Callable[[], Client]) -> None:
    client = restarted()
    first, _ = begin(client), begin(client)

    assert code(client.post(UPLOADS)) == (429, "TOOMANYREQUESTS")
    assert code(client.post(f"{UPLOADS}?digest={HELLO}", data=b"hello")) == (429, "TOOMANYREQUESTS")
    assert code(restarted().post(UPLOADS)) == (429, "TOOMANYREQUESTS")
    assert client.delete(first).status_code == 204
    assert client.post(f"{UPLOADS}?digest={HELLO}", data=b"hello").status_code == 201
    begin(client)


def test_uploads_that_ended_do_not_count(restarted: Callable[[], Client]) -> None:
    client = restarted()
    for _ in range(3):
        assert client.post(f"{UPLOADS}?digest={HELLO}", data=b"hello").status_code == 201
        assert client.post(f"{UPLOADS}?digest={HELLO}", data=b"hallo").status_code == 400
        assert client.put(f"{begin(client)}&digest={HELLO}", data=b"hello").status_code == 201
        assert client.put(f"{begin(client)}&digest={HELLO}", data=b"hallo").status_code == 400


def test_an_idle_upload_is_over(restarted: Callable[[], Client], clock: Clock, tmp_path: Path) -> None:
    client = restarted()
    location = begin(client)
    clock.later = HOUR - 60
    assert client.get(location).status_code == 204
    clock.later = HOUR + 60

    assert code(client.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert [] == os.listdir(tmp_path / "uploads")


def test_a_byte_now_and_then_keeps_an_upload(restarted: Callable[[], Client], clock: Clock, tmp_path: Path) -> None:
    client = restarted()
    location = begin(client)
    (upload,) = (tmp_path / "uploads").iterdir()
    os.utime(upload, (0, time.time() - HOUR + 60))
    location = client.patch(location, data=b"hel").headers["Location"]
    clock.later = HOUR - 60

    assert client.get(location).headers["Range"] == "0-2"


@pytest.mark.parametrize("restart", [False, True])
def test_idle_uploads_make_room(restarted: Callable[[], Client], clock: Clock, tmp_path: Path, restart: bool) -> None:
    client = restarted()
    begin(client), begin(client)
    clock.later = HOUR + 60
    client = restarted() if restart else client
    if restart:
        assert [] == os.listdir(tmp_path / "uploads")

    begin(client), begin(client)

    assert len(os.listdir(tmp_path / "uploads")) == 2


def test_an_upload_that_somebody_removed_by_hand_is_unknown_and_does_not_count(
    restarted: Callable[[], Client], tmp_path: Path
) -> None:
    client = restarted()
    locations = [begin(client), begin(client)]
    for path in (tmp_path / "uploads").iterdir():
        path.unlink()

    assert {404} == {client.get(location).status_code for location in locations}
    begin(client), begin(client)
