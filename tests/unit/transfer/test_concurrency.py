"""The controller of a host: how many attempts run, on a clock of its own, and with workers that meet at barriers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.errors import (
    CancelledError,
    ConnectError,
    RateLimitedError,
    ReadError,
    ServerError,
    TransportTimeout,
    WriteError,
)
from transferkit.transfer import concurrency
from transferkit.transfer.concurrency import MEMORY, RECOVERY, Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pool import Pool
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import WORKERS, Threads

LIMIT = 30.0  # seconds until a meeting that never happens fails the test
MB = 1_000_000


class Network:
    """Moves ``rate(workers)`` bytes a second, shared by those who have been at work for ``latency`` seconds."""

    def __init__(
        self, rate: Callable[[int], float], *, latency: float = 0.0, ceiling: int = 64, proven: int = 0
    ) -> None:
        self.rate = rate
        self.latency = latency
        self.now = 100.0
        self.flows = [Flow(self, number) for number in range(ceiling)]
        self.used = 7.0
        self.busy = 1.17  # cores: it does not idle, and is not what all wait for
        self.controller = Concurrency(clock=lambda: self.now, cpu=lambda: self.used, cores=4, proven=proven)
        self.controller.begin(self.flows)
        self.history = [self.controller.level]
        self._since = [self.now if number < self.controller.level else None for number in range(ceiling)]

    @property
    def level(self) -> int:
        return self.controller.level

    def go_on(self, seconds: float) -> int:
        """Let time pass, with looks as often as they are wanted; return how many workers there are then."""
        until = self.now + seconds
        while self.now < until:
            pause = min(self.controller.pause, 0.25)
            self.now += pause
            self.used += self.busy * pause
            began = self.now - self.latency
            working = [number for number, since in enumerate(self._since) if since is not None and since < began]
            for number in working:
                self.flows[number].moved(int(self.rate(len(working)) * pause / len(working)))
            workers = self.controller.look()
            for number, since in enumerate(self._since):
                self._since[number] = None if number >= workers else self.now if since is None else since
            if workers != self.history[-1]:
                self.history.append(workers)
        return self.history[-1]

    def enter(self, *numbers: int) -> None:
        for number in numbers:
            self.controller.enter(self.flows[number])

    def fail(self, number: int, error: Exception, wait: float = 0.0) -> None:
        self.controller.failed(error, self.flows[number], wait)


class Flow(WorkerFlow):
    """The flow of a worker whose waits are those of the network's clock."""

    def __init__(self, network: Network, number: int) -> None:
        super().__init__(number)
        self.network = network
        self.waited = 0.0

    def wait(self, seconds: float, why: str = "") -> None:
        self.check()
        self.waited += seconds
        self.network.now += seconds


@pytest.mark.parametrize(("ceiling", "first"), [(1, 1), (2, 2), (3, 2), (64, 2)])
def test_it_begins_with_two(ceiling: int, first: int) -> None:
    controller = Concurrency()
    controller.begin([WorkerFlow(number) for number in range(ceiling)])
    assert (controller.level, controller.pause < 1) == (first, ceiling > 2)


def test_a_link_that_two_workers_fill_gets_no_more_of_them() -> None:
    network = Network(lambda workers: 900 * MB)
    assert network.go_on(0.9) == 2
    assert network.history == [2, 4, 2]


def test_a_link_that_allows_so_much_a_connection_gets_as_many_as_fill_it() -> None:
    network = Network(lambda workers: min(40 * workers, 1280) * MB)
    network.go_on(1.4)
    assert network.history == [2, 4, 8, 16, 32, 64, 32]


def capped(workers: int) -> float:
    return min(40 * workers, 1280) * MB


def test_what_was_proven_in_one_call_is_what_the_next_one_begins_with_the_half_of() -> None:
    network = Network(capped)
    network.go_on(1.4)
    assert network.controller.proven == 32
    later = Network(capped, proven=32)
    later.go_on(0.3)
    assert later.history == [16, 32, 64, 32]


def test_where_it_is_of_no_use_any_more_it_is_given_up() -> None:
    history = []
    proven = 32
    for _ in range(5):
        network = Network(lambda workers: 900 * MB, proven=proven)
        network.go_on(0.9)
        proven = network.controller.proven
        history.append(proven)
    assert history == [16, 8, 4, 2, 2]


def test_a_call_that_has_use_for_few_says_nothing_of_many() -> None:
    network = Network(capped, ceiling=4, proven=32)
    network.go_on(2.0)
    assert (network.history, network.controller.proven) == ([4], 32)


def test_a_host_that_has_had_enough_has_proven_nothing() -> None:
    network = Network(capped, proven=32)
    network.go_on(0.3)
    network.enter(*range(20))
    network.fail(0, RateLimitedError("enough"))
    assert network.controller.proven == 0


@pytest.mark.parametrize(("gain", "workers"), [(1.10, 2), (1.20, 4)])
def test_twice_the_workers_must_bring_a_seventh_more(gain: float, workers: int) -> None:
    network = Network(lambda workers: 100 * MB if workers <= 2 else gain * 100 * MB)
    network.go_on(0.5)
    assert network.history[-2:] == [4, 2] if workers == 2 else network.history[:3] == [2, 4, 8]
    assert network.go_on(0.2) == workers


@pytest.mark.parametrize("ceiling", [10, 32])
def test_before_the_first_byte_there_are_more_at_each_look(ceiling: int) -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1, ceiling=ceiling)
    network.busy = 0.1
    assert network.go_on(0.02) == ceiling
    assert network.history == [workers for workers in (2, 4, 8, 16, 32) if workers < ceiling] + [ceiling]


@pytest.mark.parametrize(("seconds", "workers"), [(0.003, 2), (0.007, 8), (0.011, 32)])
def test_for_five_milliseconds_before_the_first_byte_there_are_no_more(seconds: float, workers: int) -> None:
    """A registry on the same machine may take them to open a file."""
    network = Network(lambda workers: 10 * MB, latency=0.1)
    network.busy = 0.1
    assert network.go_on(seconds) == workers


def test_more_than_32_begin_at_once_where_the_first_byte_takes_50_milliseconds() -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1)
    network.busy = 0.1
    assert network.go_on(0.045) == 32
    assert network.go_on(0.01) == 64


def test_who_is_busy_before_the_first_byte_waits_for_no_network() -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1)
    network.busy = 0.8
    assert network.go_on(0.09) == 2


@pytest.mark.parametrize(
    ("change", "history"),
    [(0.995, [2, 4, 8, 16, 32, 64]), (0.97, [2, 4, 8, 16, 32, 64, 2]), (0.9, [2, 4, 8, 16, 2]), (0.75, [2, 4, 2])],
)
def test_where_the_processor_idles_more_of_them_need_not_bring_more(change: float, history: list[int]) -> None:
    """A registry that is busy itself: more requests that wait there cost nothing here. The best of all is kept."""
    network = Network(lambda workers: 10 * MB * change ** (workers.bit_length() - 2))
    network.busy = 0.3
    network.go_on(0.9)
    assert network.history == history


def test_where_the_processor_idles_a_rate_that_was_measured_too_low_ends_no_climb() -> None:
    """Fifty small blobs come in a window: of two rates the better one may look a fifth worse."""
    seen = {2: 10, 4: 8.5, 8: 12, 16: 10, 32: 13, 64: 12.7}
    network = Network(lambda workers: seen.get(workers, 10) * MB)
    network.busy = 0.3
    network.go_on(0.2)
    assert (network.level, network.controller.proven) == (8, 2)  # what a call proves that ends here
    network.go_on(0.7)
    assert network.history == [2, 4, 8, 16, 32, 64]


def test_where_the_cores_are_full_nothing_is_tried() -> None:
    """55 % of four of them: the server may be on the same machine."""
    network = Network(lambda workers: 400 * workers * MB)
    network.busy = 2.25
    network.go_on(5.0)
    assert network.history == [2]
    network.busy = 2.15
    assert network.go_on(5.0) == 64


@pytest.mark.parametrize(("rate", "busy", "workers"), [(200, 0.9, 2), (200, 0.65, 16), (200, 1.19, 4), (400, 0.9, 4)])
def test_where_the_interpreter_is_busy_with_small_blobs_no_more_of_them_are_tried(
    rate: int, busy: float, workers: int
) -> None:
    """Those of large blobs have other cores to go to."""
    network = Network(lambda workers: rate * MB)
    network.busy = busy
    network.go_on(0.3)
    assert max(network.history) == workers


def test_an_interpreter_without_a_lock_has_other_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_HAS_LOCK", False)
    network = Network(lambda workers: 200 * MB)
    network.busy = 0.9
    network.go_on(0.3)
    assert max(network.history) == 4


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_may_begin_with_one(first: int) -> None:
    controller = Concurrency()
    controller.begin([WorkerFlow(number) for number in range(8)], first)
    assert controller.level == first


def test_where_all_fall_silent_there_are_more_as_well() -> None:
    silent = False
    network = Network(lambda workers: 0 if silent else 900 * MB)
    assert network.go_on(0.9) == 2
    silent, network.busy = True, 0.1
    assert network.go_on(0.2) == 64


def test_new_workers_are_judged_once_they_have_begun() -> None:
    """Half a second for name, connection and TLS: until then they bring nothing."""
    network = Network(lambda workers: 40 * workers * MB, latency=0.0)
    network.latency = 0.5
    network.now += 1.0  # the first two have begun long ago
    network.go_on(0.9)
    assert network.history == [2, 4, 8]


def test_new_workers_that_never_begin_are_judged_after_a_second() -> None:
    network = Network(lambda workers: 80 * MB)
    network.latency = 1000.0
    network.now += 2000.0
    network.go_on(1.1)
    assert network.history == [2, 4]
    network.go_on(0.3)
    assert network.history == [2, 4, 2]


def test_what_brought_nothing_is_tried_again_after_a_rest() -> None:
    busy = True
    network = Network(lambda workers: 100 * MB if busy else 40 * workers * MB)
    assert network.go_on(0.9) == 2
    busy = False
    assert network.go_on(2.0) == 64
    assert network.history == [2, 4, 2, 4, 8, 16, 32, 64]


# -- a host that has had enough


def busy(error: str = "busy") -> ServerError:
    return ServerError(error, status=503, retryable=True)


def link(workers: int) -> float:
    """As many workers as there are move as many times the bytes."""
    return 10.0 * MB * workers


@pytest.fixture
def network() -> Network:
    """64 workers, all of them at it."""
    network = Network(link)
    network.busy = 0.1
    assert network.go_on(2.0) == 64
    network.enter(*range(64))
    return network


def test_calm_costs_nothing(network: Network) -> None:
    assert not any(flow.waited for flow in network.flows)


TROUBLE = [
    RateLimitedError("slow down", status=429),
    busy(),
    ConnectError("refused"),
    TransportTimeout("silent"),
    ReadError("cut before the head"),
    WriteError("reset"),
]


@pytest.mark.parametrize("error", TROUBLE, ids=lambda error: type(error).__name__)
def test_what_is_running_is_halved(network: Network, error: Exception) -> None:
    for flow in network.flows[40:]:
        flow.attempt = 0  # these have nothing to do
    network.fail(0, error)
    assert network.level == 20


@pytest.mark.parametrize("error", [ServerError("broken", status=500), ReadError("cut"), WriteError("reset")])
def test_what_is_no_limit_of_the_host_changes_nothing(network: Network, error: Exception) -> None:
    network.flows[0].watch.start()  # it has answered
    network.fail(0, error, 7.0)
    network.enter(1)
    assert (network.level, network.flows[1].waited) == (64, 0.0)


@pytest.mark.parametrize("error", TROUBLE[:2], ids=lambda error: type(error).__name__)
def test_all_wait_for_what_one_was_told(network: Network, error: Exception) -> None:
    began = network.now
    network.fail(0, error, 7.5)
    for flow in network.flows:
        flow.attempt = 0
    network.enter(1)
    assert 7.5 <= network.now - began < 7.6


def test_a_refused_connection_is_waited_for_by_nobody(network: Network) -> None:
    network.fail(0, ConnectError("refused"), 7.0)
    for flow in network.flows:
        flow.attempt = 0
    network.enter(1)
    assert network.flows[1].waited == 0.0


def test_a_longer_pause_stands(network: Network) -> None:
    began = network.now
    network.fail(0, busy(), 7.0)
    network.fail(1, busy(), 2.0)
    for flow in network.flows:
        flow.attempt = 0
    network.enter(2)
    assert network.now - began >= 7.0


def test_sixty_answers_of_one_moment_halve_once(network: Network) -> None:
    for number in range(64):
        network.fail(number, busy())
    assert network.level == 32


def test_answers_to_attempts_that_began_after_it_halve_again_but_never_below_one(network: Network) -> None:
    levels = []
    for _ in range(9):
        for flow in network.flows:
            flow.attempt = 0
        network.enter(*range(network.level))
        network.fail(0, busy())
        levels.append(network.level)
    assert levels == [32, 16, 8, 4, 2, 1, 1, 1, 1]


def test_no_more_than_the_level_run_at_once(network: Network) -> None:
    network.fail(0, busy())
    assert network.level == 32
    for flow in network.flows[32:]:
        flow.attempt = 0
    done = threading.Event()

    class Waiting(Flow):
        def wait(self, seconds: float, why: str = "") -> None:
            done.set()
            network.flows[3].attempt = 0  # somebody is done

    waiting = Waiting(network, 0)
    network.enter(0)  # the thirty-second of them
    network.controller.enter(waiting)
    assert done.is_set()


def test_a_cancelled_worker_does_not_wait(network: Network) -> None:
    network.fail(0, busy(), 1000.0)
    network.flows[1].cut(CancelledError("stop"), final=True)
    with pytest.raises(CancelledError):
        network.enter(1)


def test_it_does_not_grow_before_the_host_has_recovered_and_climbs_from_there(network: Network) -> None:
    network.fail(0, RateLimitedError("slow down", status=429), 3.0)
    before = len(network.history)
    network.go_on(3.0 + RECOVERY - 0.05)
    assert network.history[before:] == [32]
    network.go_on(1.5)
    assert network.history[before:] == [32, 48, 56, 60, 62, 63]


def test_it_does_not_grow_while_nothing_moves(network: Network) -> None:
    network.fail(0, ConnectError("refused"))
    network.rate = lambda workers: 0.0
    assert network.go_on(100.0) == 32


def test_a_trial_that_is_refused_costs_that_trial(network: Network) -> None:
    network.fail(0, busy())
    while network.go_on(0.02) == 32:
        pass
    assert network.level == 48
    for flow in network.flows:
        flow.attempt = 0
    network.enter(*range(48))
    network.fail(40, busy())
    assert network.level == 32
    began = network.now
    while network.go_on(0.02) == 32:
        pass
    # It takes longer than the first time, and then comes what lies between what it takes and what it refused.
    assert (network.level, 2 * RECOVERY <= network.now - began < 2 * RECOVERY + 0.2) == (40, True)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 13])
def test_a_host_that_takes_so_many_connections_gets_so_many(limit: int) -> None:
    network = Network(link)
    network.busy = 0.1
    refused = 0
    for _ in range(2000):
        network.go_on(0.02)
        for flow in network.flows:
            flow.attempt = 0
        network.enter(*range(network.level))
        for number in range(limit, network.level):
            refused += 1
            network.fail(number, busy())
        network.rate = lambda workers: link(min(workers, limit))
        if network.now >= 100.0 + MEMORY - 1.0:
            break
    assert (network.level, refused < 120) == (limit, True)


def test_after_a_while_what_was_refused_is_tried_again(network: Network) -> None:
    network.fail(0, busy())
    network.go_on(20.0)
    assert network.level == 63
    network.go_on(MEMORY)
    assert network.level == 64


@pytest.mark.parametrize(("running", "level"), [(1, 2), (2, 2), (3, 1), (8, 2)])
@pytest.mark.parametrize("error", TROUBLE, ids=lambda error: type(error).__name__)
def test_one_failure_among_few_is_not_remembered(error: Exception, running: int, level: int) -> None:
    network = Network(link)
    network.busy = 0.1
    network.enter(*range(running))
    network.fail(0, error)
    assert (network.level, network.go_on(3.0)) == (level, 64)


def test_a_trial_among_few_that_is_refused_again_is_remembered() -> None:
    network = Network(link)
    levels = []
    for _ in range(3):
        network.go_on(0.02)
        while levels[1:] and network.level == 1:
            network.go_on(0.02)
        network.flows[0].attempt = network.flows[1].attempt = 0
        network.enter(*range(network.level))
        network.fail(network.level - 1, busy())
        levels.append(network.level)
    assert (levels, network.go_on(MEMORY - 1.0)) == ([2, 1, 1], 1)


def test_the_failures_that_one_unit_repeats_while_others_move_slow_nobody_down() -> None:
    network = Network(link)
    network.busy = 0.1
    for _ in range(200):
        network.enter(0)
        network.controller.failed(busy(), network.flows[0], 5.0, excused=True)
        network.go_on(0.05)
        network.enter(1)
    assert (network.level, network.flows[1].waited < 6.0) == (64, True)


def test_another_run_begins_where_the_host_had_enough(network: Network) -> None:
    network.fail(0, busy())
    network.controller.begin(network.flows[:40])
    assert network.level == 32
    network.controller.begin(network.flows[:10])
    assert network.level == 10


def test_the_others_bytes_are_counted_without_ones_own_and_those_thrown_away() -> None:
    network = Network(link)
    network.flows[3].moved(10)
    assert network.controller.progress_of_others(network.flows[3]) == 0
    network.flows[4].moved(5)
    assert network.controller.progress_of_others(network.flows[3]) == 5
    network.flows[4].counter.set_position(0)
    assert network.controller.progress_of_others(network.flows[3]) == 0


# -- in the pool


class Endless:
    """One unit after the other, until ``enough`` says so."""

    def __init__(self, enough: Callable[[], bool]) -> None:
        self._enough = enough

    def take(self, worker: int) -> int | None:
        return None if self._enough() else 0

    def stop(self) -> None:
        self._enough = lambda: True

    close = stop

    def __bool__(self) -> bool:
        return not self._enough()


def run(
    work: Any, units: Any, *, concurrency: int, controller: Concurrency | None = None, executor: Any = WORKERS
) -> None:
    flows = [WorkerFlow(number) for number in range(concurrency)]
    pool: Pool = Pool(work, units, flows, concurrency=controller or Concurrency())
    with Threads(concurrency, executor) as threads:
        threads.run(pool, Cancellation(), interval=0.01)


@pytest.mark.parametrize("concurrency", [1, 2, 5, 64])
def test_a_pool_whose_workers_all_wait_starts_the_others(concurrency: int) -> None:
    meeting = threading.Barrier(concurrency, timeout=LIMIT)  # nobody gets past it until all of them are here

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()

    run(work, Scheduler(range(2 * concurrency)), concurrency=concurrency)


def test_a_pool_whose_units_are_all_taken_starts_nobody_more() -> None:
    names: set[str] = set()
    meeting = threading.Barrier(2, timeout=LIMIT)

    def work(unit: int, flow: WorkerFlow) -> None:
        names.add(threading.current_thread().name)
        meeting.wait()
        threading.Event().wait(0.05)  # ten looks

    run(work, Scheduler(range(2)), concurrency=64)
    assert len(names) == 2


class Scripted(Concurrency):
    """Looks every millisecond, and says what it is told to."""

    pause = 0.001  # type: ignore[assignment]

    def look(self) -> int:
        return self.level


def test_workers_that_are_too_many_end_with_their_units_and_begin_again() -> None:
    """A script says 2, then 1, then 3: who is to end finishes its unit, and every unit is done once."""
    controller = Scripted()
    done: list[tuple[int, int]] = []
    two, three = threading.Barrier(2, timeout=LIMIT), threading.Barrier(3, timeout=LIMIT)

    def work(unit: int, flow: WorkerFlow) -> None:
        if unit < 2:
            two.wait()
            controller.level = 1
            threading.Event().wait(0.1)  # a hundred looks
        elif unit == 20:
            controller.level = 3
            three.wait()
        elif unit > 20:
            three.wait()
        done.append((unit, flow.number))

    run(work, Scheduler(range(23)), concurrency=3, controller=controller)
    assert sorted(unit for unit, _ in done) == list(range(23))
    assert {number for unit, number in done if 2 <= unit < 20} == {0}
    assert {number for unit, number in done if unit >= 20} == {0, 1, 2}


def test_workers_that_have_ended_are_forgotten() -> None:
    """A script says 2 and 1 in turn, a hundred times: nothing is left of those that ended but the last few."""
    futures: list[weakref.ref[Future[Any]]] = []

    class Observed(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            futures.append(weakref.ref(future))
            return future

    class Wobbling(Scripted):
        def look(self) -> int:
            self.level = 3 - self.level
            return self.level

    alive = []

    def work(unit: int, flow: WorkerFlow) -> None:
        threading.Event().wait(0.002)
        alive.append(sum(future() is not None for future in futures))

    run(work, Endless(lambda: len(futures) > 100), concurrency=3, controller=Wobbling(), executor=Observed)
    assert len(futures) > 100
    assert max(alive) < 20
