"""What a registry client is asked without moving a blob: what names stand for, which there are, what a pull takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from transferkit.arguments import check
from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import Document
from transferkit.content.machine import local_platform
from transferkit.protocol.hub_name import HubName, is_hub_name
from transferkit.registry import local, pulling, reaching
from transferkit.registry.call import WORKERS_DOWN, WORKERS_UP, Arguments, Call, Calls
from transferkit.registry.folder_push import FolderPush, PushArguments, plan_folder, split
from transferkit.registry.hub_files import find
from transferkit.registry.reaching import Answered
from transferkit.report.plan import Plan, PushPlan

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Asking(Calls):
    """The questions of a registry client. Thread-safe."""

    def resolve(self, name: str, **call: Unpack[Arguments]) -> Document:
        """Fetch what a name stands for: a :class:`Manifest`, or the :class:`Index` of several.

        Raises:
            InvalidNameError: the name is malformed.
            ManifestNotFoundError: there is no such model.
            DigestMismatchError, InvalidManifestError: what came is not what the name pins, or no manifest.
        """
        reference = self._reference(name)
        if self.offline:
            return local.resolve(self.cache, reference, offline=True)
        with self._job(Call.of("resolve", call), reference) as job:
            return job.document(job.site(reference), reference)

    def resolve_blob(self, name: str, **call: Unpack[Arguments]) -> Descriptor:
        """Return digest and size of a blob of a repository, named as ``host/repository@sha256:...``.

        What the cache has verified is not asked for.

        Raises:
            InvalidNameError: the name is malformed, or has no digest.
            BlobNotFoundError: the repository has no such blob; offline, the cache.
            ProtocolError: the registry does not say how large it is.
        """
        reference, digest = self._blob(name)
        with self._job(Call.of("resolve_blob", call), reference) as job:
            return pulling.describe(job, self.cache, reference, digest, offline=self.offline)

    def ping(self, host: str, **call: Unpack[Arguments]) -> Answered:
        """Ask a registry whether it is one, and whether it takes the credentials that there are for it.

        Raises:
            InvalidNameError: ``host`` is no host, with or without a port and ``http://`` before it.
            UnauthorizedError, DeniedError: it does not take them.
            NotFoundError, ProtocolError: it is no registry.
            TransferKitError: as for ``resolve``.
        """
        reference = reaching.reference_of(host)
        with self._job(Call.of("ping", call), reference) as job:
            return reaching.ping(job, reference)

    def resolve_local(self, name: str) -> Document:
        """Return what a name stands for in the cache, without a request. ManifestNotFoundError: it is not there."""
        return local.resolve(self.cache, self._reference(name))

    def tags(self, name: str, **call: Unpack[Arguments]) -> list[str]:
        """Return the tags of a model's repository, in the registry's order; offline, those in the cache."""
        reference = self._reference(name)
        if self.offline:
            same = (reference.name.host.lower(), reference.name.repository.lower())
            return [n.tag for n in self.cache.links() if (n.host.lower(), n.repository.lower()) == same]
        with self._job(Call.of("tags", call), reference) as job:
            site = job.site(reference)
            return job.operation.call(lambda flow: list(site.repository.tags(flow=flow)))

    def referrers(self, name: str, *, artifact_type: str | None = None, **call: Unpack[Arguments]) -> list[Descriptor]:
        """Return the manifests that refer to a model (signatures, lists of parts), by default of every type."""
        reference = self._reference(name)
        self._check_online(f"ask what refers to {reference}")
        with self._job(Call.of("referrers", call), reference) as job:
            site = job.site(reference)
            digest = reference.digest or job.document(site, reference).digest
            found = job.operation.call(lambda flow: list(site.repository.referrers(digest, flow=flow)))
        return [each for each in found if artifact_type in (None, each.artifact_type)]

    def plan(self, name: str, *, platform: str | None = None, **call: Unpack[Arguments]) -> Plan:
        """Tell what ``pull`` would move, for the requests of manifests alone.

        Of a repository of the hub (``hf://...``) the files that are not in LFS are read for it.
        """
        check(platform=platform)
        if is_hub_name(name):
            self._check_online(f"plan {name}")
            with self._job(Call.of("plan", call), hub := HubName.parse(name), WORKERS_DOWN) as job:
                return self.cache.plan(find(job, hub, None, None).blobs)
        reference, wanted = self._reference(name), platform or local_platform()
        if self.offline:
            return self.cache.plan(
                local.graph_of(self.cache, local.resolve(self.cache, reference, offline=True), wanted).blobs
            )
        with self._job(Call.of("plan", call), reference) as job:
            site = job.site(reference)
            return self.cache.plan(job.graph(site, job.document(site, reference), wanted).blobs)

    def plan_push(
        self,
        name: str,
        *,
        folder: str | os.PathLike[str],
        annotations: Mapping[str, str] | None = None,
        **keywords: Unpack[PushArguments],
    ) -> PushPlan:
        """Tell what ``push`` of this folder would send, for a question a blob; ``sign`` is not called.

        The files are hashed, and remembered, so that the push does not hash them again. Raises as ``push`` does.
        """
        target, (own, call) = self._target(name), split("plan_push", keywords)
        wanted = FolderPush(folder=folder, annotations=annotations or {}, **own)
        with self._job(call, target, WORKERS_UP) as job:
            return plan_folder(job, self.cache, target, wanted)

    def unlink(self, name: str) -> bool:
        """Remove a name from the cache, without a request; ``False``: there was none. Its blobs stay until ``gc``.

        ``name@sha256:...``, without a tag, removes no tag: the snapshot that was taken by that digest is kept no more.
        """
        reference = self._reference(name)
        if reference.digest is not None and reference.is_pinned:
            return self.cache.pinned_manifests.remove(reference.name, reference.digest)
        return self.cache.unlink(reference.name)
