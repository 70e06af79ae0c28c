"""How plans are made by a registry client, and run by one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, overload

from transferkit.arguments import Blobs, Path, check, check_sources, descriptors_of, options_of
from transferkit.content.graph import ALL
from transferkit.content.machine import local_platform
from transferkit.content.manifest import Index
from transferkit.errors import InvalidManifestError
from transferkit.grammar import check_repository
from transferkit.names import Reference
from transferkit.protocol.routes import check_base_url
from transferkit.registry import local
from transferkit.registry.call import WORKERS_DOWN, WORKERS_UP, Arguments, Call
from transferkit.registry.copying import survey
from transferkit.registry.ends import RegistryEnd
from transferkit.registry.fetching import Fetching
from transferkit.registry.folder_push import PushArguments, split
from transferkit.registry.plans import running
from transferkit.registry.plans.checks import source_of, target_of
from transferkit.registry.plans.folders import blobs_of_files
from transferkit.registry.plans.manifests import ordered
from transferkit.registry.plans.places import here
from transferkit.registry.plans.value import TransferPlan
from transferkit.registry.sites import Site
from transferkit.report import Report
from transferkit.report.plan import PushPlan
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Planning(Fetching):
    """The plans of a registry client: made for the requests of manifests alone, and run anywhere. Thread-safe."""

    def plan_pull(
        self,
        name: str,
        *,
        platform: str | None = None,
        only: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        credentials: str = "",
        **call: Unpack[Arguments],
    ) -> TransferPlan:
        """Return ``pull`` as a plan: into a cache, or, where that is said when it is run, into a folder.

        ``platform`` is, as for ``pull``, that of this machine by default. ``only`` and ``exclude`` choose the files
        of a folder, by patterns; such a plan is run with ``to=`` alone. ``credentials`` names a callable
        (``package.module:callable``) that is called where the plan runs, and returns ``auth``, ``token`` or
        ``get_token`` as a mapping; without it the environment and Docker's files there are asked.

        Raises:
            InvalidManifestError: it has no layers, or no file that is wanted, or is an index with nothing for the
                platform.
            InvalidPlanError: ``credentials`` names no callable.
            TransferKitError: as for ``resolve``.
        """
        check(platform=platform, only=only, exclude=exclude)
        reference, wanted = self._reference(name), platform or local_platform()
        self._check_online(f"plan {name}")
        only, exclude = _patterns(only), _patterns(exclude)
        with self._job(Call.of("plan_pull", call), reference) as job:
            site = job.site(reference)
            root = job.document(site, reference)
            with job.naming(reference):
                graph = job.graph(site, root, wanted)
                if not graph.layers:
                    raise InvalidManifestError("invalid manifest: no layers")
            plan = TransferPlan(
                kind="pull",
                source=str(replace(_with_scheme(reference, site), digest=graph.root.digest)),
                platform=wanted if isinstance(graph.root, Index) else "",
                credentials=credentials,
                blobs=ordered(graph.blobs),
                documents=tuple(document.raw for document in graph.documents),
                only=only,
                exclude=exclude,
            )
            if only or exclude:
                plan = replace(plan, blobs=ordered(blobs_of_files(job, plan, graph, reference, site.source)))
        return plan

    def plan_copy(
        self,
        source: str,
        target: str,
        *,
        platform: str = ALL,
        referrers: bool = False,
        credentials: str = "",
        **call: Unpack[Arguments],
    ) -> TransferPlan:
        """Return ``copy`` from one registry to another as a plan; both of them are reached from where it runs.

        Raises:
            InvalidPlanError: ``credentials`` names no callable.
            TransferKitError: as for ``resolve``.
        """
        check(platform=platform)
        origin, destination = self._reference(source), self._reference(target)
        self._check_online(f"plan the copy of {source}")
        with self._job(Call.of("plan_copy", call), origin) as job:
            end = RegistryEnd(job, origin, job.site(origin))
            graph, _ = survey(end, platform, referrers=referrers)
            goal = _with_scheme(destination, job.site(destination))
            start = _with_scheme(origin, end.site)
        return TransferPlan(
            kind="copy",
            source=str(replace(start, digest=graph.root.digest)),
            target=str(goal),
            credentials=credentials,
            blobs=ordered(graph.blobs),
            documents=tuple(document.raw for document in graph.documents),
        )

    @overload
    def plan_push(
        self,
        name: str,
        *,
        folder: str | os.PathLike[str],
        source: None = None,
        annotations: Mapping[str, str] | None = None,
        credentials: str = "",
        **keywords: Unpack[PushArguments],
    ) -> PushPlan: ...
    @overload
    def plan_push(
        self,
        name: str,
        *,
        source: str,
        folder: None = None,
        annotations: None = None,
        credentials: str = "",
        **keywords: Unpack[PushArguments],
    ) -> TransferPlan: ...
    def plan_push(
        self,
        name: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        source: str | None = None,
        annotations: Mapping[str, str] | None = None,
        credentials: str = "",
        **keywords: Unpack[PushArguments],
    ) -> PushPlan | TransferPlan:
        """Tell what ``push`` of a ``folder`` would send; or return the push of a model of the cache as a plan.

        Of a folder it is told for a question a blob; ``sign`` is not called. The files are hashed, and remembered, so
        that the push does not hash them again.

        A ``source`` is the name of a model in the cache. Where the plan runs, a cache has to have its blobs: one on a
        disk that is shared, or a copy of it.

        Raises:
            TypeError: neither or both of ``folder`` and ``source`` are given, or keywords for the other one.
            InvalidPlanError: ``credentials`` names no callable.
            TransferKitError: as for ``push``.
        """
        if folder is not None and source is None and not credentials:
            return super().plan_push(name, folder=folder, annotations=annotations, **keywords)
        check(source=source)
        target, (own, call) = self._target(name), split("plan_push", keywords)
        if source is None or folder is not None or annotations is not None or own:
            raise TypeError("a push is planned of a folder, or of a model of the cache (source=), which goes as it is")
        origin = self._reference(source)
        graph = local.graph_of(self.cache, local.resolve(self.cache, origin), ALL)
        check_sources(self.cache, graph.blobs)
        with self._job(call, target) as job:
            goal = _with_scheme(target, job.site(target))
        return TransferPlan(
            kind="push",
            source=str(replace(origin, digest=graph.root.digest)),
            target=str(goal),
            credentials=credentials,
            blobs=ordered(graph.blobs),
            documents=tuple(document.raw for document in graph.documents),
        )

    def run_plan(
        self,
        plan: TransferPlan,
        *,
        to: Path | None = None,
        cache: DiskCache | Path | None = None,
        concurrency: int | None = None,
        **call: Unpack[Arguments],
    ) -> Report:
        """Run a plan with this client, as :meth:`TransferPlan.run` has it."""
        check(concurrency=concurrency)
        options_of(None, None, concurrency=concurrency)  # or a ValueError: it is no number of workers
        arguments = Call.of("run_plan", call)
        folder = None if to is None else here(to, "to")
        running.check_places(plan, folder, cache)
        is_kept = cache is None or isinstance(cache, DiskCache)
        store = self._store(cache)
        about = None if plan.kind == "download" else (target_of if plan.target else source_of)(plan)
        workers = concurrency or (WORKERS_UP if plan.target else WORKERS_DOWN)
        try:
            with self._job(arguments, about, workers) as job:
                return running.run(job, plan, folder, store, is_given=cache is not None)
        finally:
            if not is_kept:
                store.close()

    def _store(self, cache: DiskCache | Path | None) -> DiskCache:
        if cache is None:
            return self.cache
        return cache if isinstance(cache, DiskCache) else self._cache(here(cache, "cache"))


def plan_download(blobs: Blobs, *, base_url: str, repository: str, credentials: str = "") -> TransferPlan:
    """Return ``download`` of these blobs as a plan; the folder is said where it runs (``to=``). No request is sent.

    Raises:
        InvalidPlanError: ``credentials`` names no callable.
        InvalidDigestError, InvalidDescriptorError, InvalidNameError, TypeError: as for ``download``.

    >>> from transferkit import Blob
    >>> blobs = [Blob("sha256:" + 64 * digit, 1000) for digit in "abc"]
    >>> plan = plan_download(blobs, base_url="https://example.com", repository="a/b")
    >>> [len(piece.blobs) for piece in plan.split(pieces=2)]
    [2, 1]
    """
    return TransferPlan(
        kind="download",
        source=check_base_url(base_url),
        repository=check_repository(repository),
        credentials=credentials,
        blobs=ordered(descriptors_of(blobs)),
    )


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns as a plan has them. TypeError: it is a function, which would be code that travels."""
    if callable(given):
        raise TypeError("a plan chooses files by patterns; a function cannot be sent along")
    return (given,) if isinstance(given, str) else tuple(sorted(given))


def _with_scheme(reference: Reference, site: Site) -> Reference:
    """Return a reference that says what its host speaks: where a plan runs, nobody has to find out."""
    if reference.has_scheme:
        return reference
    return replace(reference, scheme=site.repository.client.origin.scheme, has_scheme=True)
