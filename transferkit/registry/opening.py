"""Opening the tensors of a model: its manifest, which of its files have tensors, and the headers of those."""

from __future__ import annotations

from contextlib import suppress

from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import Document
from transferkit.content.manifest import MAX_MANIFEST, Manifest
from transferkit.errors import BlobNotFoundError, InvalidManifestError, InvalidModelError
from transferkit.models.reading import files_of, wants_config
from transferkit.models.values import Contents, Packing
from transferkit.names import Reference
from transferkit.registry import local
from transferkit.registry.arrays import check_numpy
from transferkit.registry.export import Only, is_wanted
from transferkit.registry.job import Job
from transferkit.registry.parts import Part, read
from transferkit.registry.tensor_files import GUESS, Source, TensorFile, TensorFiles
from transferkit.registry.tensors import Begin, Tensors
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow

ENDING = ".safetensors"


def open_tensors(
    cache: DiskCache,
    reference: Reference,
    wanted: str,
    begin: Begin,
    *,
    only: Only = None,
    offline: bool = False,
    require_verified: bool = False,
) -> Tensors:
    """Return the tensors of what a reference stands for, once all headers are read. Raises as ``Registry`` has it."""
    check_numpy()
    with begin() as job:
        source: Source | None = None
        document: Document
        if offline:
            document = local.graph_of(cache, local.resolve(cache, reference), wanted).chosen(wanted)
        else:
            site = job.site(reference)
            source = site.source
            document = job.graph(site, job.document(site, reference), wanted).chosen(wanted)
        if not isinstance(document, Manifest):
            raise InvalidManifestError(f"{reference} is an index of several; open one of its platforms")
        config = None
        if wants_config(document) and document.config is not None:
            config = _read_config(job, cache, document.config, source)
        files = TensorFiles(_tensor_files(files_of(document, config), reference, only), cache, source)
        # The index of a model (``model.safetensors.index.json``) is not asked: headers say the same, and are right.
        job.operation.each(files.files, files.open, total=sum(min(file.blob.size, GUESS) for file in files.files))
    tensors = Tensors(files, str(reference), begin, require_verified=require_verified)
    if require_verified:
        tensors.prove()
    return tensors


def _tensor_files(contents: Contents, reference: Reference, only: Only) -> list[TensorFile]:
    """Return the files that have tensors. InvalidModelError: there is none, or none that is wanted."""
    entries = [entry for entry in contents.entries if entry.path.lower().endswith(ENDING)]
    found = [entry for entry in entries if entry.packing is Packing.NONE]
    if not found:
        has = ", ".join(entry.path or entry.descriptor.media_type for entry in contents.entries)[:300] or "nothing"
        packed = any(entry.packing is not Packing.NONE for entry in contents.entries)
        hint = "; what is packed cannot be read in parts: pull the model into a folder" if packed else ""
        raise InvalidModelError(f"{reference} has no {ENDING} files; it has {has}{hint}")
    wanted = [TensorFile(entry.path, entry.descriptor) for entry in found if is_wanted(entry.path, only)]
    if not wanted:
        listed = ", ".join(entry.path for entry in found)[:300]
        raise InvalidModelError(f"no {ENDING} file of {reference} is wanted; it has {listed}")
    return wanted


def _read_config(job: Job, cache: DiskCache, config: Descriptor, source: Source | None) -> bytes:
    """Return the content of a config, verified, from the cache or else from the registry."""
    with suppress(BlobNotFoundError):
        return cache.read(config.digest)
    if source is None:
        raise BlobNotFoundError(f"the config {config.digest.short} is not in {cache.root}, and this is offline")
    if config.size > MAX_MANIFEST:
        raise InvalidManifestError(f"the config {config.digest.short} has {config.size} bytes; {MAX_MANIFEST} are read")
    raw = bytearray(config.size)
    if raw:
        part = Part(config, 0, config.size, [(0, memoryview(raw))], config.digest)

        def fetch(part: Part, flow: WorkerFlow) -> None:
            with source.fetch(config, offset=part.at, flow=flow) as body:
                read(body, part, flow)

        job.operation.each([part], fetch, total=config.size)
    return bytes(raw)
