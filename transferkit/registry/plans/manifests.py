"""The documents of a plan: what they lead to, and that they are what its source names."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from transferkit.content.descriptor import OCTET_STREAM, Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, Document, Graph, collect
from transferkit.content.manifest import parse
from transferkit.errors import InvalidManifestError, InvalidPlanError
from transferkit.names import Reference
from transferkit.registry.ends import Referrers

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan


def graph_of(plan: TransferPlan, reference: Reference) -> tuple[Graph, Referrers]:
    """Return what a plan's source leads to, and what refers to that.

    InvalidPlanError: a document is missing, or is none, or the plan's blobs are others than those of its documents.
    """
    try:
        documents = {document.digest: document for document in map(parse, plan.documents)}
        root = documents.get(reference.digest) if reference.digest is not None else None
        if root is None:
            raise InvalidPlanError(f"the plan has not the manifest that its source names: {reference}")
        graph = collect(root, _Loader(documents), plan.platform or ALL)
        there = {document.digest for document in graph.documents}
        found: Referrers = {}
        for document in documents.values():
            if document.digest not in there and (subject := _subject(document)) is not None:
                found.setdefault(subject, []).append(document)
        others = [Graph(each, (each,)) for digest, each in documents.items() if digest not in there]
        whole = graph.with_referrers(others) if others else graph
    except InvalidManifestError as error:
        raise InvalidPlanError(f"the documents of the plan cannot be read: {error}") from error
    named = {plain(blob) for blob in whole.blobs}
    is_all = plan.step == "whole" and not (plan.only or plan.exclude)
    if not named.issuperset(plan.blobs) or (is_all and len(named) != len(plan.blobs)):
        raise InvalidPlanError("the plan's blobs are not those that its manifests name")
    return whole, found


def plain(blob: Descriptor) -> Descriptor:
    """Return what a plan keeps of a blob."""
    is_plain = blob.media_type is OCTET_STREAM and not (blob.annotations or blob.source or blob.urls)
    return blob if is_plain else Descriptor(blob.digest, blob.size)


def ordered(blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return blobs in the order of the work: the largest first, and always the same."""
    found = sorted(map(plain, blobs), key=attrgetter("digest"))
    found.sort(key=attrgetter("size"), reverse=True)  # twice, as that takes a third of the time of pairs
    return tuple(found)


class _Loader:
    """Finds the documents of an index in a plan."""

    def __init__(self, documents: dict[Digest, Document]) -> None:
        self._documents = documents

    def __call__(self, descriptor: Descriptor) -> Document:
        document = self._documents.get(descriptor.digest)
        if document is None:
            raise InvalidPlanError(f"the plan has not the manifest {descriptor.digest.short}, which its index names")
        return document


def _subject(document: Document) -> Digest | None:
    subject = document.json().get("subject")
    digest = subject.get("digest") if isinstance(subject, dict) else None
    return Digest(digest) if isinstance(digest, str) else None
