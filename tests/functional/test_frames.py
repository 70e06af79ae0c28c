"""The way of a byte is short, and the architecture page describes it: from the worker to the head of the response."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.testing import answer, scripted_server
from transferkit.transport import http11

PAGE = Path(__file__).parents[2] / "docs" / "architecture.rst"
PACKAGE = f"{Path(tk.__file__).parent}/"  # a checkout may be called transferkit, too
MOST = 10  # calls between the worker and the head of the response
MIB = 1024 * 1024
WORKER, HEAD = "transfer/pool.py _worker", "transport/http11.py _read_head"


def described(title: str) -> list[str]:
    """Return the calls that the page lists under a title, as ``file function``."""
    section = PAGE.read_text().partition(f"\n{title}\n")[2].partition("\n\n\n")[0]
    return [" ".join(call) for call in re.findall(r"^#\. ``(\S+)``, ``(\w+)``", section, re.MULTILINE)]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[tuple[str, ...]]]:
    """Record the calls below the worker each time that a head is read; return those seen so far."""
    seen: set[tuple[str, ...]] = set()
    read_head = http11.read_head

    def recorded(data: bytes) -> object:
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
        seen.add(tuple(f"{frame.filename.removeprefix(PACKAGE)} {frame.name}" for frame in frames))
        return read_head(data)

    monkeypatch.setattr(http11, "read_head", recorded)
    return lambda: {way[way.index(WORKER) :] for way in seen if WORKER in way}


def test_a_small_download(registry, make_blobs, tmp_path, ways):
    blobs = make_blobs(tmp_path / "there", [1000])
    tk.upload(blobs, tmp_path / "there", base_url=registry.url, repository="a/b")
    before = ways()

    tk.download(blobs, tmp_path / "here", base_url=registry.url, repository="a/b")

    (way,) = ways() - before
    assert_described("One small download", way)


def test_a_chunk(registry, make_blobs, tmp_path, ways):
    blobs = make_blobs(tmp_path / "there", [3 * MIB])
    tk.upload(blobs, tmp_path / "there", base_url=registry.url, repository="a/b")
    options = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB)

    tk.download(blobs, tmp_path / "here", base_url=registry.url, repository="a/b", options=options)

    (way,) = {way for way in ways() if any(call.endswith(" fetch_range") for call in way)}
    assert_described("One chunk", way)


def test_an_upload(registry, make_blobs, tmp_path, ways):
    blobs = make_blobs(tmp_path / "there", [1000])

    tk.upload(blobs, tmp_path / "there", base_url=registry.url, repository="a/b")

    (way,) = {way for way in ways() if "remote/upload_oci.py send" in way}
    assert_described("One upload", way)


def test_an_upload_to_ollama(make_blobs, tmp_path, ways):
    blobs = make_blobs(tmp_path / "there", [1000])
    with scripted_server([answer(200)]) as storage:
        begun = {"Location": "/session", "X-Direct-Upload-URL": f"{storage.url}/bucket"}
        with scripted_server([answer(404), answer(202, b"", begun), answer(201)]) as server:
            hosts = frozenset({f"127.0.0.1:{server.port}"})
            options = tk.TransferOptions(transport=tk.TransportOptions(ollama_hosts=hosts))
            tk.upload(blobs, tmp_path / "there", base_url=server.url, repository="a/b", options=options)

    (way,) = {way for way in ways() if "remote/upload_ollama.py send" in way}
    assert_described("One upload to Ollama's registry", way)


def test_a_part_of_an_upload_to_ollama(make_blobs, tmp_path, ways, monkeypatch):
    """Whoever sends it: the worker of the blob, or another one beside it."""
    monkeypatch.setattr("transferkit.remote.upload_ollama.SMALLEST_PART", 500)
    blobs = make_blobs(tmp_path / "there", [1500])
    with scripted_server(lambda request: answer(200)) as storage:
        to = {"Location": f"{storage.url}/bucket", "Docker-Upload-Location": "/session"}
        parts = [answer(307, b"", to)] * 3
        with scripted_server([answer(404), answer(202, b"", {"Location": "/session"}), *parts, answer(201)]) as server:
            hosts = frozenset({f"127.0.0.1:{server.port}"})
            options = tk.TransferOptions(transport=tk.TransportOptions(ollama_hosts=hosts))
            tk.upload(blobs, tmp_path / "there", base_url=server.url, repository="a/b", options=options)

    of_parts = [way for way in ways() if any(call.startswith("remote/upload_parts.py ") for call in way)]
    assert of_parts
    assert max(map(len, of_parts)) - 2 <= MOST


def assert_described(title: str, way: tuple[str, ...]) -> None:
    assert (WORKER, HEAD) == (way[0], way[-1])
    assert list(way) == described(title)
    assert len(way) - 2 <= MOST
