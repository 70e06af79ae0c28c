"""Whether asking for a blob pays: a row of absent ones says no, one that is there says yes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, BLOB_PATH, DIGEST, OTHER, WHERE, Flow
from transferkit.content.descriptor import Descriptor
from transferkit.errors import RegistryError
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.upload import Uploads
from transferkit.testing import scripted_server

KIB = 1024


def blob(size: int = 16 * KIB) -> Descriptor:
    return Descriptor("sha256:" + 64 * "a", size)


@pytest.fixture
def probe() -> Uploads:
    return Uploads(None, None)  # type: ignore[arg-type]  # it sends nothing


def hear(probe: Uploads, absent: int) -> None:
    for _ in range(absent):
        assert probe.asking_pays(blob())
        probe.presence.was_absent()


def asked_for(probe: Uploads, count: int, size: int = 16 * KIB) -> list[int]:
    return [number for number in range(1, count + 1) if probe.asking_pays(blob(size))]


def test_after_sixteen_that_were_not_there_one_in_sixteen_is_asked_for(probe):
    hear(probe, 16)
    assert asked_for(probe, 50) == [16, 32, 48]


def test_the_longer_none_is_there_the_rarer_one_is_asked_for(probe):
    hear(probe, 16)
    asked = []
    for number in range(1, 1001):
        if probe.asking_pays(blob()):
            asked.append(number)
            probe.presence.was_absent()
    assert asked == [16, 48, 96, 160, 240, 336, 448, 576, 704, 832, 960]


def test_one_that_is_there_brings_the_questions_back(probe):
    hear(probe, 16)
    probe.presence.is_uncertain()
    hear(probe, 16)
    assert not probe.asking_pays(blob())


@pytest.mark.parametrize(("size", "asked"), [(1024 * KIB, False), (1024 * KIB + 1, True)])
def test_large_ones_are_always_asked_for(probe, size, asked):
    hear(probe, 16)
    assert probe.asking_pays(blob(size)) is asked


# -- the question


def said(status: int = 200, **headers: str) -> bytes:
    """Response to a HEAD, with just these headers."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content_Length": "1024"}, True),
        ({"Content_Length": "1024", "Docker_Content_Digest": DIGEST}, True),
        ({"Docker_Content_Digest": DIGEST}, True),
        ({"Content_Length": "1024", "Docker_Content_Digest": "sha512:" + 128 * "a"}, True),
        ({"Content_Length": "1024", "Docker_Content_Digest": "sha256:x"}, False),
        ({"Content_Length": "1024", "Docker_Content_Digest": "md5:abc"}, True),
        ({"Content_Length": "1024", "Docker_Content_Digest": ""}, True),
        ({"Content_Length": "0"}, False),
        ({"Content_Length": "1025"}, False),
        ({"Content_Length": "0", "Docker_Content_Digest": DIGEST}, False),
        ({"Content_Length": "1024", "Docker_Content_Digest": OTHER.digest}, False),
        ({"Content_Length": "1024", "Content_Type": "text/html; charset=utf-8"}, False),
        ({"Transfer_Encoding": "chunked", "Content_Type": "text/html"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("uploading", [False, True])
def test_a_200_is_a_yes_only_where_it_speaks_of_this_blob(
    repository_of: Any, flow: Flow, headers: dict[str, str], expected: bool, uploading: bool
) -> None:
    with scripted_server([said(**headers)]) as server:
        endpoint = Endpoint(repository_of(server.url).client, WHERE)
        assert endpoint.exists(BLOB, flow, uploading=uploading) is expected
        (request,) = server.requests
    assert (request.method, request.target) == ("HEAD", BLOB_PATH)


@pytest.mark.parametrize("status", [404, 405])
def test_what_is_not_there_and_who_cannot_say_are_a_no(repository_of: Any, flow: Flow, status: int) -> None:
    with scripted_server([said(status)]) as server:
        assert repository_of(server.url).exists(BLOB, flow=flow) is False


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 501])
def test_a_refusal_is_an_error_but_before_an_upload(repository_of: Any, flow: Flow, status: int) -> None:
    with scripted_server([said(status), said(status)]) as server:
        repository = repository_of(server.url)
        with pytest.raises(RegistryError, match=f"responded with status {status}"):
            repository.exists(BLOB, flow=flow)
        assert Endpoint(repository.client, WHERE).exists(BLOB, flow, uploading=True) is False


@pytest.mark.parametrize(
    ("status", "headers"),
    [(500, {}), (503, {}), (429, {}), (429, {"Retry_After": "9999"}), (503, {"Retry_After": "9999"})],
)
def test_trouble_is_an_error_always(repository_of: Any, flow: Flow, status: int, headers: dict[str, str]) -> None:
    with scripted_server([said(status, **headers)]) as server:
        endpoint = Endpoint(repository_of(server.url).client, WHERE)
        with pytest.raises(RegistryError, match=f"responded with status {status}"):
            endpoint.exists(BLOB, flow, uploading=True)
