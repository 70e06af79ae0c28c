"""What a trace hears of a call: how far it is, what its workers do, and what they wait for."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import transferkit as tk
from transferkit.content.chunk import Chunk
from transferkit.content.digest import Digest
from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.pulse import Pulse
from transferkit.transfer.waits import Waits

LOGGER = logging.getLogger("tests.pulse")
LARGE = tk.Descriptor("sha256:" + 64 * "a", 1000)
SMALL = tk.Descriptor("sha256:" + 64 * "b", 10)


class Heard(tk.Trace):
    def __init__(self) -> None:
        self.statuses: list[tk.Status] = []
        self.waits: list[tuple[object, ...]] = []

    def status(self, status: tk.Status) -> None:
        self.statuses.append(status)

    def waiting(self, reason: str, pause: float) -> None:
        self.waits.append(("waiting", reason, pause))

    def waited(self, reason: str, seconds: float) -> None:
        self.waits.append(("waited", reason, seconds))


class Rig:
    """A pulse, two workers, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.heard = Heard()
        self.flows = [WorkerFlow(0), WorkerFlow(1)]
        self.waits = Waits(LOGGER, "host", clock=lambda: self.now)
        self.pulse = Pulse(self.heard, LOGGER, self.waits, clock=lambda: self.now)
        self.outcomes = Outcomes(self.heard, LOGGER, total=1010, present=5)

    def look(self, doing: str = "") -> tk.Status:
        self.pulse.look(self.flows, self.outcomes, doing)
        return self.heard.statuses[-1]


def connected(flow: WorkerFlow, unit: tk.Descriptor) -> None:
    flow.counter.next_unit()
    flow.unit = unit
    flow.attach(lambda: None)


def test_bytes_that_are_moved_and_bytes_that_were_there_stand_apart() -> None:
    rig = Rig()
    connected(rig.flows[0], LARGE)
    rig.flows[0].counter.set_position(300)  # from an earlier run
    rig.flows[0].moved(50)
    connected(rig.flows[1], SMALL)
    rig.flows[1].moved(10)
    rig.flows[1].counter.set_position(0)  # thrown away
    status = rig.look()
    assert (status.completed, status.total, status.cached, status.moved) == (355, 1010, 305, 60)
    assert status.blobs == ((LARGE, 350), (SMALL, 0))
    assert (status.workers, status.verifying, status.waiting, status.reason) == (2, 0, 0, "")


def test_what_others_take_over_is_counted_once() -> None:
    rig = Rig()
    rig.flows[0].counter.set_position(300)  # what all have begun is the first figure
    assert rig.look().cached == 305
    connected(rig.flows[1], LARGE)
    rig.flows[1].counter.take_over(300, 300)
    rig.flows[1].moved(20)
    status = rig.look()
    assert (status.completed, status.cached, status.moved) == (325, 305, 20)


def test_who_has_no_connection_is_at_the_disk() -> None:
    rig = Rig()
    rig.flows[0].unit = LARGE
    assert rig.look().verifying == 1
    assert rig.look("hashing").doing == "hashing"


def test_a_wait_of_all_workers_is_one_of_the_call() -> None:
    rig = Rig()
    for flow, why, until in zip(rig.flows, ("retry", "rate limit"), (101.0, 130.0), strict=True):
        flow.unit, flow.waits, flow.until = LARGE, why, until
    status = rig.look()
    assert (status.waiting, status.reason, status.pause) == (2, "rate limit", 1.0)
    rig.now = 101.5
    rig.flows[0].waits = ""
    assert rig.look().reason == ""
    assert rig.heard.waits == [("waiting", "rate limit", 1.0), ("waited", "rate limit", 1.5)]


def test_a_lock_is_waited_for_without_a_known_end() -> None:
    rig = Rig()
    rig.flows[0].unit, rig.flows[0].waits, rig.flows[0].until = LARGE, "lock", 100.05
    status = rig.look()
    assert (status.reason, status.pause) == ("lock", 0.0)


def test_a_registry_that_says_nothing_for_long_is_waited_for() -> None:
    rig = Rig()
    rig.waits.begin(rig.flows)
    connected(rig.flows[0], LARGE)
    rig.now += 6.0
    rig.waits.look()
    assert rig.look().reason == "registry"


def test_the_next_step_of_a_call_goes_on_with_what_was_moved() -> None:
    rig = Rig()
    connected(rig.flows[0], LARGE)
    rig.flows[0].moved(40)
    rig.look()
    rig.pulse.end()
    rig.flows = [WorkerFlow(0)]
    rig.outcomes = Outcomes(rig.heard, LOGGER, total=2000, begun=1010)
    status = rig.look()
    assert (status.completed, status.cached, status.moved) == (1010, 5, 40)
    rig.pulse.look([WorkerFlow(0)])  # a request that is no blob
    assert (rig.heard.statuses[-1].completed, rig.heard.statuses[-1].total) == (1010, 2000)


def test_what_a_flow_waits_for_is_seen_while_it_does() -> None:
    seen: list[str] = []

    class Bell:
        def acquire(self, timeout: float) -> None:
            seen.append(flow.waits)

    flow = WorkerFlow()
    flow._bell = Bell()  # type: ignore[assignment]  # nobody sleeps
    flow.wait(1.0, "lock")
    flow.wait(1.0)
    assert seen == ["lock", ""]
    assert flow.waits == ""


def test_a_chunk_that_has_a_digest_counts_while_it_arrives() -> None:
    rig = Rig()
    blob = ChunkedBlob(LARGE, size=100, window=4)
    blob.ingest = SimpleNamespace(in_place=200, unverified=30)  # type: ignore[assignment]  # as much of one as is asked
    for flow, start, at in zip(rig.flows, (300, 400), (350, 425), strict=True):
        flow.unit = unit = ChunkUnit(blob, Chunk(start, start + 99), Digest(LARGE.digest))
        unit.rewind()
        unit.at = at
    assert rig.look().blobs == ((LARGE, 305),)
    rig.flows[0].unit.hasher = None  # a plain range is in place as it is written
    assert rig.look().blobs == ((LARGE, 255),)


def test_a_step_that_is_no_transfer_has_figures_of_its_own() -> None:
    rig = Rig()
    rig.outcomes = Outcomes(rig.heard, LOGGER, total=3000, begun=0, apart=(0, 1000))
    rig.flows[0].moved(500)
    status = rig.look("hashing")
    assert (status.completed, status.total, status.doing) == (500, 2000, "hashing")
    rig.pulse.end()
    rig.flows = [WorkerFlow(0)]
    rig.outcomes = Outcomes(rig.heard, LOGGER, total=3000, begun=2000, present=100, apart=(2000, 0))
    status = rig.look()
    assert (status.completed, status.total, status.cached, status.moved) == (100, 1000, 100, 500)
