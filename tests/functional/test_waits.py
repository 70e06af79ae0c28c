"""Nothing waits in silence: one warning for a host that has failed or is silent, one line where it is over."""

from __future__ import annotations

import logging
import socket
import threading

import pytest

import transferkit as tk
from transferkit.testing import FaultRule, Faults, HTTPFaults, fault_proxy, hang_up, respond, running_registry

pytestmark = pytest.mark.lanes

LOGGER = logging.getLogger("tests.of.a.user")
REPOSITORY = "library/model"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _waits_are_soon_long(monkeypatch, caplog):
    monkeypatch.setattr("transferkit.transfer.waits.LONG", 0.05)
    monkeypatch.setattr("transferkit.transfer.pool.PERIOD", 0.01)
    monkeypatch.setattr("transferkit.transfer.watchdog.PERIOD", 0.01)
    caplog.set_level(logging.INFO)


def said(caplog, name="tests.of.a.user"):
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == name]


@pytest.mark.parametrize("way", ["download", "upload", "manifest"])
def test_the_first_failures_of_many_blobs_are_one_warning_and_one_end(way, make_blobs, tmp_path, caplog):
    blobs = make_blobs(tmp_path / "s", [10_000 + number for number in range(20)])
    faults = HTTPFaults()
    manifest = (
        b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [], "config": '
    )
    manifest += b'{"mediaType": "application/vnd.oci.empty.v1+json", "digest": "%s", "size": %d}}'
    with running_registry(middleware=faults) as registry:
        options = tk.TransferOptions(retry=tk.RetryOptions(max_wait=0.1))
        where = {"base_url": registry.url, "repository": REPOSITORY, "options": options}
        raw = manifest % (blobs[0].digest.encode(), blobs[0].size)
        tk.upload(blobs, tmp_path / "s", manifest=raw, manifest_ref="v1", **where)
        caplog.clear()
        faults.set(FaultRule(hang_up(), times=5), FaultRule(respond(503), times=5))
        if way == "download":
            tk.download(blobs, tmp_path / "d", logger=LOGGER, **where)
        elif way == "upload":
            tk.upload(blobs, tmp_path / "s", logger=LOGGER, **{**where, "repository": "another/one"})
        else:
            tk.fetch_manifest("v1", **where)
    lines = said(caplog, "tests.of.a.user" if way != "manifest" else "transferkit")
    warnings = [text for level, text in lines if level == "WARNING"]
    assert warnings[0].startswith(f"waiting for {registry.url}: trying again, after: ")
    # A pause after a 503 may come to a long one where waits are long as soon as here.
    assert len(warnings) <= 2
    assert ["WARNING", "INFO"] * len(warnings) == [level for level, _ in lines]
    assert lines[-1][1].startswith(f"no longer waiting for {registry.url}, after ")


def test_a_host_that_is_silent_is_told_while_it_is(make_blobs, tmp_path, caplog):
    blobs = make_blobs(tmp_path / "s", [MIB])
    with running_registry() as registry:
        tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY)
        with fault_proxy(registry.url, [Faults(latency=0.3)]) as proxy:
            tk.download(blobs, tmp_path / "d", base_url=proxy.url, repository=REPOSITORY, logger=LOGGER)
    (began, waits), (ended, moves) = said(caplog)
    assert ("WARNING", f"waiting for {proxy.url}: nothing has moved for 0 s") == (began, waits)
    assert ("INFO", f"no longer waiting for {proxy.url}, after ") == (ended, moves[: -len("0.3 s")])


def test_a_name_that_does_not_resolve_for_long_is_told(registry, make_blobs, tmp_path, caplog, monkeypatch):
    blobs = make_blobs(tmp_path / "s", [1000])
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY)
    resolve, told = socket.getaddrinfo, threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    def slow(*arguments, **keywords):
        assert told.wait(10)
        return resolve(*arguments, **keywords)

    heard = Heard()
    LOGGER.addHandler(heard)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        tk.download(blobs, tmp_path / "d", base_url=registry.url, repository=REPOSITORY, logger=LOGGER)
    finally:
        LOGGER.removeHandler(heard)
    assert ["WARNING", "INFO"] == [level for level, _ in said(caplog)]


def test_what_goes_well_says_nothing(registry, make_blobs, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("transferkit.transfer.waits.LONG", 5.0)
    blobs = make_blobs(tmp_path / "s", [10_000 + number for number in range(20)])
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY, logger=LOGGER)
    tk.download(blobs, tmp_path / "d", base_url=registry.url, repository=REPOSITORY, logger=LOGGER)
    assert [] == said(caplog)
