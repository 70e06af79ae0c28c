"""A real proxy, tinyproxy, between the library and docker-registry: it forwards, and it is a tunnel for TLS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

import transferkit as tk
from transferkit.testing import Faults, fault_proxy

pytestmark = pytest.mark.integration

AssertStored = Callable[[Path, list[tk.Blob]], None]
WHERE = "library/model"


@dataclass(frozen=True)
class Way:
    """A registry behind a proxy."""

    registry: Any
    proxy: Any
    command: str
    """How the lines begin that the proxy is sent."""


@pytest.fixture(params=["forwarded", "tunnelled"])
def way(
    request: pytest.FixtureRequest, tinyproxy: Any, certificate_authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Way]:
    """docker-registry in the clear, to which the proxy forwards, and behind TLS, to which it is a tunnel."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", tinyproxy.url)
    monkeypatch.setenv("HTTPS_PROXY", tinyproxy.url)
    is_tunnel = request.param == "tunnelled"
    registry = request.getfixturevalue("tls_registry" if is_tunnel else "docker_registry")
    with certificate_authority.cert_pem.tempfile() as bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
        yield Way(registry, tinyproxy, "CONNECT 127.0.0.1" if is_tunnel else "")


@pytest.fixture
def fast_lane_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordinary lane is closed, unless this run is there to try it."""
    if os.environ.get("TRANSFERKIT_TEST_TRANSPORT") != "plain":
        monkeypatch.setattr("transferkit.transport.exchange.send_by_session", None)


@pytest.mark.usefixtures("fast_lane_alone")
def test_blobs_go_up_and_come_back_through_a_proxy(
    way: Way, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [0, 1, 1000, 100_000, 3_000_000, 20_000_000, *[16_384] * 50])
    where = {"base_url": way.registry.url, "repository": WHERE}
    pushed = tk.upload(blobs, tmp_path / "src", **where)
    pulled = tk.download(blobs, tmp_path / "new", **where)

    assert [56, 56] == [report.blobs for report in (pushed, pulled)]
    # When it forwards, it ends each connection without a word of it: a few requests find out.
    assert pushed.retried < 10
    assert pulled.healed == pulled.retried  # who is late at the tail of a busy machine is asked again
    assert {blob.digest for blob in blobs} == set(way.registry.blobs())
    assert_stored(tmp_path / "new", blobs)
    authority = way.registry.authority
    seen = way.proxy.requests()
    if way.command:
        assert {f"CONNECT {authority}"} == {line.rpartition(" ")[0] for line in seen}
        assert len(seen) <= 64 + 32  # connections, and not requests
    else:
        # POST and PUT of each blob on its way up, GET on its way down.
        assert 3 * len(blobs) <= len([line for line in seen if f" http://{authority}/v2/" in line])


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_cancel_ends_a_transfer_through_a_proxy_at_once(
    way: Way, make_blobs: Any, tmp_path: Path, direction: str
) -> None:
    blobs = make_blobs(tmp_path / "src", [3_000_000] * 4)
    if direction == "down":
        tk.upload(blobs, tmp_path / "src", base_url=way.registry.url, repository=WHERE)
    faults = Faults(silent_after=200_000) if direction == "down" else Faults(silent_after_up=200_000)
    with fault_proxy(way.registry.url, faults) as silent:
        cancel, at = tk.Cancellation(), []

        def watch() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if any(max(each.down, each.up) >= 150_000 for each in silent.connections):
                    break
                time.sleep(0.01)
            time.sleep(0.1)  # until it is silent
            at.append(time.monotonic())
            cancel.cancel("enough")

        watcher = threading.Thread(target=watch, name="transferkit-test-watch")
        watcher.start()
        where: dict[str, Any] = {"base_url": silent.url, "repository": WHERE, "cancel": cancel}
        with pytest.raises(tk.CancelledError, match="enough"):
            tk.download(blobs, tmp_path / "new", **where) if direction == "down" else tk.upload(
                blobs, tmp_path / "src", **where
            )
        assert time.monotonic() - at[0] < 1.0
        watcher.join()


def test_a_registry_that_the_proxy_does_not_reach_is_an_error(
    way: Way, make_blobs: Any, tmp_path: Path, impatient: tk.TransferOptions
) -> None:
    (blob,) = make_blobs(tmp_path / "src", [1000])
    way.registry.kill()
    if way.command:
        says = f"the proxy {way.proxy.url} on the way to {way.registry.url} failed: Tunnel connection failed: 50"
    else:
        says = "responded with status 50"  # with a page of its own
    with pytest.raises(tk.TransferKitError, match=says):
        tk.download([blob], tmp_path / "new", base_url=way.registry.url, repository=WHERE, options=impatient)
