"""The registry client: one object for all registries, with a cache on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from transferkit.arguments import check
from transferkit.content.graph import ALL, Document
from transferkit.names import Reference
from transferkit.protocol.hub_name import HubName, is_hub_name
from transferkit.registry import copying, local, pushing
from transferkit.registry.call import WORKERS_UP, Arguments, Call
from transferkit.registry.export import Only
from transferkit.registry.files import Files
from transferkit.registry.folder_push import FolderPush, PushArguments, push_folder, split
from transferkit.registry.hub import HubEnd
from transferkit.registry.plans.planning import Planning
from transferkit.storage.layout import Tagged

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Registry(Planning):
    """Pulls, pushes and copies models by their names. A context manager; thread-safe, and usable after a fork.

    ``cache`` is where models are kept (a :class:`DiskCache`, or its path); ``mask`` completes names; ``hosts`` says
    how single hosts are reached (:class:`HostOptions` by host). ``session``, ``auth``, ``token`` and ``get_token`` are
    those of ``download``; without them the environment, Docker's and podman's files and their helpers are asked.
    ``offline`` (or ``TRANSFERKIT_OFFLINE=1``) sends no request. Every method takes ``progress=``, ``trace=``,
    ``cancel=`` and ``logger=``, as ``download`` does.

    >>> Registry(cache="/tmp/models").cache
    <DiskCache /tmp/models>
    """

    def push(
        self,
        name: str,
        *,
        source: str | None = None,
        files: Files | None = None,
        folder: str | os.PathLike[str] | None = None,
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        **keywords: Unpack[PushArguments],
    ) -> Document:
        """Push a model of the cache, by default the one of the same name, or ``files``, or a ``folder``.

        The manifest is returned. Everything is looked for before the first request, and the tag comes last.

        Files are paths, or a mapping of titles to paths; a file's title is its name. They become the layers of an
        artifact of ``artifact_type``.

        A folder is pushed as a model whose files have their paths, in the ``format`` ``"modelpack"`` (the default),
        ``"oras"`` or ``"docker"``. ``only`` and ``exclude`` choose files, each by a pattern, several, or a function of
        the path. A file is hashed once, and remembered by size, times and inode; ``progress`` counts what is hashed,
        and then what is sent. ``ollama=True`` pushes a second manifest over the same blobs for Ollama's client, under
        the tag with ``-ollama`` behind it. ``sign(manifest)`` returns a Sigstore bundle, before the first byte is sent;
        it is pushed as a referrer. Limits of the registry that are known to be in the way are logged as warnings, and
        told by ``plan_push``.

        Raises:
            SourceError: a blob or file is missing, is not what it was, or cannot be pushed; no manifest was sent.
            InvalidModelError: the format has no use for these files, or there are more than a manifest has room for.
            ManifestNotFoundError: the cache has no such model.
            ValueError: there is no such format.
            TransferKitError, CancelledError: as for ``upload``.
        """
        check(source=source, files=files, artifact_type=artifact_type, annotations=annotations)
        target, (own, call) = self._target(name), split("push", keywords)
        if folder is not None:
            if source is not None or files is not None or artifact_type is not None:
                raise TypeError("folder is pushed alone: without source, files and artifact_type")
            wanted = FolderPush(folder=folder, annotations=annotations or {}, **own)
            with self._job(call, target, WORKERS_UP) as job:
                return push_folder(job, self.cache, target, wanted, call.logger)
        if own:
            raise TypeError(f"{' and '.join(own)} cannot be without folder")
        if source is not None and files is not None:
            raise TypeError("source and files are two things to push; pass one of them")
        if files is None and (artifact_type is not None or annotations is not None):
            raise TypeError("a model of the cache is pushed as it is; artifact_type and annotations are for files")
        with self._job(call, target, WORKERS_UP) as job:
            if files is not None:
                return pushing.push_files(job, self.cache, files, target, artifact_type, annotations or {}).root
            origin = self._reference(source or name)
            graph = local.graph_of(self.cache, local.resolve(self.cache, origin), ALL)
            pushing.push_model(job, self.cache, graph, origin.name, target)
            return graph.root

    def copy(
        self,
        source: str | Tagged,
        target: str | Tagged,
        *,
        platform: str = ALL,
        referrers: bool = False,
        only: Only = None,
        exclude: Only = None,
        format: str | None = None,
        **call: Unpack[Arguments],
    ) -> Document:
        """Copy a model from one registry to another, or within one, and return its manifest. Nothing is stored on disk.

        All of an index is copied, or the manifest for ``platform``; with ``referrers`` also what refers to it
        (signatures).
        What the target has is left, so a copy that was interrupted is completed by the next. Either end may be a tag in
        an image layout on disk: ``OCILayout(path).at("v1")``.
        The source may be a repository of the Hugging Face hub, ``hf://org/model@revision``: its files, or those that
        ``only`` and ``exclude`` choose, become the layers of a manifest in the ``format`` of a push (:doc:`hub`).

        Raises:
            TransferKitError, CancelledError: as for ``pull`` and ``push``.
        """
        check(only=only, exclude=exclude, format=format)
        arguments, origin = Call.of("copy", call), HubName.parse(source) if is_hub_name(source) else self._end(source)
        if not isinstance(origin, HubName) and (only, exclude, format) != (None, None, None):
            raise TypeError("only=, exclude= and format= are for a repository of the hub; of a registry all is copied")
        destination = self._end(target)
        if not isinstance(origin, Tagged) or not isinstance(destination, Tagged):
            self._check_online(f"copy {source}")
        about = next((end for end in (destination, origin) if isinstance(end, Reference)), None)
        with self._job(arguments, about, WORKERS_UP) as job:
            start: Reference | Tagged | HubEnd
            if isinstance(origin, HubName):
                start = HubEnd(job, origin, format or "modelpack", only, exclude, about, arguments.logger)
            else:
                start = origin
            return copying.copy(job, start, destination, platform, referrers=referrers)
