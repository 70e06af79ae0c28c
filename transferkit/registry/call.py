"""What every method of a registry takes besides its own arguments, and how a call begins."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from transferkit.arguments import Progress, check, shown
from transferkit.cancellation import Cancellation
from transferkit.content.digest import Digest
from transferkit.content.flow import Closing
from transferkit.errors import ConnectError, InvalidNameError
from transferkit.names import DEFAULT_MASK, Name, Reference
from transferkit.options import HostOptions, TransferOptions
from transferkit.protocol.hub_name import HubName
from transferkit.registry.job import Job
from transferkit.registry.sites import Sites
from transferkit.storage.cache import DiskCache
from transferkit.storage.layout import Tagged
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.operation import Operation
from transferkit.transfer.threads import WORKERS
from transferkit.transport.auth import Auth, GetToken
from transferkit.transport.hosts import Hosts

if TYPE_CHECKING:
    import requests

WORKERS_DOWN = 64
WORKERS_UP = 32
_FORM = "a name is written [host/][namespace/]model[:tag][@sha256:...]"


class Arguments(TypedDict, total=False):
    """Keywords of each call, as ``download`` has them."""

    progress: Progress
    trace: Trace
    cancel: Cancellation | None
    logger: logging.Logger | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The keywords of one call, with their defaults. TypeError: one of them is of the wrong type."""

    progress: Progress = None
    trace: Trace = NULL_TRACE
    cancel: Cancellation | None = None
    logger: logging.Logger | None = None

    def __post_init__(self) -> None:
        check(progress=self.progress, trace=self.trace, cancel=self.cancel, logger=self.logger)

    @classmethod
    def of(cls, method: str, keywords: Mapping[str, Any]) -> Call:
        """Return the call of a method with these keywords; TypeError: it takes no such keyword."""
        for name in keywords.keys() - Arguments.__annotations__.keys():
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
        return cls(**keywords)


class Calls(Closing):
    """What the calls of one registry client share: its cache, its hosts and its options. Thread-safe."""

    def __init__(
        self,
        *,
        cache: DiskCache | str | os.PathLike[str] | None = None,
        mask: Name | str = DEFAULT_MASK,
        session: requests.Session | None = None,
        auth: Auth | None = None,
        token: str | None = None,
        get_token: GetToken | None = None,
        hosts: Mapping[str, HostOptions] | None = None,
        options: TransferOptions | None = None,
        offline: bool | None = None,
        executor: Callable[[int], Executor] = WORKERS,
    ) -> None:
        check(session=session, auth=auth, token=token, get_token=get_token, options=options, hosts=hosts)
        self.options = options or TransferOptions()
        self.cache = cache if isinstance(cache, DiskCache) else self._cache(cache)
        self.mask = mask if isinstance(mask, Name) else Name.parse(mask)
        self.offline = os.environ.get("TRANSFERKIT_OFFLINE", "") not in ("", "0") if offline is None else offline
        self._executor = executor
        self._hosts = Hosts(
            session,
            connections=(self.options.concurrency or WORKERS_DOWN) + 1,
            options=self.options.transport,
            stall_timeout=self.options.stall_timeout,
            hosts=hosts,
            auth=auth,
            token=token,
            get_token=get_token,
            offline=self.offline,
        )
        self._sites = Sites(self._hosts, self.options)

    def _cache(self, path: str | os.PathLike[str] | None) -> DiskCache:
        options = self.options
        # Whatever may come in chunks must survive an interruption: this is never above the threshold for chunks.
        threshold = min(options.resume_threshold, options.chunk_threshold + 1)
        return DiskCache(path, resume_threshold=threshold, rehash=options.rehash_existing)

    def close(self) -> None:
        """Close the connections, and write what is known of the cache."""
        self._hosts.close()
        self.cache.close()

    @contextmanager
    def _job(self, call: Call, about: Reference | HubName | None = None, workers: int = 1) -> Iterator[Job]:
        """Begin the job of a call that is ``about`` something; most of them need one worker."""
        label, host = "copy", "the registry"
        if isinstance(about, HubName):
            label, host = about.repository, "the hub"
        elif about is not None:
            label, host = about.name.model, about.name.host
        with (
            self._hosts.cleaned(),  # a path or a title may repeat what a peer was sent, too
            self.cache.used(),
            ExitStack() as held,
            shown(call.progress, label, (), call.trace) as (progress, trace),
            Operation(
                host=host,
                concurrency=min(self.options.concurrency or workers, workers),
                options=self.options,
                progress=progress,
                trace=trace,
                cancellation=call.cancel,
                executor=self._executor,
                logger=call.logger,
                proven=self._hosts.proven.get(host, 0),
            ) as operation,
        ):
            try:
                yield Job(operation, self._sites, self.options, held)
            finally:
                self._hosts.proven[host] = operation.proven

    def _reference(self, name: str) -> Reference:
        try:
            return Reference.parse(name, self.mask)
        except InvalidNameError as error:  # in the words of the original, which do not say how one is written
            raise InvalidNameError(f"{error}; {_FORM}") from error

    def _blob(self, name: str) -> tuple[Reference, Digest]:
        """Return the reference and the digest of a blob. InvalidNameError: it has none."""
        reference = self._reference(name)
        if reference.digest is None:
            raise InvalidNameError(f"{name} names no blob; a blob is named as host/repository@sha256:...")
        return reference, reference.digest

    def _end(self, what: Any) -> Reference | Tagged:
        return what if isinstance(what, Tagged) else self._reference(what)

    def _target(self, name: str) -> Reference:
        """Return what something is to be pushed to. InvalidNameError: that is a digest."""
        target = self._reference(name)
        self._check_online(f"push {target}")
        if target.digest is not None:
            raise InvalidNameError(f"{name} is pushed under a tag; its digest follows from what is pushed")
        return target

    def _check_online(self, what: str) -> None:
        if self.offline:
            raise ConnectError(
                f"cannot {what}: this is offline (TRANSFERKIT_OFFLINE, or offline=True); turn that off first",
                retryable=False,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {self.cache!r}>"
