"""How plans are made by a registry client, and run by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from transferkit.arguments import Blobs, Path, check, descriptors_of
from transferkit.content.graph import Graph
from transferkit.content.machine import local_platform
from transferkit.content.manifest import Index
from transferkit.errors import InvalidManifestError
from transferkit.names import Reference
from transferkit.registry.call import WORKERS_DOWN, WORKERS_UP, Arguments, Call
from transferkit.registry.fetching import Fetching
from transferkit.registry.plans import running
from transferkit.registry.plans.checks import source_of, target_of
from transferkit.registry.plans.manifests import ordered
from transferkit.registry.plans.places import here
from transferkit.registry.plans.value import TransferPlan
from transferkit.report import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Planning(Fetching):
    """The plans of a registry client: made for the requests of manifests alone, and run anywhere. Thread-safe."""

    def plan_pull(
        self, name: str, *, platform: str | None = None, credentials: str = "", **call: Unpack[Arguments]
    ) -> TransferPlan:
        """Return ``pull`` as a plan: into a cache, or, where that is said when it is run, into a folder.

        ``platform`` is, as for ``pull``, that of this machine by default. ``credentials`` names a callable
        (``package.module:callable``) that is called where the plan runs, and returns ``auth``, ``token`` or
        ``get_token`` as a mapping; without it the environment and Docker's files there are asked.

        Raises:
            InvalidManifestError: it has no layers, or is an index with nothing for the platform.
            InvalidPlanError: ``credentials`` names no callable.
            TransferKitError: as for ``resolve``.
        """
        check(platform=platform)
        reference, wanted = self._reference(name), platform or local_platform()
        self._check_online(f"plan {name}")
        with self._job(Call.of("plan_pull", call), reference) as job:
            site = job.site(reference)
            root = job.document(site, reference)
            with job.naming(reference):
                graph = job.graph(site, root, wanted)
                if not graph.layers:
                    raise InvalidManifestError("invalid manifest: no layers")
        return TransferPlan(
            kind="pull",
            source=_pinned(reference, site.repository.client.origin.scheme, graph),
            platform=wanted if isinstance(graph.root, Index) else "",
            credentials=credentials,
            blobs=ordered(graph.blobs),
            documents=tuple(document.raw for document in graph.documents),
        )

    def run_plan(
        self,
        plan: TransferPlan,
        *,
        to: Path | None = None,
        cache: Path | None = None,
        concurrency: int | None = None,
        **call: Unpack[Arguments],
    ) -> Report:
        """Run a plan with this client, as :meth:`TransferPlan.run` has it."""
        check(concurrency=concurrency)
        arguments = Call.of("run_plan", call)
        folder = None if to is None else here(to, "to")
        running.check_places(plan, folder, cache)
        store = self.cache if cache is None else self._cache(here(cache, "cache"))
        about = None if plan.kind == "download" else (target_of if plan.target else source_of)(plan)
        workers = concurrency or (WORKERS_UP if plan.target else WORKERS_DOWN)
        try:
            with self._job(arguments, about, workers) as job:
                return running.run(job, plan, folder, store, is_given=cache is not None)
        finally:
            if store is not self.cache:
                store.close()


def plan_download(blobs: Blobs, *, base_url: str, repository: str, credentials: str = "") -> TransferPlan:
    """Return ``download`` of these blobs as a plan; the folder is said where it runs (``to=``). No request is sent.

    Raises:
        InvalidPlanError: ``base_url`` or ``repository`` is none, or ``credentials`` names no callable.
        InvalidDigestError, InvalidDescriptorError, TypeError: as for ``download``.

    >>> from transferkit import Blob
    >>> blobs = [Blob("sha256:" + 64 * digit, 1000) for digit in "abc"]
    >>> plan = plan_download(blobs, base_url="https://registry.example.com", repository="library/model")
    >>> [len(piece.blobs) for piece in plan.split(pieces=2)]
    [2, 1]
    """
    return TransferPlan(
        kind="download",
        source=base_url,
        repository=repository,
        credentials=credentials,
        blobs=ordered(descriptors_of(blobs)),
    )


def _pinned(reference: Reference, scheme: str, graph: Graph) -> str:
    """Return a reference with the digest of what it stands for now, and with what its host speaks."""
    if not reference.has_scheme:
        reference = replace(reference, scheme=scheme, has_scheme=True)
    return str(replace(reference, digest=graph.root.digest))
