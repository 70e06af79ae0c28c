"""429 and 503: all threads pause, for as long as they are asked to, and no longer than the user allows."""

from __future__ import annotations

import itertools
import time
from email.utils import formatdate

import pytest

import transferkit as tk
from transferkit.testing import FaultRule, HTTPFaults, respond, with_faults
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


# Of both kinds what stands in Retry-After is read in one place.
WAITS = ("1", "date", None, "-5", "soon")


@pytest.mark.parametrize(
    ("status", "wait"),
    [*((429, wait) for wait in WAITS), *(pytest.param(503, wait, marks=pytest.mark.full) for wait in WAITS)],
)
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


class Seen:
    """Middleware: when each request for a blob began and ended, and what it was answered. Each takes 30 ms."""

    def __init__(self, faults: HTTPFaults) -> None:
        self.requests: list[tuple[float, float, int]] = []
        self._faults = faults

    def __call__(self, app):
        faulty = self._faults(app)

        def timed(environ, start):
            if environ["REQUEST_METHOD"] != "GET":
                return app(environ, start)
            began = time.monotonic()
            time.sleep(0.03)
            statuses = []

            def note(status, headers, *rest):
                statuses.append(int(status[:3]))
                return start(status, headers, *rest)

            body = list(faulty(environ, note))
            self.requests.append((began, time.monotonic(), statuses[0]))
            return body

        return timed

    def most(self, after: float, until: float) -> int:
        """Return how many requests were in flight at once, at most, of those that began between these times."""
        edges = sorted(
            edge for began, ended, _ in self.requests if after <= began < until for edge in ((began, 1), (ended, -1))
        )
        return max(itertools.accumulate(change for _, change in edges), default=0)


@pytest.mark.parametrize("status", [429, 503])
def test_one_refusal_pauses_all_threads_and_fewer_come_back_and_then_more(make_blobs, tmp_path, status, assert_exactly):
    """700 blobs, too large for bundles, and 32 workers; the 201st request is answered ``Retry-After: 1``."""
    blobs = make_blobs(tmp_path / "s", [66_000 + n for n in range(700)])
    faults = HTTPFaults()
    seen = Seen(faults)
    with running_registry(middleware=seen, threads=40) as registry:
        fill(registry, blobs, tmp_path)
        faults.set(FaultRule(respond(status, retry_after="1"), skip=200, times=1))
        report = download(registry, blobs, tmp_path / "d", concurrency=32)

    (told,) = [ended for _, ended, answered in seen.requests if answered == status]
    resumed = min(began for began, _, _ in seen.requests if began > told + 0.5)
    before = seen.most(0.0, told)
    # What was on its way when the answer came may still arrive, on a busy machine a while after; nothing else does.
    assert [] == [began for began, _, _ in seen.requests if told + 0.3 < began < told + 0.99]
    assert resumed - told < 3
    after = seen.most(resumed, resumed + 0.2)
    assert 16 <= before
    # Half of what the client had on its way, of which the server may have seen some less; and two that find a place at
    # the same moment both take it.
    assert after <= before // 2 + 4
    assert after < seen.most(resumed + 0.2, resumed + 60.0) <= 32
    assert 1 == report.retried
    assert_exactly(tmp_path / "d", blobs)


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
