"""Checks of a cache behind a server: one at a time, and an end when the server ends."""

from __future__ import annotations

import threading

import pytest

import transferkit as tk
from transferkit.server.checking import Checking


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A cache whose check waits for its cancellation; how often it was called, and an event when it runs."""
    calls, running = [], threading.Event()

    def verify(self, *, progress, cancel):
        calls.append(self)
        progress(5, 10)
        running.set()
        while not cancel.cancelled:
            threading.Event().wait(0.005)
        raise cancel.error()

    monkeypatch.setattr(tk.DiskCache, "verify", verify)
    return tk.DiskCache(tmp_path), calls, running


def test_one_check_runs_at_a_time_and_is_ended_with_the_server(held):
    cache, calls, running = held
    checking = Checking(cache, clock=lambda: 1234.5)
    assert checking.found() is None
    checking.start()
    assert running.wait(5)
    checking.start()
    found = checking.found()
    assert (5, 10, None) == (found.completed, found.total, found.ended)
    checking.close()
    found = checking.found()
    assert (5, 10, 1234.5, True) == (found.completed, found.total, found.ended, "the server ends" in found.error)
    checking.start()
    assert [cache] == calls
