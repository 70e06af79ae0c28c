"""How deep a request is in this package: at most two frames between the engine's call and the client."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, DATA, Flow, Source, part, take
from transferkit.testing import RawRequest, answer, scripted_server
from transferkit.transport.client import Client

Frames = list[list[str]]


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Frames:
    """The functions of ``transferkit.remote`` that are being called, for each request."""
    seen: Frames = []
    real = Client.send

    def send(self: Client, request: Any, flow: Any) -> Any:
        names = []
        frame = sys._getframe(1)
        while frame.f_back is not None:
            if frame.f_globals["__name__"].startswith("transferkit.remote."):
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        seen.append(names[::-1])
        return real(self, request, flow)

    monkeypatch.setattr(Client, "send", send)
    return seen


def test_a_blob(repository_of: Any, flow: Flow, frames: Frames) -> None:
    with scripted_server([answer(200, DATA)]) as server:
        repository_of(server.url).fetch(BLOB, flow=flow).close()
    assert frames == [["fetch"]]


def test_a_part(repository_of: Any, frames: Frames) -> None:
    with scripted_server(part) as server:
        repository = repository_of(server.url)
        take(repository)
        take(repository)
    assert frames == [["fetch_range", "fetch"]] * 2


def test_the_body_of_an_upload(repository_of: Any, flow: Flow, frames: Frames) -> None:
    def reply(request: RawRequest) -> bytes:
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return answer(202, b"", {"Location": "/session"}) if request.method == "POST" else answer(201)

    with scripted_server(reply) as server:
        repository_of(server.url).push(BLOB, Source(), flow=flow)
    assert frames[-1] == ["push", "send"]
