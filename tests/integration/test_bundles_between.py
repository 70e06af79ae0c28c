"""Small blobs that are asked for together, through proxies that nobody here wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.bundles import BLOBS, REPOSITORY, Blobs
from tests.functional.bundles import small as small
from tests.integration.between import haproxy
from transferkit.testing import scripted_server
from transferkit.testing.scripted import RawRequest, ScriptedServer, Step
from transferkit.testing.wire import Close, answer

pytestmark = pytest.mark.integration

OLD = [b"HTTP/1.1", b"HTTP/1.0"]
HAPROXY = {
    "haproxy": (),
    "haproxy that ends each connection": ("option httpclose",),
    "haproxy that shares connections": ("http-reuse always", "option http-keep-alive"),
}
NGINX = {
    "nginx that speaks HTTP 1.0 to the server": ("proxy_http_version 1.0;",),
    "nginx that keeps its connections": ("proxy_http_version 1.1;", 'proxy_set_header Connection "";'),
    "nginx that takes ten requests a connection": ("keepalive_requests 10;",),
}


@contextmanager
def between(way: str, url: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL by which a server is reached through a proxy."""
    if way in HAPROXY:
        with haproxy(folder / "haproxy", url, *HAPROXY[way]) as before:
            yield before
    elif way in NGINX:
        run_nginx: Callable[..., AbstractContextManager[Any]] = request.getfixturevalue("run_nginx")
        with run_nginx(folder / "nginx", folder, " ".join((f"proxy_pass {url};", *NGINX[way]))) as running:
            yield running.url
    else:
        patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
            patch.delenv(name.lower(), raising=False)
            patch.delenv(name, raising=False)
        patch.setenv("HTTP_PROXY", request.getfixturevalue("tinyproxy").url)
        yield url


def server(seen: Blobs, *, closes: bool) -> ScriptedServer:
    """Return a server of blobs, which says that it is there to all else; ``closes``: it is one of HTTP/1.0."""

    def say(request: RawRequest) -> Step:
        is_blob = "/blobs/" in request.target
        whole = answer(200, seen.contents[seen.take(request)] if is_blob else b"here")
        return [whole.replace(*OLD, 1), Close()] if closes else whole

    return scripted_server(say)


@pytest.mark.parametrize("closes", [False, True], ids=["to a server of 1.1", "to a server of 1.0"])
@pytest.mark.parametrize("way", [*HAPROXY, *NGINX, "tinyproxy"])
def test_blobs_come_right_through_a_proxy_and_are_asked_for_twice_at_most(
    way: str, closes: bool, small: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, blobs = small
    seen = Blobs(folder, blobs)
    with server(seen, closes=closes) as behind, between(way, behind.url, tmp_path, request) as url:
        report = tk.download(blobs, tmp_path / "to", base_url=url, repository=REPOSITORY, concurrency=2)

    for blob in blobs:
        name = tk.digest_to_path(blob.digest)
        assert (folder / name).read_bytes() == (tmp_path / "to" / name).read_bytes()
    assert BLOBS == report.blobs == len(seen.asked)
    assert max(seen.asked.values()) <= 2 + report.healed  # who is late at the tail of a busy machine is asked again
