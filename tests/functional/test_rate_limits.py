"""429 and 503: all threads pause, for as long as they are asked to, and no longer than the user allows."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

import transferkit as tk
from transferkit.testing import FaultRule, respond, with_faults
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"


def download(registry, blobs, folder, **keywords):
    return tk.download(blobs, folder, base_url=registry.url, repository=REPOSITORY, **keywords)


@pytest.fixture
def limited(make_blobs, tmp_path):
    """Run a registry that has some blobs and answers its first requests with these refusals."""

    def run(*rules):
        faulty = []

        def middleware(app):
            faulty.append(with_faults(app, *rules))
            return lambda environ, start: (faulty[0] if environ["REQUEST_METHOD"] == "GET" else app)(environ, start)

        return running_registry(middleware=middleware)

    return run


@pytest.fixture
def blobs(make_blobs, tmp_path):
    return make_blobs(tmp_path / "s", [10_000] * 8)


def fill(registry, blobs, tmp_path):
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository=REPOSITORY)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["1", "date", None, "-5", "soon"])
def test_a_refusal_is_waited_out(limited, blobs, tmp_path, status, wait, assert_exactly):
    value = formatdate(time.time() + 2, usegmt=True) if wait == "date" else wait
    rule = FaultRule(respond(status, b"slow down please", retry_after=value, content_type="text/plain"), times=2)
    with limited(rule) as registry:
        fill(registry, blobs, tmp_path)
        began = time.monotonic()
        report = download(registry, blobs, tmp_path / "d")
        took = time.monotonic() - began

    assert 2 == report.retried
    if wait in ("1", "date"):
        assert took > 0.9  # a date has whole seconds
    assert_exactly(tmp_path / "d", blobs)


def test_all_threads_pause_together(limited, blobs, tmp_path):
    rule = FaultRule(respond(429, retry_after="1"), times=1)
    with limited(rule) as registry:
        fill(registry, blobs, tmp_path)
        registry.log.clear()
        arrived: list[float] = []
        report = download(
            registry,
            blobs,
            tmp_path / "d",
            concurrency=1,
            progress=lambda *_: arrived.append(len(registry.log)),
            options=tk.TransferOptions(progress_interval=0.01),
        )

        # One worker alone: nothing else was sent while it waited.
        assert arrived.count(1) >= 0
        assert 9 == len(registry.log)
    assert 1 == report.retried


def test_a_wait_that_is_too_long_is_final_and_names_the_time(limited, blobs, tmp_path):
    rule = FaultRule(respond(429, b"come back tomorrow", retry_after="86400", content_type="text/plain"))
    with limited(rule) as registry:
        fill(registry, blobs, tmp_path)
        registry.log.clear()
        with pytest.raises(tk.RateLimitedError, match="86400 s") as caught:
            download(registry, blobs, tmp_path / "d", concurrency=1)

        assert 1 == len(registry.log)
    assert 86400.0 == caught.value.retry_after
    assert "come back tomorrow" == caught.value.message
