"""What a cluster is: its workers, their machines, and whether they have this library."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from transferkit._version import __version__
from transferkit.errors import TransferKitError

NET = "net"
"""The resource of a worker that caps the transfers on it: ``dask worker --resources net=1``."""
_ASKING = 15.0  # seconds for the versions of all workers; who is silent so long says it with its first piece
_LOOK = 0.2

Workers = dict[str, dict[str, Any]]
"""What a scheduler tells of its workers, by their addresses."""


def workers_of(client: Any, *, wait: float = 0.0) -> Workers:
    """Return the workers of a cluster, those that run this version of the library.

    Raises:
        TypeError: it is no client of Dask's, or an asynchronous one.
        TransferKitError: there are none, after ``wait`` seconds; or one has another version.
    """
    from distributed import Client

    if not isinstance(client, Client):
        raise TypeError(f"client is a distributed.Client, not {type(client).__name__}")
    if client.asynchronous:
        raise TypeError("client is an asynchronous one, and this waits: make it without asynchronous=True")
    deadline = time.monotonic() + wait
    while not (found := listed(client)):
        if time.monotonic() >= deadline:
            raise TransferKitError(
                f"the cluster at {address_of(client)} has no workers; start some, or say how long to wait for the "
                "first one (wait=)"
            )
        time.sleep(_LOOK)
    _check_versions(client, found)
    return found


def listed(client: Any) -> Workers:
    """Return the workers that there are now."""
    try:
        info = client.scheduler_info(n_workers=-1)
    except TypeError:  # before 2025.4, all of them are told of
        info = client.scheduler_info()
    return dict(info["workers"])


def address_of(client: Any) -> str:
    """Return the address of a client's scheduler."""
    return str(getattr(client.scheduler, "address", "") or "an unknown address")


def slots_of(workers: Workers, resources: Mapping[str, float]) -> int:
    """Return how many pieces workers run at the same time. TransferKitError: none can, for want of a resource."""
    found = 0
    for worker in workers.values():
        has = worker.get("resources") or {}
        most = [int(has.get(name, 0) // count) for name, count in resources.items() if count > 0]
        found += min([int(worker["nthreads"]), *most])
    if not found:
        wanted = ", ".join(f"{name}={count:g}" for name, count in resources.items())
        raise TransferKitError(f"no worker of the cluster has {wanted or 'a thread'}: see dask worker --resources")
    return found


def resources_for(workers: Workers, given: Mapping[str, float] | None) -> dict[str, float]:
    """Return what a piece takes: what was said, else one ``net`` where workers have that."""
    if given is not None:
        return dict(given)
    return {NET: 1.0} if any(NET in (worker.get("resources") or {}) for worker in workers.values()) else {}


def hosts_of(workers: Workers) -> dict[str, list[str]]:
    """Return the addresses of the workers of each machine, in the order of their names."""
    found: dict[str, list[str]] = {}
    for address, worker in sorted(workers.items()):
        found.setdefault(worker["host"], []).append(address)
    return found


def _check_versions(client: Any, workers: Workers) -> None:
    wrong = []
    for address, version in _versions(client, workers).items():
        if version != __version__:
            said = f"has {version}" if isinstance(version, str) else f"has none that works ({version!r})"
            wrong.append(f"{address} {said}")
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise TransferKitError(
            f"this is transferkit {__version__}, and of the workers {'; '.join(wrong[:5])}{more}: install the same "
            "version everywhere"
        )


def _versions(client: Any, workers: Workers) -> dict[str, Any]:
    """Return what each worker says of its version; who does not answer soon, as one that is paused, is left out."""

    def version() -> str:  # sent as it stands: a worker without the library can run it
        import transferkit

        return str(transferkit.__version__)

    found: dict[str, Any] = {}

    def ask(address: str) -> None:
        try:
            found.update(client.run(version, workers=[address], on_error="return"))
        except Exception as error:  # noqa: BLE001 - it has gone, or cannot read what it was sent
            if address in listed(client):
                found[address] = error

    # One thread asks all of them; where one is silent, each is asked on its own.
    def ask_all() -> None:
        try:
            found.update(client.run(version, workers=list(workers), on_error="return"))
        except Exception:  # noqa: BLE001 - one of them has gone
            for address in workers:
                ask(address)

    thread = threading.Thread(target=ask_all, name="dask-versions", daemon=True)
    thread.start()
    thread.join(_ASKING)
    return dict(found)
