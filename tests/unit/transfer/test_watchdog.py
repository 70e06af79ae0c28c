"""Silent and slow bodies are cut, on an injected clock; nobody else is."""

from __future__ import annotations

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.errors import SlowError, StalledError
from transferkit.options import RetryOptions
from transferkit.retry import Retry
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.watchdog import Speeds, Watchdog

MIB = 1024 * 1024


@pytest.fixture
def flow():
    flow = WorkerFlow()
    flow.counter.next_unit()
    return flow


def watch(flow, speeds=None, stall_timeout=10.0) -> Watchdog:
    return Watchdog([flow], speeds or Speeds(), stall_timeout=stall_timeout)


def fast_siblings(rate: float = 10 * MIB) -> Speeds:
    speeds = Speeds()
    for _ in range(5):
        speeds.record(int(rate), 1.0)
    return speeds


def run(dog: Watchdog, flow: WorkerFlow, seconds: float, rate: int, *, start: float = 0.0) -> None:
    """Let ``rate`` bytes a second move for some time, with a look every quarter of a second."""
    for step in range(int(seconds * 4)):
        flow.moved(rate // 4)
        dog.look(start + (step + 1) / 4)


def test_a_silent_body_is_cut_after_the_stall_timeout(flow):
    dog = watch(flow)
    flow.watch.start()
    flow.moved(5)
    dog.look(0.0)
    dog.look(9.9)
    flow.check()

    dog.look(10.0)

    with pytest.raises(StalledError, match="no byte for 10 s"):
        flow.check()


def test_a_cut_wakes_the_worker_and_ends_with_the_attempt(flow):
    woken = []
    dog = watch(flow)
    flow.attach(lambda: woken.append(True))
    flow.watch.start()
    dog.look(0.0)
    dog.look(10.0)
    assert [True] == woken

    flow.next_attempt()
    flow.check()


def test_a_byte_now_and_then_is_no_stall(flow):
    dog = watch(flow)
    flow.watch.start()
    for second in range(0, 100, 9):
        flow.moved(1)
        dog.look(float(second))

    flow.check()


def test_outside_a_body_silence_is_no_stall(flow):
    dog = watch(flow)
    dog.look(0.0)
    dog.look(1000.0)
    flow.watch.start()
    dog.look(1001.0)
    flow.watch.stop()
    dog.look(2000.0)

    flow.check()


def test_the_next_body_has_a_clock_of_its_own(flow):
    dog = watch(flow)
    flow.watch.start()
    dog.look(0.0)
    flow.watch.start()
    dog.look(9.0)
    dog.look(18.0)

    flow.check()


def test_a_cut_that_comes_too_late_does_not_hit_the_next_body(flow):
    flow.watch.start()
    old = flow.watch.body
    flow.watch.start()
    flow.cut_body(old, StalledError("late"))

    flow.check()


def test_a_body_far_behind_its_siblings_is_cut_after_five_seconds(flow):
    dog = watch(flow, fast_siblings())
    flow.watch.start()
    dog.look(0.0)
    run(dog, flow, 4.75, 50_000)
    flow.check()

    dog.look(5.0)

    with pytest.raises(SlowError, match=r"where others have 10.0 MiB/s"):
        flow.check()


def test_a_body_that_turns_slow_is_judged_by_its_last_seconds(flow):
    dog = watch(flow, fast_siblings())
    flow.watch.start()
    dog.look(0.0)
    run(dog, flow, 60, 10 * MIB)

    with pytest.raises(SlowError):
        run(dog, flow, 6, 50_000, start=60)


def test_where_a_peer_waits_for_its_own_bytes_only_silence_is_cut(flow):
    dog = Watchdog([flow], fast_siblings(), stall_timeout=10.0, cuts_slow=False, is_tail=lambda: True)
    flow.watch.start()
    dog.look(0.0)
    run(dog, flow, 30, 400)
    flow.check()
    for step in range(39):
        dog.look(30.0 + step / 4)
        flow.check()
    dog.look(40.0)
    with pytest.raises(StalledError, match="no byte for 10 s"):
        flow.check()


def test_a_tenth_of_the_median_is_not_slow(flow):
    dog = watch(flow, fast_siblings())
    flow.watch.start()
    dog.look(0.0)
    run(dog, flow, 30, MIB + 4)

    flow.check()


@pytest.mark.parametrize(
    "speeds", [Speeds(), fast_siblings(200_000)], ids=["too few samples", "a link that is slow for all"]
)
def test_nobody_is_judged(flow, speeds):
    dog = watch(flow, speeds)
    flow.watch.start()
    dog.look(0.0)
    run(dog, flow, 30, 400)

    flow.check()


def test_small_blobs_are_no_samples():
    speeds = Speeds()
    for _ in range(30):
        speeds.record(99_999, 0.001)
        speeds.record(10**6, 0.0)
    assert speeds.median() is None

    for _ in range(5):
        speeds.record(100_000, 1.0)
    assert 100_000 == speeds.median()


def test_the_median_is_that_of_the_last_thirty():
    speeds = Speeds()
    for rate in [10**6] * 100 + [10**7] * 30:
        speeds.record(rate, 1.0)

    assert 10**7 == speeds.median()


@pytest.mark.parametrize(("stall_timeout", "period"), [(10.0, 0.1), (0.2, 0.05)])
def test_looks_are_frequent_enough_for_a_short_timeout(flow, stall_timeout, period):
    assert period == watch(flow, stall_timeout=stall_timeout).period


def test_a_worker_that_waits_for_its_disk_waits_for_no_connection(flow):
    dog = watch(flow)
    flow.watch.start()
    dog.look(0.0)
    flow.watch.paused = True
    for second in range(1, 100):
        dog.look(float(second))
    flow.watch.paused = False
    dog.look(99.5)
    dog.look(108.9)
    flow.check()

    dog.look(109.0)
    with pytest.raises(StalledError):
        flow.check()


def test_a_unit_that_was_cut_often_enough_is_spared(flow):
    dog = watch(flow, fast_siblings())
    flow.watch.spared = True
    flow.watch.start()
    run(dog, flow, 60, 50_000)
    flow.check()


def test_slow_cuts_end_before_a_unit_is_given_up_for_them(flow):
    """A blob that cannot be continued begins again after each: for ever, it would never arrive."""
    retry = Retry(RetryOptions(patience=0.0, attempts=2))
    attempts = Attempts(retry, Concurrency())
    spared = []

    def attempt(unit, flow):
        spared.append(flow.watch.spared)
        if not flow.watch.spared:
            raise SlowError("50 KB/s, where others have 50 MB/s")

    attempts.run(attempt, None, flow)
    assert [False, False, False, True] == spared
    attempts.run(attempt, None, flow)
    assert [False, False, False, True] == spared[4:]


# -- the tail: somebody has nothing to do


def tail(flow, speeds, *, is_tail=True) -> Watchdog:
    flow.unit, flow.attempt = object(), 1
    return Watchdog([flow], speeds, stall_timeout=10.0, is_tail=lambda: is_tail)


def looks(dog: Watchdog, flow: WorkerFlow, until: float, *, start: float = 0.0) -> float | None:
    """Look every tenth of a second, and return when the flow was cut; ``None``: it was not."""
    for step in range(round(10 * (until - start)) + 1):
        now = round(start + step / 10, 1)
        dog.look(now)
        try:
            flow.check()
        except (StalledError, SlowError):
            return now
    return None


@pytest.mark.parametrize(("is_tail", "cut_at"), [(True, 0.3), (False, 5.0)])
def test_a_body_that_is_silent_at_the_tail_is_cut_within_a_second(flow, is_tail, cut_at):
    dog = tail(flow, fast_siblings(), is_tail=is_tail)
    flow.watch.start()
    assert cut_at == looks(dog, flow, 9.0)


def test_a_slow_body_at_the_tail_is_cut_soon(flow):
    dog = tail(flow, fast_siblings())
    flow.watch.start()
    moments = []
    for step in range(20):
        flow.moved(5_000)  # 50 KB/s
        dog.look(step / 10)
        try:
            flow.check()
        except SlowError:
            moments.append(step / 10)
            break
    assert [0.3] == moments


def test_one_that_becomes_faster_is_left(flow):
    dog = tail(flow, fast_siblings())
    flow.watch.start()
    for step in range(6):  # as TCP begins, from one window to the next
        flow.moved(14_000 * 2**step)
        dog.look(step / 10)
    flow.check()


def test_where_the_whole_machine_stood_still_nobody_is_cut(flow):
    dog = tail(flow, fast_siblings())
    flow.watch.start()
    for now in (0.0, 0.1, 0.2, 0.9):  # the watchdog did not come to look, either
        dog.look(now)
    flow.check()


def test_where_all_are_slow_nobody_is_cut(flow):
    dog = tail(flow, fast_siblings(100_000.0))
    flow.watch.start()
    for step in range(12):
        flow.moved(1_000)
        dog.look(step / 10)
    flow.check()


def test_nor_where_nobody_has_shown_that_it_can_be_quicker(flow):
    dog = tail(flow, Speeds())
    flow.watch.start()
    assert looks(dog, flow, 9.0) is None


def test_a_small_blob_whose_answer_is_late_is_asked_for_again(flow):
    speeds = Speeds()
    for _ in range(5):
        speeds.record(1000, 0.1)
    dog = tail(flow, speeds)
    flow.attach(lambda: None)  # it is on a connection, and nothing has come
    assert 0.4 == looks(dog, flow, 9.0)


def quick_small(seconds: float = 0.01) -> Speeds:
    speeds = Speeds()
    for _ in range(9):
        speeds.record(1000, seconds)
    return speeds


SMALL = Descriptor(f"sha256:{64 * 'a'}", 16 * 1024)


def trickle(dog: Watchdog, flow: WorkerFlow, until: float, rate: int = 50_000) -> float | None:
    """Let bytes trickle, with a look every tenth of a second, and return when the flow was cut."""
    for step in range(round(10 * until) + 1):
        try:
            flow.moved(rate // 10)
            dog.look(step / 10)
            flow.check()
        except (StalledError, SlowError):
            return step / 10
    return None


@pytest.mark.parametrize(("units", "usual", "cut_at"), [(1, 0.01, 0.3), (8, 0.01, 0.3), (8, 0.05, 1.3), (1, 0.3, 0.9)])
def test_small_blobs_that_trickle_at_the_tail_are_late_as_a_whole(flow, units, usual, cut_at):
    """A bundle of them may have as much time as all of its units would by themselves."""
    dog = tail(flow, quick_small(usual))
    flow.unit = SMALL
    flow.watch.start(units)
    assert cut_at == trickle(dog, flow, 9.0)


def test_what_is_small_and_slow_for_all_is_left(flow):
    dog = tail(flow, quick_small(4.0))
    flow.unit = SMALL
    flow.watch.start(8)
    assert trickle(dog, flow, 9.0) is None


def test_what_is_no_blob_too_small_for_a_rate_may_trickle(flow):
    dog = tail(flow, quick_small())
    flow.watch.start()
    assert trickle(dog, flow, 4.0) is None


def test_a_body_that_was_quick_and_falls_silent_at_the_tail_needs_no_others_to_compare_with(flow):
    dog = tail(flow, Speeds())
    flow.watch.start()
    flow.moved(1)
    for step in range(4):
        dog.look(step / 10)
        flow.moved(MIB)
    assert 1.0 == looks(dog, flow, 9.0, start=0.4)


def paused(flow, speeds, *, until: float) -> Watchdog:
    """Watch a body that brings a MiB every second, and is at the tail from the third one on."""
    times: list[float] = []
    flow.unit, flow.attempt = object(), 1
    dog = Watchdog([flow], speeds, stall_timeout=10.0, is_tail=lambda: times[-1] >= 2.5)
    flow.watch.start()
    for tenth in range(round(until * 10) + 1):
        times.append(tenth / 10)
        flow.moved(0 if tenth % 10 else MIB)
        dog.look(tenth / 10)
        flow.check()
    return dog


def test_where_bodies_pause_and_go_on_a_pause_is_no_silence(flow):
    """nginx's ``limit_rate`` sends what is due once a second: twice as long as that has to pass."""
    dog = paused(flow, Speeds(), until=4.0)
    dog.look(5.7)
    flow.check()
    for tenth in range(4):
        dog.look(5.8 + tenth / 10)
    with pytest.raises(StalledError, match="after a quick beginning"):
        flow.check()


def test_nor_is_such_a_body_slow_between_two_of_them(flow):
    paused(flow, fast_siblings(MIB), until=6.9)


def test_one_that_was_slow_and_falls_silent_has_its_time(flow):
    dog = tail(flow, Speeds())
    flow.watch.start()
    for step in range(4):
        dog.look(step / 10)
        flow.moved(10_000)
    assert looks(dog, flow, 9.0, start=0.4) is None


@pytest.mark.parametrize(("unit", "cut_at"), [(object(), 0.8), (Descriptor(f"sha256:{64 * 'a'}", 99 * MIB), 5.2)])
def test_what_may_have_to_begin_anew_is_not_hastened_once_more_than_a_chunk_would_come_twice(flow, unit, cut_at):
    dog = tail(flow, fast_siblings())
    flow.unit = unit
    flow.watch.start()
    for step in range(5):
        flow.moved(2 * MIB)
        dog.look(step / 10)
    assert cut_at == looks(dog, flow, 9.0, start=0.5)


def test_nor_is_it_cut_twice_where_both_together_would_cost_more(flow):
    dog, start = tail(flow, fast_siblings()), 0.0
    flow.unit = Descriptor(f"sha256:{64 * 'a'}", 99 * MIB)
    cuts = []
    for _ in range(2):
        flow.watch.start()
        flow.moved(5 * MIB)
        cuts.append(looks(dog, flow, start + 3.0, start=start))
        flow.next_attempt()
        flow.counter.set_position(0)
        start = 0.5
    assert [0.3, None] == cuts


def test_an_answer_is_not_late_where_the_machine_stood_still(flow):
    dog = tail(flow, quick_small())
    flow.attach(lambda: None)
    for now in (0.0, 0.5, 1.0, 1.5, 2.0):
        dog.look(now)
    flow.check()


def test_late_is_what_takes_three_times_as_long_as_usual(flow):
    speeds = Speeds()
    for _ in range(5):
        speeds.record(1000, 2.0)
    dog = tail(flow, speeds)
    flow.attach(lambda: None)
    assert 6.0 == looks(dog, flow, 9.0)


def test_a_worker_that_waits_for_no_connection_is_not_late(flow):
    speeds = Speeds()
    for _ in range(5):
        speeds.record(1000, 0.1)
    assert looks(tail(flow, speeds), flow, 9.0) is None


def test_a_unit_is_hastened_twice_and_then_has_its_time(flow):
    dog, now = tail(flow, fast_siblings()), 0.0
    for _ in range(2):
        flow.watch.start()
        cut = looks(dog, flow, now + 2, start=now)
        assert cut is not None
        now = round(cut + 0.1, 1)
        flow.next_attempt()
    flow.watch.start()
    assert round(now + 5, 1) == looks(dog, flow, now + 9, start=now)
    flow.next_attempt()
    flow.watch.start()
    flow.unit = object()
    assert pytest.approx(now + 5.8, abs=0.11) == looks(dog, flow, now + 9, start=round(now + 5.5, 1))
