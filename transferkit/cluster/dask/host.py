"""One machine of a tree: it pulls a model from those before it, and serves it to those behind it while it arrives."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transferkit._version import __version__
from transferkit.cluster.dask.lines import DaskEnd, DaskLine
from transferkit.cluster.failures import portable
from transferkit.cluster.lines import Teller
from transferkit.cluster.piece import Done, check_version
from transferkit.content.manifest import Manifest, parse
from transferkit.errors import TransferKitError
from transferkit.names import Reference
from transferkit.options import HostOptions, TransferOptions
from transferkit.registry.plans import TransferPlan
from transferkit.registry.plans.places import given_by, here
from transferkit.registry.registry import Registry
from transferkit.report import Report
from transferkit.report.record import Record
from transferkit.storage.disk_errors import storage_error
from transferkit.trace import Status

USER = "transferkit"  # of the registries of one tree, whose password nobody else knows
_LOOK = 0.25  # seconds between two looks at a pull
_PATIENCE = 60.0  # seconds without a byte from a machine before it: that waits for its own
_THREADS = 256  # requests at the same time
_RESUMED = 1024 * 1024  # bytes: what is smaller begins anew where it breaks off


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTask:
    """What one machine does. ``mirrors`` are asked before the registry, in their order; ``serves`` says whether there
    are machines behind it."""

    number: int
    plan: TransferPlan
    line: DaskLine
    to: str | None
    cache: str | None
    mirrors: tuple[str, ...]
    serves: bool
    password: str = field(repr=False)
    concurrency: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: str = __version__


def run_host(task: HostTask) -> Done:
    """Bring the model to this machine; return when the machines behind it have it as well."""
    began = time.monotonic()
    with task.line.opened(task.number) as end:
        assert isinstance(end, DaskEnd)
        try:
            check_version(task.version, end.worker)
            with _client(task) as registry, contextlib.ExitStack() as stack:
                stack.enter_context(_alone(registry.cache.root, task, end.worker))
                bring = _pull_and_serve if task.serves else _finish
                report = bring(task, registry, end, stack)
                end.say("received", end.worker, report, time.monotonic() - began)
                _wait(task, end)
        except TransferKitError as error:
            return Done(number=task.number, worker=end.worker, seconds=time.monotonic() - began, error=portable(error))
        return Done(number=task.number, worker=end.worker, seconds=time.monotonic() - began, report=report)


@contextlib.contextmanager
def _client(task: HostTask) -> Iterator[Registry]:
    """Open a client that asks the machines before this one first."""
    from transferkit.storage.cache import DiskCache

    given = {**task.settings, **(given_by(task.plan.credentials) if task.plan.credentials else {})}
    hosts = dict(given.pop("hosts", None) or {})
    origin = Reference.parse(task.plan.source).name.host
    hosts[origin] = replace(hosts.get(origin) or HostOptions(), mirrors=task.mirrors)
    secret = base64.b64encode(f"{USER}:{task.password}".encode()).decode()
    for mirror in task.mirrors:
        hosts[mirror.removeprefix("http://")] = HostOptions(headers={"Authorization": f"Basic {secret}"})
    options = given.pop("options", None) or TransferOptions()
    if task.mirrors:  # which wait for their own bytes
        options = replace(options, stall_timeout=max(options.stall_timeout, _PATIENCE), cut_slow=False)
    if task.concurrency is not None:
        options = replace(options, concurrency=task.concurrency)
    path = None if task.cache is None else here(task.cache, "cache")
    threshold = min(options.resume_threshold, options.chunk_threshold + 1, _RESUMED)
    cache = DiskCache(path, resume_threshold=threshold, rehash=options.rehash_existing)
    with Registry(**{**given, "hosts": hosts, "options": options, "cache": cache}) as registry:
        yield registry


@contextlib.contextmanager
def _alone(folder: str, task: HostTask, worker: str) -> Iterator[None]:
    """Hold a cache as that of this machine, by a mark in it: two machines of a tree would wait for each other's locks.

    TransferKitError: another machine has it. StorageError: it cannot be written to.
    """
    prefix = f".{task.line.topic}-"
    mark = f"{prefix}{task.number}"
    path = os.path.join(folder, mark)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "w"):
            names = os.listdir(folder)
    except OSError as error:
        raise storage_error(error, "marking", path) from error
    try:
        if any(name.startswith(prefix) and name != mark for name in names):
            raise TransferKitError(
                f"{worker} has its cache in common with another machine ({folder}): each needs one of its own; "
                "spread() fills one that all of them see"
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _finish(task: HostTask, registry: Registry, end: DaskEnd, _: contextlib.ExitStack) -> Report:
    """Do what is not done yet: of a machine that serves, to give names; of another one, all of it."""
    cache = None if task.to is None else registry.cache.root  # else files would come straight
    trace = Teller(end, ())
    report = task.plan.run(registry, to=task.to, cache=cache, trace=trace, cancel=end.cancellation)
    return replace(report, record=Record(), paths={})


def _pull_and_serve(task: HostTask, registry: Registry, end: DaskEnd, stack: contextlib.ExitStack) -> Report:
    """Pull the model by way of the registry that this machine is for the others, which serves what has come."""
    from transferkit.server import Application, serving
    from transferkit.server.passwords import Passwords
    from transferkit.server.upstream import Upstreams

    reference = Reference.parse(task.plan.source)
    name = reference.name
    upstreams = Upstreams(registry, [f"{reference.scheme}://{name.host}"])
    passwords = Passwords.plain({USER: task.password})
    application = Application(
        mirror=registry.cache, upstreams=upstreams, served=end.host, passwords=passwords, read_only=True
    )
    stack.enter_context(application)
    url = stack.enter_context(serving(application, host=end.host, threads=_THREADS))
    upstream = upstreams.find("")
    assert upstream is not None
    documents = [document for document in map(parse, task.plan.documents) if isinstance(document, Manifest)]
    there = registry.cache.known(task.plan.blobs)
    for document in documents:
        upstreams.give(upstream, name.repository, document.digest, document)
    end.say("serving", url)
    with end.cancellation.watch(application.close):
        for document in documents:
            if not document.blobs:
                continue
            _, pull = upstreams.fetch(upstream, name.repository, document.blobs[0].digest, lambda: False)
            while not pull.ended(_LOOK):
                end.tell(Status(completed=pull.in_place, total=task.plan.size), ())
            if end.cancellation.cancelled:
                raise end.cancellation.error()
            if pull.error is not None:
                raise pull.error
    moved = [blob for blob in task.plan.blobs if blob.digest not in there]
    report = _finish(task, registry, end, stack)
    return replace(
        report, bytes=sum(blob.size for blob in moved), skipped=len(task.plan.blobs) - len(moved), paths=report.paths
    )


def _wait(task: HostTask, end: DaskEnd) -> None:
    """Wait until all machines have the model, where this one serves it: the caller lets go of its task then."""
    let_go = threading.Event()
    with end.cancellation.watch(let_go.set):
        if task.serves:
            let_go.wait()
