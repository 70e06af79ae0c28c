"""What a registry client brings here: models into its cache, files into folders, tensors into memory."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from transferkit.arguments import check
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.machine import local_platform
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError, InvalidNameError, ManifestNotFoundError
from transferkit.names import Reference
from transferkit.protocol.hub_name import HubName, is_hub_name
from transferkit.registry import local, pulling, repairing
from transferkit.registry.asking import Asking
from transferkit.registry.call import WORKERS_DOWN, Arguments, Call
from transferkit.registry.export import Only, export, titled_layers
from transferkit.registry.folder_pull import FolderArguments, Own, pull_folder
from transferkit.registry.hub import pull_from_hub
from transferkit.registry.job import Job
from transferkit.registry.open_files import OpenFiles, open_files
from transferkit.registry.opening import open_tensors
from transferkit.registry.snapshots import snapshot
from transferkit.registry.tensors import Tensors
from transferkit.report.folder import FolderReport
from transferkit.storage.cache import DiskCache
from transferkit.transfer.outcomes import ProgressCallback

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Fetching(Asking):
    """The ways of a registry client from a registry to this machine. Thread-safe."""

    @overload
    def pull(
        self, name: str, *, platform: str | None = None, foreign: bool = False, **call: Unpack[Arguments]
    ) -> Document: ...
    @overload
    def pull(
        self,
        name: str,
        *,
        to: str | os.PathLike[str],
        only: Only = None,
        exclude: Only = None,
        format: str | None = None,
        link: str = "auto",
        overwrite: bool = False,
        cache: DiskCache | None = ...,
        platform: str | None = None,
        foreign: bool = False,
        **call: Unpack[Arguments],
    ) -> FolderReport: ...
    def pull(
        self,
        name: str,
        *,
        to: str | os.PathLike[str] | None = None,
        only: Only = None,
        exclude: Only = None,
        format: str | None = None,
        link: str = "auto",
        overwrite: bool = False,
        cache: DiskCache | Own | None = Own.CACHE,
        platform: str | None = None,
        foreign: bool = False,
        **call: Unpack[Arguments],
    ) -> Document | FolderReport:
        """Pull a model into the cache, and return its manifest; of an index the one for ``platform``.

        The name is linked when everything is in place; what is in place already is left, and stays whatever fails. With
        a digest and no tag (``name@sha256:...``) nothing is linked, and ``gc`` leaves the blobs for its grace.
        ``platform`` is os/architecture[/variant], by default that of this machine; ``"all"`` pulls all of an index.
        With ``foreign``, layers that the registry does not have are fetched, without credentials, from the ``urls``
        that the manifest gives them; without it nobody asks there.

        With ``to`` its files go into that folder, by their names, and a :class:`FolderReport` is returned. ``only`` and
        ``exclude`` choose them: a pattern, several, or a function of a path. ``format`` reads the manifest as one of
        ``modelpack``, ``oras``, ``docker``, ``kitops``, ``ollama`` and ``image``. ``link`` says how a file comes from
        the cache: ``auto`` takes the first that the file system has of ``reflink``, ``hard`` (the file is read-only)
        and ``copy``; ``none``, or ``cache=None``, that it does not, but straight from the registry. A file that
        somebody has changed is replaced with ``overwrite`` alone. ``hf://org/model@revision`` is a repository of the
        Hugging Face hub (:doc:`hub`).

        Raises:
            TypeError: keywords for a folder without ``to``, or a ``link`` of files of a cache without one.
            InvalidNameError, ManifestNotFoundError, DigestMismatchError: as for ``resolve``.
            InvalidManifestError: it is malformed, has no layers or files, or is an index with nothing for the platform.
            StorageError: a file in the folder was changed, or the disk refused.
            IncompleteError: some blobs failed, for the reasons in ``.failures``; or, offline, are not in the cache.
            TransferKitError, CancelledError: as for ``download``.
        """
        check(platform=platform, to=to, only=only, exclude=exclude, format=format, link=link, overwrite=overwrite)
        used, arguments = self.cache if isinstance(cache, Own) else cache, Call.of("pull", call)
        if is_hub_name(name):
            if to is None or format is not None or platform is not None or foreign:
                raise TypeError("a pull from the hub has to=, and neither format=, platform= nor foreign=")
            self._check_online(f"pull {name}")
            asked = FolderArguments(to, used, only, exclude, None, link, overwrite)
            with self._job(arguments, hub := HubName.parse(name), WORKERS_DOWN) as job:
                return pull_from_hub(job, hub, asked)
        reference, wanted = self._reference(name), platform or local_platform()
        given = (only, exclude, format, link, overwrite, cache)
        if to is None and given != (None, None, None, "auto", False, Own.CACHE):
            raise TypeError("only=, exclude=, format=, link=, overwrite= and cache= are for a folder: pass it as to=")
        if to is not None:
            asked = FolderArguments(to, used, only, exclude, format, link, overwrite)
            with self._job(arguments, reference, WORKERS_DOWN) as job:
                return pull_folder(job, reference, wanted, asked, self.cache, offline=self.offline, foreign=foreign)
        if self.offline:
            graph = local.graph_of(self.cache, local.resolve(self.cache, reference, offline=True), wanted)
            local.check_complete(self.cache, graph.blobs, name)
        else:
            with self._job(arguments, reference, WORKERS_DOWN) as job:
                graph = pulling.pull(job, self.cache, reference, wanted, foreign=foreign)
        return graph.chosen(wanted)

    def pull_blob(self, name: str, **call: Unpack[Arguments]) -> Descriptor:
        """Pull one blob into the cache, named as ``host/repository@sha256:...``, and return its digest and size.

        Nothing names it there, so ``gc`` leaves it for its grace alone.

        Raises:
            InvalidNameError: the name is malformed, or has no digest.
            BlobNotFoundError: the repository has no such blob; offline, the cache.
            TransferKitError, CancelledError: as for ``download``.
        """
        reference, digest = self._blob(name)
        with self._job(Call.of("pull_blob", call), reference, WORKERS_DOWN) as job:
            return pulling.pull_blob(job, self.cache, reference, digest, offline=self.offline)

    def snapshot(self, name: str, *, platform: str | None = None, **call: Unpack[Arguments]) -> Path:
        """Return a folder with the files of a model in the cache: complete, read-only, and of one digest for ever.

        It is made once, however many processes ask for it at the same time; the others wait, and see how far it is.
        Of an index it is the manifest for ``platform``. Offline, it is what the name stood for at last. One that is
        asked for by digest (``name@sha256:...``) is kept until ``unlink`` of that name; no tag changes.

        Raises:
            ManifestNotFoundError: there is no such model; or, offline, it is not in the cache.
            TransferKitError, CancelledError: as for ``pull``.
        """
        check(platform=platform)
        reference, wanted = self._reference(name), platform or local_platform()
        with self._job(Call.of("snapshot", call), reference, WORKERS_DOWN) as job:
            return Path(snapshot(job, self.cache, reference, wanted, offline=self.offline))

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
        check(only=only, directory=directory)
        arguments = Call.of("export", call)
        manifest = self.pull(name, platform=platform, **call)
        if not isinstance(manifest, Manifest):
            raise InvalidManifestError(f"{name} is an index of several; export one of its platforms")
        layers = titled_layers(manifest, only)
        with self._job(Call(cancel=arguments.cancel, logger=arguments.logger)) as job:
            return job.operation.call(lambda flow: export(self.cache, layers, directory, flow))

    def open_tensors(
        self,
        name: str,
        *,
        platform: str | None = None,
        only: Only = None,
        exclude: Only = None,
        require_verified: bool = False,
        **call: Unpack[Arguments],
    ) -> Tensors:
        """Open the tensors of a model: a mapping of their names to ``numpy`` arrays, which are read one by one.

        The headers of its safetensors files are read, and nothing else; each tensor comes when it is asked for, from
        the cache where its file is there, else from the registry. ``only`` and ``exclude`` choose files, as for
        ``pull``. The other keywords hold for all that is read. ``require_verified`` refuses what cannot be verified:
        files that the cache does not have, of a registry without lists of their chunks.

        Raises:
            ModuleNotFoundError: numpy is not installed (``pip install 'transferkit[tensors]'``).
            InvalidModelError: it has no safetensors files, or one is malformed, or two have the same tensor.
            VerificationError: ``require_verified``, and nobody can; pull the model first.
            BlobNotFoundError: a file is missing; offline, it is not in the cache.
            TransferKitError, CancelledError: as for ``pull``.
        """
        check(platform=platform, only=only, exclude=exclude)
        reference = self._reference(name)
        begin = partial(self._job, Call.of("open_tensors", call), reference, WORKERS_DOWN)
        return open_tensors(
            self.cache,
            reference,
            platform or local_platform(),
            begin,
            only=only,
            exclude=exclude,
            offline=self.offline,
            require_verified=require_verified,
        )

    def open_files(
        self, name: str, *, platform: str | None = None, require_verified: bool = False, **call: Unpack[Arguments]
    ) -> OpenFiles:
        """Open the files of a model: a mapping of their paths to what is known of them, and their content by ranges.

        The manifest is read, and nothing else; of one that is pinned (``name@sha256:...``) the cache's, if it has it.
        Bytes come from the cache where the file is there, else from the registry. ``require_verified`` refuses parts
        that nobody can verify, when they are read. Of an index it is the manifest for ``platform``.

        Raises:
            InvalidNameError, ManifestNotFoundError, DigestMismatchError: as for ``resolve``.
            InvalidManifestError: it has no files.
            TransferKitError, CancelledError: as for ``pull``.
        """
        check(platform=platform)
        reference, arguments = self._reference(name), Call.of("open_files", call)

        def begin(progress: ProgressCallback | None = None) -> AbstractContextManager[Job]:
            return self._job(replace(arguments, progress=progress or arguments.progress), reference, WORKERS_DOWN)

        return open_files(
            self.cache,
            reference,
            platform or local_platform(),
            begin,
            offline=self.offline,
            require_verified=require_verified,
        )

    def repair(self, name: str | None = None, **call: Unpack[Arguments]) -> list[Digest]:
        """Hash what is in the cache, of one model or of all, fetch what is wrong or missing, and return that.

        Of a blob whose registry has digests of its chunks only the wrong ones are fetched.

        Raises:
            IncompleteError: something could not be fetched.
            InvalidNameError: the name is a digest without a tag, which is no name in the cache.
        """
        reference = None if name is None else self._reference(name)
        if reference is not None and reference.is_pinned:
            raise InvalidNameError(f"{name} has no tag, and repair goes by tags; repair() looks at all that has one")
        names = self.cache.links() if reference is None else [reference.name]
        arguments = Call.of("repair", call)
        bad: set[Digest] = set()
        with suppress(ManifestNotFoundError):
            of = None if name is None else names
            wrong = self.cache.verify(of, progress=arguments.progress, cancel=arguments.cancel)
            bad.update(entry.digest for entry in wrong)
        healed: dict[Digest, None] = {}
        for model in names:
            about = Reference("https", model, has_scheme=False)
            begin = partial(self._job, arguments, about, WORKERS_DOWN)
            mended = repairing.repair(self.cache, about, bad, begin)
            healed.update(dict.fromkeys(mended))
        return list(healed)
