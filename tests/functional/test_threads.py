"""What threads share, under as much of them as an interpreter gives: exact figures, and no error of the library's own.

On an interpreter without a lock of its own (``python3.14t``) threads run at the same time, and these tests find what is
not one step there. On the others they are made to take turns as often as they can. What has to happen in just one order
is forced in ``unit/test_interleavings.py``; ``docs/threads.rst`` lists what is shared.
"""

from __future__ import annotations

import random
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, Full

import pytest

import transferkit as tk
from benchmarks import threads
from tests.conftest import FULL
from transferkit.errors import ReadError
from transferkit.protocol.origin import Origin
from transferkit.testing.registry import RunningRegistry
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.watchdog import LATER, Speeds
from transferkit.transport.connections import WakeableConnection, WakeablePool
from transferkit.transport.hosts import Hosts
from transferkit.transport.idle import Idle

ROUNDS = 100 if FULL else 2
STEPS = 100_000 if FULL else 2_000
WRITERS = 3
LIMIT = 60.0  # seconds until a thread that does not end fails the test


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with threads.switching():
        yield


def hammer(change: Callable[[int, int], object], look: Callable[[], object]) -> None:
    """Have some threads change something in many steps, and look at it from this one meanwhile."""
    errors: list[Exception] = []

    def work(writer: int) -> None:
        try:
            for step in range(STEPS):
                change(writer, step)
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
    for thread in running:
        thread.start()
    try:
        while any(thread.is_alive() for thread in running):
            look()
    finally:
        for thread in running:
            thread.join(LIMIT)
    assert [] == errors
    look()


def test_calls_at_once_have_exact_figures(tmp_path: Path) -> None:
    assert threads.run(tmp_path, ROUNDS, random.Random().randrange(10**6)) > 0


def test_clients_that_share_a_cache_close_it_for_nobody_else(registry: RunningRegistry, tmp_path: Path) -> None:
    names = [f"{registry.url}/team/model{number}:v1" for number in range(4)]
    for number, name in enumerate(names):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        for file in range(20):
            (folder / f"{file}.bin").write_bytes(random.Random(100 * number + file).randbytes(2000))
        tk.push(name, folder=folder)

    def pull(cache: tk.DiskCache, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(4):
            with tk.Registry(cache=cache) as client:
                client.pull(rng.choice(names))

    for number in range(ROUNDS):
        cache = tk.DiskCache(tmp_path / f"cache{number}")
        threads.at_once([partial(pull, cache, seed) for seed in range(4)])
        assert [] == cache.verify()


def test_medians_of_units_that_end_all_the_time() -> None:
    speeds = Speeds()
    hammer(lambda *_: speeds.record(1_000_000, 1.0), lambda: (speeds.median(), speeds.late()))
    assert (1_000_000, LATER) == (speeds.median(), speeds.late())


def test_an_error_is_cleaned_while_others_learn_secrets() -> None:
    with Hosts(get_token=lambda challenge: f"token-of-{challenge.scopes[0]}") as hosts:
        flow, first = WorkerFlow(), hosts.at(Origin.of("http://registry.example"))

        def learn(writer: int, step: int) -> None:
            scope = f"repository:{writer}/{step % 50}:pull"
            first.authorizer.after(f'Bearer realm="/token",scope="{scope}-{step}"', scope, None, flow)
            first.signed.append(f"http://storage.example/{writer}/{step}?X-Signature=signature-{step}")
            first.authorizer._tokens.pop(scope, None)
            if not step % 20:
                hosts.at(Origin.of(f"http://{writer}.{step}.example"))
                hosts.stranger(Origin.of(f"http://{writer}.{step}.example"), first.authorizer.registry)

        def clean() -> None:
            error = ReadError("nothing of anybody's")
            hosts.clean(error)
            assert "nothing of anybody's" == str(error)
            assert first.authorizer.blame("Bearer other")

        hammer(learn, clean)


def test_idle_connections_are_taken_by_one_each_and_none_is_lost() -> None:
    pool, shared = WakeablePool("registry.example", maxsize=8), Idle(4)
    assert pool.pool is not None
    pool.pool.shared = shared
    connections = [WakeableConnection("registry.example") for _ in range(WRITERS)]
    used = [0] * WRITERS

    def use(writer: int, step: int) -> None:
        with suppress(Empty):
            taken = pool.pool.get()  # type: ignore[union-attr]
            number = connections.index(taken)
            used[number] += 1
            assert 1 == used[number], "two threads have one connection"
            used[number] -= 1
            pool.pool.put(taken)  # type: ignore[union-attr]

    for connection in connections:
        pool.pool.put(connection)
    hammer(use, lambda: pool.is_private)
    assert set(connections) == set(pool.pool) == set(shared)
    more = [WakeableConnection("registry.example") for _ in range(4)]
    for connection in more:
        with suppress(Full):
            pool.pool.put(connection)
    assert 4 == len(pool.pool) == len(shared)
    pool.close()


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a lock of its own")
def test_nothing_that_a_transfer_imports_switches_the_lock_on(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from benchmarks import threads; threads.run(pathlib.Path(sys.argv[1]), 1, 1);"
        "import transferkit.cli.program; print(threads.has_lock())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "False\n" == done.stdout
