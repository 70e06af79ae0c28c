"""The pool of a cluster: its scheduler decides who runs a piece, and runs again what was lost with a worker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from transferkit.cluster.dask.cluster import address_of, resources_for, slots_of, workers_of
from transferkit.cluster.dask.lines import DaskLine
from transferkit.cluster.lines import Message
from transferkit.cluster.piece import Task, run_task
from transferkit.errors import TransferKitError


class DaskPool:
    """Runs pieces, and other calls, on the workers of a client. ``pool.workers`` is how many run at the same time."""

    is_local = False

    def __init__(
        self,
        client: Any,
        put: Callable[[Message], object],
        *,
        resources: Mapping[str, float] | None = None,
        wait: float = 0.0,
        only: Collection[str] | None = None,
    ) -> None:
        self.cluster = workers_of(client, wait=wait)
        self.client = client
        self.resources = resources_for(self.cluster, resources)
        self.workers = slots_of(self.cluster, self.resources)
        self._only = only
        self._put = put
        self._lock = threading.Lock()
        self._futures: dict[Any, int] = {}
        self._is_over = False
        self._topic = ""

    def open(self, name: str) -> DaskLine:
        """Return the line of a run: ``name`` is the same for the same one."""
        self._topic = f"transferkit-{name}"
        self.client.subscribe_topic(self._topic, self._heard)
        return DaskLine(self._topic, self.workers)

    def _heard(self, event: tuple[float, bytes]) -> None:
        with contextlib.suppress(Exception):  # whoever else writes there
            self._put(pickle.loads(event[1]))  # noqa: S301 - all that Dask sends is pickled, and may run anything

    def submit(self, task: Task, avoid: str = "") -> None:
        others = [each for each in self._allowed() if each != avoid] if avoid else []
        where: dict[str, Any] = {"workers": self._only} if self._only else {}
        if others:
            where = {"workers": others, "allow_other_workers": self._only is None}
        self.call(run_task, task, task.number, key=key_of(*task.key), **where)

    def _allowed(self) -> list[str]:
        return list(self._only) if self._only else list(self.cluster)

    def call(self, function: Callable[[Any], Any], argument: Any, number: int, *, key: str, **more: Any) -> Any:
        """Have a function called on a worker; what becomes of it is told as that of a piece.

        It is sent as bytes: the scheduler would make a plan out of them, which takes time and needs this library there.
        """

        def run(packed: bytes) -> Any:  # sent as it stands, as it has no name that could be imported
            import pickle

            function, argument = pickle.loads(packed)  # noqa: S301 - all that Dask sends is pickled
            return function(argument)

        keywords = {"resources": self.resources or None, "pure": False, **more}
        future = self.client.submit(run, pickle.dumps((function, argument)), key=key, **keywords)
        with self._lock:
            self._futures[future] = number
        future.add_done_callback(lambda future: self._ended(number, future))
        return future

    def _ended(self, number: int, future: Any) -> None:
        with self._lock:
            self._futures.pop(future, None)
            is_over = self._is_over
        if future.cancelled() and not is_over and self.client.status != "running":
            return  # the scheduler has gone, and check() says so
        self._put(("done", number, settled(future)))

    def renew(self) -> None:
        raise TransferKitError("a cluster has no executor that could break")

    def check(self) -> None:
        if self.client.status != "running":
            raise TransferKitError(
                f"the scheduler at {address_of(self.client)} has gone; what has come is kept, and the same call goes "
                "on from there"
            )

    def cancel(self) -> None:
        with self._lock:
            self._is_over = True
            futures = list(self._futures)
        if futures and self.client.status == "running":
            with contextlib.suppress(Exception):  # the scheduler goes in this moment
                self.client.cancel(futures)

    def close(self) -> None:
        if self._topic and self.client.status == "running":
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(self._topic)


def key_of(*parts: str) -> str:
    """Return the name of a task: the same for the same work, so that nobody does it twice at the same time."""
    return f"transferkit-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def settled(future: Any) -> Future[Any]:
    """Return a future of Dask's that is done as one of ``concurrent.futures``."""
    found: Future[Any] = Future()
    if future.cancelled():
        found.cancel()
        found.set_running_or_notify_cancel()
        return found
    try:
        found.set_result(future.result())
    except BaseException as error:  # noqa: BLE001 - whatever it is, who waits hears of it
        found.set_exception(_said(error))
    return found


def _said(error: BaseException) -> BaseException:
    """Return an error of Dask's as one of ours, that says which worker it was."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        last = getattr(error.last_worker, "address", error.last_worker)
        return TransferKitError(f"{error.allowed_failures + 1} workers died with it, {last} as the last one")
    if type(error).__module__.partition(".")[0] == "distributed":
        return TransferKitError(f"Dask says: {error}")
    return error


def pool_of(executor: Any, put: Callable[[Message], object]) -> DaskPool:
    """Return the pool of ``Client.get_executor()``, with the resources and workers that it was made with."""
    given = getattr(executor, "_kwargs", {})  # it has no public name for them
    workers = given.get("workers")
    only = [workers] if isinstance(workers, str) else workers
    return DaskPool(executor._client, put, resources=given.get("resources"), only=only)
