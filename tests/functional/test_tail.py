"""The tail: one connection is late, and nothing else is left to do. Nobody waits for the stall timeout.

How soon it is cut is tested on an injected clock, in ``unit/transfer/test_watchdog.py``; here, a call that would wait
for the stall timeout takes ten minutes.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.bundles import REPOSITORY, Blobs, serve
from tests.functional.bundles import small as small
from transferkit.testing import Faults, fault_proxy, running_registry
from transferkit.testing.scripted import RawRequest, ScriptedServer, Step
from transferkit.testing.wire import Pause, answer

MIB = 1024 * 1024
CHUNK = 8 * MIB
PATIENT = tk.TransferOptions(stall_timeout=600.0, transport=tk.TransportOptions(response_timeout=600.0))


class Healed(tk.Trace):
    """What was cut for being late, and where it went on."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.texts: list[str] = []

    def healed(self, descriptor: tk.Descriptor, error: tk.TransferKitError, position: int) -> None:
        self.positions.append(position)
        self.texts.append(str(error))


def download(url: str, blobs: list[tk.Blob], folder: Path, **keywords: Any) -> tk.Report:
    return tk.download(blobs, folder, base_url=url, repository=REPOSITORY, options=PATIENT, **keywords)


@pytest.mark.parametrize("sent", ["nothing", "a part"])
def test_a_small_blob_whose_answer_never_comes_is_asked_for_a_second_time(
    sent: str, small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    """The last ones are asked for one by one; some before them, together."""
    folder, blobs = small
    seen, late = Blobs(folder, blobs), [blobs[-1].digest, blobs[60].digest]

    def fault(seen: Blobs, request: RawRequest, data: bytes) -> Step:
        whole = answer(200, data)
        if any(digest in request.target and seen.asked[digest] == 1 for digest in late):
            return [whole[:-5] if sent == "a part" else b"", Pause(600)]
        return whole

    trace = Healed()
    with serve(seen, fault) as server:
        report = download(server.url, blobs, tmp_path / "to", concurrency=4, trace=trace)

    assert_exactly(tmp_path / "to", blobs)
    assert [2, 2] == [seen.asked[digest] for digest in late]
    assert report.healed == report.retried == len(trace.texts) >= 2
    assert all("with nothing else left to do" in text for text in trace.texts)
    assert report.bytes - sum(blob.size for blob in blobs) <= sum(blob.size for blob in blobs if blob.digest in late)


class Ranges:
    """A server of one blob in chunks: of the last one it sends a part, and is silent then."""

    def __init__(self, data: bytes) -> None:
        self.asked: Counter[int] = Counter()
        self._data = data
        self._lock = threading.Lock()
        self.server = ScriptedServer(self._say)

    def _say(self, request: RawRequest) -> Step:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if wanted is None:
            return answer(404)  # a list of chunks
        first, last = int(wanted[1]), int(wanted[2])
        with self._lock:
            self.asked[first] += 1
        said = f"bytes {first}-{last}/{len(self._data)}"
        whole = answer(206, self._data[first : last + 1], {"Content-Range": said})
        is_last = last == len(self._data) - 1
        if is_last and first % CHUNK == 0 and self.asked[first] == 1:
            return [whole[: len(whole) // 2], Pause(600)]
        return whole


@pytest.mark.parametrize("chunks", [3, 8])
def test_a_connection_that_falls_silent_in_the_last_chunk_goes_on_on_another_one_and_no_byte_comes_twice(
    chunks: int, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    """Of three chunks too few have ended to compare with: but it was quick itself."""
    data = random.Random(1).randbytes(chunks * CHUNK)
    blob = tk.Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    ranges, trace = Ranges(data), Healed()
    with ranges.server as server:
        report = download(server.url, [blob], tmp_path / "to", concurrency=4, trace=trace)

    assert_exactly(tmp_path / "to", [blob])
    assert report.healed == report.retried == len(trace.texts) >= 1
    # Within the last chunk, from where it was.
    assert [at for at in trace.positions if (chunks - 1) * CHUNK < at < len(data)]
    assert report.bytes == len(data)


def test_where_all_are_slow_nobody_is_cut(make_blobs: Any, tmp_path: Path, assert_exactly: Callable[..., None]) -> None:
    blobs = make_blobs(tmp_path / "source", [1000] * 6 + [120_000] * 9)
    with running_registry() as registry, fault_proxy(registry.url, Faults(bandwidth=150_000)) as proxy:
        tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        report = download(proxy.url, blobs, tmp_path / "to", concurrency=3)

    assert_exactly(tmp_path / "to", blobs)
    assert (report.retried, report.bytes) == (0, sum(blob.size for blob in blobs))
