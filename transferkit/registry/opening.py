"""Opening the tensors of a model: its manifest, which of its files have tensors, and the headers of those."""

from __future__ import annotations

from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError, InvalidModelError
from transferkit.models.reading import files_of
from transferkit.models.values import Contents, Packing
from transferkit.names import Reference
from transferkit.registry.arrays import check_numpy
from transferkit.registry.blob_files import Source
from transferkit.registry.export import Only, chosen
from transferkit.registry.folder_pull import config_of, graph_of
from transferkit.registry.tensor_files import GUESS, TensorFile, TensorFiles
from transferkit.registry.tensors import Begin, Tensors
from transferkit.storage.cache import DiskCache

ENDING = ".safetensors"


def open_tensors(
    cache: DiskCache,
    reference: Reference,
    wanted: str,
    begin: Begin,
    *,
    only: Only = None,
    exclude: Only = None,
    offline: bool = False,
    require_verified: bool = False,
) -> Tensors:
    """Return the tensors of what a reference stands for, once all headers are read. Raises as ``Registry`` has it."""
    check_numpy()
    with begin() as job:
        graph, source = graph_of(job, cache, reference, wanted, offline=offline)
        manifest = graph.chosen(wanted)
        if not isinstance(manifest, Manifest):
            raise InvalidManifestError(f"{reference} is an index of several; open one of its platforms")
        with job.naming(reference):
            contents = files_of(manifest, config_of(job, manifest, cache, source) or None)
        remote = source if isinstance(source, Source) else None
        files = TensorFiles(_tensor_files(contents, reference, only, exclude), cache, remote)
        # The index of a model (``model.safetensors.index.json``) is not asked: headers say the same, and are right.
        job.operation.each(files.files, files.open, total=sum(min(file.blob.size, GUESS) for file in files.files))
        tensors = Tensors(files, str(reference), begin, require_verified=require_verified)
    if require_verified:
        tensors.prove()
    return tensors


def _tensor_files(contents: Contents, reference: Reference, only: Only, exclude: Only) -> list[TensorFile]:
    """Return the files that have tensors. InvalidModelError: there is none, or none that is wanted."""
    entries = [entry for entry in contents.entries if entry.path.lower().endswith(ENDING)]
    found = [entry for entry in entries if entry.packing is Packing.NONE]
    if not found:
        has = ", ".join(entry.path or entry.descriptor.media_type for entry in contents.entries)[:300] or "nothing"
        packed = any(entry.packing is not Packing.NONE for entry in contents.entries)
        hint = "; what is packed cannot be read in parts: pull the model into a folder" if packed else ""
        raise InvalidModelError(f"{reference} has no {ENDING} files; it has {has}{hint}")
    wanted = [TensorFile(entry.path, entry.descriptor) for entry in found if chosen(entry.path, only, exclude)]
    if not wanted:
        listed = ", ".join(entry.path for entry in found)[:300]
        raise InvalidModelError(f"no {ENDING} file of {reference} is wanted; it has {listed}")
    return wanted
