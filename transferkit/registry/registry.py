"""The registry client: one object for all registries, with a cache on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, Document, local_platform
from transferkit.content.interfaces import Closing
from transferkit.content.manifest import Manifest, parse
from transferkit.errors import ConnectError, InvalidManifestError, InvalidNameError, ManifestNotFoundError
from transferkit.names import DEFAULT_MASK, Name, Reference
from transferkit.options import HostOptions, TransferOptions
from transferkit.registry import copying, pulling, pushing
from transferkit.registry.call import Arguments, Call
from transferkit.registry.export import Only, export, titled_layers
from transferkit.registry.files import Files
from transferkit.registry.job import Job
from transferkit.registry.sites import Sites
from transferkit.report import Plan
from transferkit.storage.cache import DiskCache
from transferkit.storage.layout import Tagged
from transferkit.transfer.operation import Operation
from transferkit.transfer.threads import WORKERS
from transferkit.transport.auth import Auth, GetToken
from transferkit.transport.hosts import Hosts

if TYPE_CHECKING:
    import requests
    from typing_extensions import Unpack

WORKERS_DOWN = 64
WORKERS_UP = 32


class Registry(Closing):
    """Pulls, pushes and copies models by their names. A context manager; thread-safe, and usable after a fork.

    ``cache`` is where models are kept (a :class:`DiskCache`, or its path); ``mask`` completes names; ``hosts`` says
    how single hosts are reached (:class:`HostOptions` by host). ``session``, ``auth``, ``token`` and ``get_token`` are
    those of ``download``; without them the environment, Docker's and podman's files and their helpers are asked.
    ``offline`` (or ``TRANSFERKIT_OFFLINE=1``) sends no request. Every method takes ``progress=``, ``trace=``,
    ``cancel=`` and ``logger=``, as ``download`` does.

    >>> Registry(cache="/tmp/models").cache
    <DiskCache /tmp/models>
    """

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
        self.options = options = options or TransferOptions()
        if not isinstance(cache, DiskCache):
            keeps = min(options.resume_threshold, options.chunk_threshold + 1)  # as ``download`` does
            cache = DiskCache(cache, resume_threshold=keeps, rehash=options.rehash_existing)
        self.cache = cache
        self.mask = mask if isinstance(mask, Name) else Name.parse(mask)
        self.offline = os.environ.get("TRANSFERKIT_OFFLINE", "") not in ("", "0") if offline is None else offline
        self._executor = executor
        self._hosts = Hosts(
            session,
            connections=(self.options.concurrency or WORKERS_DOWN) + 1,
            options=self.options.transport,
            hosts=hosts,
            auth=auth,
            token=token,
            get_token=get_token,
        )
        self._sites = Sites(self._hosts, self.options)

    def close(self) -> None:
        """Close the connections, and write what is known of the cache."""
        self._hosts.close()
        self.cache.close()

    @contextmanager
    def _job(self, call: Call, workers: int = 1) -> Iterator[Job]:
        with Operation(
            concurrency=min(self.options.concurrency or workers, workers),
            options=self.options,
            progress=call.progress,
            trace=call.trace,
            cancellation=call.cancel,
            executor=self._executor,
            logger=call.logger,
        ) as operation:
            yield Job(operation, self._sites, self.options)

    def _reference(self, name: str) -> Reference:
        return Reference.parse(name, self.mask)

    # -- looking

    def resolve(self, name: str, **call: Unpack[Arguments]) -> Document:
        """Fetch what a name stands for: a :class:`Manifest`, or the :class:`Index` of several.

        Raises:
            InvalidNameError: the name is malformed.
            ManifestNotFoundError: there is no such model.
            DigestMismatchError, InvalidManifestError: what came is not what the name pins, or no manifest.
        """
        reference = self._reference(name)
        if self.offline:
            return self._local(reference)
        with self._job(Call(**call)) as job:
            return job.document(job.site(reference), reference)

    def resolve_local(self, name: str) -> Document:
        """Return what a name stands for in the cache, without a request. ManifestNotFoundError: it is not there."""
        return self._local(self._reference(name))

    def _local(self, reference: Reference) -> Document:
        if reference.digest is None:
            return parse(self.cache.manifest(reference.name))
        raw = self._linked(reference.name)
        if raw is not None and Digest.of(raw, reference.digest.algorithm) == reference.digest:
            return parse(raw)
        try:
            return parse(self.cache.read(reference.digest))
        except LookupError as error:
            raise ManifestNotFoundError(f'model "{reference}" not found in {self.cache.root}') from error

    def _linked(self, name: Name) -> bytes | None:
        try:
            return self.cache.manifest(name) if name.model else None
        except ManifestNotFoundError:
            return None

    # -- moving

    def pull(self, name: str, *, platform: str | None = None, **call: Unpack[Arguments]) -> Document:
        """Pull a model into the cache, and return its manifest; of an index the one for ``platform``.

        The name is linked when everything is in place; what is in place already is left, and stays whatever fails.
        ``platform`` is os/architecture[/variant], by default that of this machine; ``"all"`` pulls all of an index.

        Raises:
            InvalidNameError, ManifestNotFoundError, InvalidManifestError, DigestMismatchError: as for ``resolve``; also
                for a manifest without layers, and for an index that has nothing for the platform.
            IncompleteError: some blobs failed, for the reasons in ``.failures``; or, offline, are not in the cache.
            TransferKitError, CancelledError: as for ``download``.
        """
        reference, wanted = self._reference(name), platform or local_platform()
        if self.offline:
            root = self._local(reference)
            graph = pulling.local_graph(self.cache, root, wanted)
            pulling.check_complete(self.cache, graph, name)
        else:
            with self._job(Call(**call), WORKERS_DOWN) as job:
                graph = pulling.pull(job, self.cache, reference, wanted)
        return graph.chosen(wanted)

    def push(
        self,
        name: str,
        *,
        source: str | None = None,
        files: Files | None = None,
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        **call: Unpack[Arguments],
    ) -> Document:
        """Push a model of the cache, by default the one of the same name, or ``files``; return its manifest.

        Files are paths, or a mapping of titles to paths; a file's title is its name. They become the layers of an
        artifact of ``artifact_type``. Everything is looked for before the first request, and the tag comes last.

        Raises:
            SourceError: a blob or file is missing, or not what its digest says; no manifest was sent.
            ManifestNotFoundError: the cache has no such model.
            TransferKitError, CancelledError: as for ``upload``.
        """
        target = self._reference(name)
        self._check_online(f"push {target}")
        if target.digest is not None:
            raise InvalidNameError(f"{name} is pushed under a tag; its digest follows from what is pushed")
        with self._job(Call(**call), WORKERS_UP) as job:
            if files is not None:
                return pushing.push_files(job, files, target, artifact_type, annotations or {}).root
            origin = self._reference(source or name)
            graph = pulling.local_graph(self.cache, self._local(origin), ALL)
            pushing.push_model(job, self.cache, graph, origin.name, target)
            return graph.root

    def copy(
        self,
        source: str | Tagged,
        target: str | Tagged,
        *,
        platform: str = ALL,
        referrers: bool = False,
        **call: Unpack[Arguments],
    ) -> Document:
        """Copy a model from one registry to another, or within one, and return its manifest. Nothing is stored on disk.

        All of an index is copied, or what is for ``platform``; with ``referrers`` also what refers to it (signatures).
        What the target has is left, so a copy that was interrupted is completed by the next. Either end may be a tag in
        an image layout on disk: ``OCILayout(path).at("v1")``.

        Raises:
            TransferKitError, CancelledError: as for ``pull`` and ``push``.
        """
        origin = source if isinstance(source, Tagged) else self._reference(source)
        destination = target if isinstance(target, Tagged) else self._reference(target)
        if not isinstance(origin, Tagged) or not isinstance(destination, Tagged):
            self._check_online(f"copy {source}")
        with self._job(Call(**call), WORKERS_UP) as job:
            return copying.copy(job, origin, destination, platform, referrers=referrers)

    def export(
        self,
        name: str,
        directory: str | os.PathLike[str],
        *,
        only: Only = None,
        platform: str | None = None,
        **call: Unpack[Arguments],
    ) -> dict[str, str]:
        """Pull a model, and write its titled layers as files; return their paths by titles.

        ``only`` is a pattern (``"*.json"``), or a function of a title.

        Raises:
            InvalidManifestError: no layer has a title, or none of those is wanted.
            InvalidNameError: a title leads out of the directory; nothing was written.
            TransferKitError, CancelledError: as for ``pull``.
        """
        manifest = self.pull(name, platform=platform, **call)
        if not isinstance(manifest, Manifest):
            raise InvalidManifestError(f"{name} is an index of several; export one of its platforms")
        layers = titled_layers(manifest, only)
        with self._job(Call(cancel=call.get("cancel"), logger=call.get("logger"))) as job:
            return job.operation.call(lambda flow: export(self.cache, layers, directory, flow))

    def unlink(self, name: str) -> bool:
        """Remove a name from the cache, without a request; ``False``: there was none. Its blobs stay until ``gc``."""
        return self.cache.unlink(self._reference(name).name)

    # -- asking

    def tags(self, name: str, **call: Unpack[Arguments]) -> list[str]:
        """Return the tags of a model's repository, in the registry's order; offline, those in the cache."""
        reference = self._reference(name)
        if self.offline:
            same = (reference.name.host.lower(), reference.name.repository.lower())
            return [n.tag for n in self.cache.links() if (n.host.lower(), n.repository.lower()) == same]
        with self._job(Call(**call)) as job:
            site = job.site(reference)
            return job.operation.call(lambda flow: list(site.repository.tags(flow=flow)))

    def referrers(self, name: str, *, artifact_type: str | None = None, **call: Unpack[Arguments]) -> list[Descriptor]:
        """Return the manifests that refer to a model (signatures, lists of parts), by default of every type."""
        reference = self._reference(name)
        self._check_online(f"ask what refers to {reference}")
        with self._job(Call(**call)) as job:
            site = job.site(reference)
            digest = reference.digest or job.document(site, reference).digest
            found = job.operation.call(lambda flow: list(site.repository.referrers(digest, flow=flow)))
        return [each for each in found if artifact_type in (None, each.artifact_type)]

    def plan(self, name: str, *, platform: str | None = None, **call: Unpack[Arguments]) -> Plan:
        """Tell what ``pull`` would move, for the requests of manifests alone."""
        reference, wanted = self._reference(name), platform or local_platform()
        with self._job(Call(**call)) as job:
            if self.offline:
                graph = pulling.local_graph(self.cache, self._local(reference), wanted)
            else:
                site = job.site(reference)
                graph = job.graph(site, job.document(site, reference), wanted)
        return self.cache.plan(graph.blobs)

    def repair(self, name: str | None = None, **call: Unpack[Arguments]) -> list[Digest]:
        """Hash what is in the cache, of one model or of all, fetch what is wrong or missing, and return that.

        Of a blob whose registry has digests of its chunks only the wrong ones are fetched.

        Raises:
            IncompleteError: something could not be fetched.
        """
        names = self.cache.links() if name is None else [self._reference(name).name]
        arguments = Call(**call)
        wrong = self.cache.verify(names, progress=arguments.progress, cancel=arguments.cancel)
        bad = {entry.digest for entry in wrong}
        healed: dict[Digest, None] = {}
        for model in names:
            graph = pulling.local_graph(self.cache, parse(self.cache.manifest(model)), ALL)
            needed = [*self.cache.missing(graph.blobs), *(blob for blob in graph.blobs if blob.digest in bad)]
            if needed:
                with self._job(arguments, WORKERS_DOWN) as job:
                    pulling.repair(job, self.cache, Reference("https", model, has_scheme=False), graph, wrong)
            healed.update(dict.fromkeys(blob.digest for blob in needed))
        return list(healed)

    def _check_online(self, what: str) -> None:
        if self.offline:
            raise ConnectError(f"cannot {what}: offline (TRANSFERKIT_OFFLINE, or offline=True)", retryable=False)

    def __repr__(self) -> str:
        return f"<Registry with {self.cache!r}>"
