"""Limits on connections, and on what a user or a token may ask: everything arrives, up and down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.testing import FaultProxy, Faults, running_registry

REPOSITORY = "library/model"
MIB = 1024 * 1024
# Little patience: who is refused while the others move must not be given up for it.
HASTY = tk.TransferOptions(
    chunk_threshold=MIB,
    chunk_size=MIB // 4,
    retry=tk.RetryOptions(attempts=3, patience=0.2),
    transport=tk.TransportOptions(response_timeout=0.3, commit_timeout=3.0),
)
SIZES = [20_000 + 1000 * number for number in range(20)] + [3 * MIB]
MIDDLE = 3_000_000  # bytes/s of one connection

# What becomes of a connection that is one too many.
EXCESS = {
    "reset": Faults(refuse=True),
    "closed": Faults(close_after=0),
    "silent": Faults(silent_after=0, silent_after_up=0),
}
ways = pytest.mark.parametrize("way", ["download", "upload"])


def move(way: str, url: str, blobs: list[tk.Blob], folder: Path, **keywords: object) -> tk.Report:
    where = {"base_url": url, "repository": REPOSITORY, "options": HASTY, "concurrency": 16, **keywords}
    return (
        tk.download(blobs, folder / "copy", **where) if way == "download" else tk.upload(blobs, folder / "s", **where)
    )


def limited(url: str, most: int, excess: Faults) -> FaultProxy:
    """Return a proxy that lets ``most`` connections through at once."""

    def choose(number: int) -> Faults:
        return Faults(bandwidth=MIDDLE) if len(proxy._live) < most else excess  # we are in its thread

    proxy = FaultProxy(url, choose)
    return proxy


@ways
@pytest.mark.parametrize("excess", ["reset", "silent", pytest.param("closed", marks=pytest.mark.full)])
@pytest.mark.parametrize("most", [1, 2])
def test_a_server_that_takes_few_connections_of_a_client(way, excess, most, make_blobs, tmp_path, contents):
    blobs = make_blobs(tmp_path / "s", SIZES)
    with running_registry() as registry:
        if way == "download":
            tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY)
        with limited(registry.url, most, EXCESS[excess]) as proxy:
            began = time.monotonic()
            move(way, proxy.url, blobs, tmp_path)
            took = time.monotonic() - began
        found = contents(tmp_path / "copy" if way == "download" else registry.store / "blobs")
    assert {blob.digest.replace(":", "-") for blob in blobs} == {n for n, digest in found.items() if n == digest}
    assert took < 20.0


class Account:
    """Middleware: what one token may ask for at once (``most``), or in so many seconds (``per``); the rest is a 429."""

    def __init__(self, most: int, per: float | None, code: str) -> None:
        self.most, self.per = most, per
        self.body = b'{"errors": [{"code": "%s", "message": "slow down"}]}' % code.encode()
        self.refused = 0
        self._lock = threading.Lock()
        self._asked: dict[str, list[float]] = {}

    def __call__(self, app: Callable) -> Callable:
        def limited(environ, start):
            key = environ.get("HTTP_AUTHORIZATION", "")
            now = time.monotonic()
            with self._lock:
                asked = self._asked.setdefault(key, [])
                if self.per is not None:
                    asked[:] = [at for at in asked if now - at < self.per]
                is_refused = len(asked) >= self.most
                self.refused += is_refused
                if not is_refused:
                    asked.append(now)
            if is_refused:
                environ["wsgi.input"].read()
                start("429 Too Many Requests", [("Content-Type", "application/json")])
                return [self.body]
            try:
                time.sleep(0.02)  # so that several are there at once
                return list(app(environ, start))
            finally:
                if self.per is None:
                    with self._lock:
                        asked.remove(now)

        return limited


@ways
@pytest.mark.parametrize(("most", "per"), [(1, None), (3, None), (10, 0.2)])
@pytest.mark.parametrize(
    "credentials", [{"token": "t"}, pytest.param({"auth": ("user", "password")}, marks=pytest.mark.full)]
)
def test_what_a_token_or_a_user_may_ask_is_found_out(way, most, per, credentials, make_blobs, tmp_path, contents):
    blobs = make_blobs(tmp_path / "s", SIZES)
    account = Account(most, per, "TOOMANYREQUESTS")
    with running_registry(middleware=account, threads=40) as registry:
        if way == "download":
            account.most, most = 1000, account.most
            tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY)
            account.most = most
        began = time.monotonic()
        move(way, registry.url, blobs, tmp_path, **credentials)
        took = time.monotonic() - began
        found = contents(tmp_path / "copy" if way == "download" else registry.store / "blobs")
    assert {blob.digest.replace(":", "-") for blob in blobs} == {n for n, digest in found.items() if n == digest}
    assert account.refused
    assert took < 20.0
