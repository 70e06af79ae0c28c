"""What ``transferkit serve`` serves: the parts of this package as one WSGI application, behind its guards.

Which path belongs to which part, and in which order a request is judged: first whether it is addressed to this server
and from no foreign page, then who sends it, then whether anything may be changed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from transferkit.errors import TransferKitError
from transferkit.registry.registry import Registry
from transferkit.server.access import Access
from transferkit.server.guard import Guard
from transferkit.server.local import LocalAPI
from transferkit.server.mirror import Mirror
from transferkit.server.oci import OCIRegistry
from transferkit.server.passwords import Passwords
from transferkit.server.refusals import is_registry, refuse
from transferkit.server.site import Site
from transferkit.server.upstream import Upstreams
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("transferkit.server")


class Application:
    """The local API over ``registry``, with its page, and an OCI registry over the directory ``store``, where given;
    what it takes survives a power cut if it is ``durable``.

    ``mirror`` is a cache whose models are served at ``/v2/`` in the place of a store; ``upstreams`` are the registries
    from which it gets what it does not have.

    ``served`` is the host that it will listen on, ``hosts`` are further names by which clients may call it.
    ``passwords`` asks for Basic authorization; ``read_only`` refuses what changes something. A context manager that
    ends the running pulls; what they have brought stays in the cache, and the next pull goes on from there.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        store: str | os.PathLike[str] | None = None,
        durable: bool = True,
        mirror: DiskCache | None = None,
        upstreams: Upstreams | None = None,
        served: str = "127.0.0.1",
        hosts: Iterable[str] = (),
        passwords: Passwords | None = None,
        read_only: bool = False,
    ) -> None:
        if store is not None and mirror is not None:
            raise TypeError("a registry at /v2/ is one over a store, or a mirror of a cache")
        self._upstreams = upstreams
        self._oci: WSGIApplication | None = None if mirror is None else Mirror(mirror, upstreams)
        if store is not None:
            self._oci = OCIRegistry(store, durable=durable)
        self._api: LocalAPI | None = None
        self._site: Site | None = None
        if registry is not None:
            pulls = None if upstreams is None else upstreams.pulls
            self._api = LocalAPI(registry, prune=lambda: _prune(registry), pulls=pulls)
            self._site = Site(self._api, registry.cache, read_only=read_only)
        inside = Access(self._dispatch, passwords=passwords, read_only=read_only)
        self._guarded = Guard(inside, served=served, hosts=hosts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._guarded(environ, start_response)

    def _dispatch(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._oci is not None and is_registry(environ.get("PATH_INFO", "")):
            return self._oci(environ, start_response)
        if self._site is not None:
            return self._site(environ, start_response)
        return refuse(environ, start_response, 404, "not found")

    def close(self) -> None:
        """Cancel the running pulls and checks, and wait until what has come is in order on the disk."""
        if self._api is not None:
            self._api.close()
        if self._upstreams is not None:
            self._upstreams.close()
        if self._site is not None:
            self._site.checking.close()

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prune(registry: Registry) -> None:
    """Remove what no model needs any more. The deleted one is gone, whatever becomes of this."""
    try:
        registry.cache.gc()
    except TransferKitError as error:
        logger.warning("after a delete, blobs were not removed: %s", error)
