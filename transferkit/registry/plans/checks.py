"""What every plan is held to, whoever has made it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from transferkit.content.blob_range import BlobRange
from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import MAX_MANIFEST
from transferkit.errors import InvalidNameError, InvalidPlanError, TransferKitError
from transferkit.grammar import check_repository
from transferkit.names import DEFAULT_MASK, Reference
from transferkit.protocol.routes import check_base_url

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan

MOST = 10_000_000  # blobs of one plan: some GB of memory
MOST_PATTERNS = 1000  # of which each file is held against each
MOST_BYTES = 64 * 1024 * 1024  # that documents have together, as those of a graph
_PLATFORM = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,63}(?:/[A-Za-z0-9][\w.-]{0,63}){0,3})?\Z", re.ASCII)
_PATH = re.compile(r"[/~\\]|\.\.?[/\\]|[A-Za-z]:[/\\]")
_CREDENTIALS = re.compile(r"(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?\Z", re.ASCII)
_STEPS = ("whole", "piece", "last")


def check_plan(plan: TransferPlan) -> None:
    """Raise InvalidPlanError where a plan is none."""
    if plan.version != 1 or type(plan.version) is not int:
        shown = str(plan.version)[:20]
        raise InvalidPlanError(f"the plan is of version {shown}, and this transferkit knows version 1 alone")
    texts = ("kind", "source", "repository", "target", "step", "platform", "credentials")
    for name in texts:
        if not isinstance(getattr(plan, name), str):
            raise InvalidPlanError(f"the plan's {name} is not a text")
    _one_of(plan.kind, plan.KINDS, "kind")
    _one_of(plan.step, _STEPS, "step")
    if _PLATFORM.match(plan.platform) is None:
        raise InvalidPlanError(f"the plan's platform {plan.platform[:80]!r} is none; one looks like linux/amd64")
    check_credentials(plan.credentials)
    _check_patterns(plan)
    try:
        _check_ends(plan)
    except InvalidPlanError:
        raise
    except TransferKitError as error:
        raise InvalidPlanError(f"the plan names no place that anything comes from or goes to: {error}") from error
    _check_blobs(plan)
    _check_ranges(plan)
    _check_documents(plan)


def check_credentials(text: str) -> str:
    """Return what names a callable. InvalidPlanError: it does not."""
    if not isinstance(text, str) or _CREDENTIALS.match(text) is None:
        raise InvalidPlanError(f"credentials are named as package.module:callable, not {str(text)[:80]!r}")
    return text


def source_of(plan: TransferPlan) -> Reference:
    """Return what is pulled, copied or pushed. InvalidNameError: it is none."""
    return _reference(plan.source, "source")


def target_of(plan: TransferPlan) -> Reference:
    """Return what is copied or pushed to. InvalidNameError: it is none."""
    return _reference(plan.target, "target")


def _reference(text: str, what: str) -> Reference:
    if _PATH.match(text) is not None:
        raise InvalidPlanError(
            f"the plan's {what} {text[:80]!r} is a path; where files are is said where it runs (to=, cache=)"
        )
    reference = Reference.parse(text, DEFAULT_MASK)
    if not reference.name.model or str(reference) != text:
        raise InvalidNameError(f"the {what} of a plan has all of its fields, and {text[:200]!r} has not")
    return reference


def _one_of(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise InvalidPlanError(f"the plan's {what} is one of {', '.join(known)}, not {value[:40]!r}")


def _check_ends(plan: TransferPlan) -> None:
    if plan.kind == "download":
        check_base_url(plan.source)
        check_repository(plan.repository)
    else:
        if source_of(plan).digest is None:
            raise InvalidPlanError("the plan's source has no digest, and so nobody knows which manifest it means")
        if plan.repository:
            raise InvalidPlanError(f"a plan of kind {plan.kind} has no repository but those of its names")
    if plan.kind in ("copy", "push"):
        target_of(plan)
    elif plan.target:
        raise InvalidPlanError(
            f"a plan of kind {plan.kind} has no target: where files go is said where it runs (to=, cache=)"
        )


def _check_patterns(plan: TransferPlan) -> None:
    for name in ("only", "exclude"):
        patterns = getattr(plan, name)
        if not isinstance(patterns, tuple) or not all(
            isinstance(text, str) and 0 < len(text) <= 1024 for text in patterns
        ):
            raise InvalidPlanError(f"the plan's {name} are not patterns of up to 1024 characters")
        if len(patterns) > MOST_PATTERNS:
            raise InvalidPlanError(
                f"the plan has {len(patterns)} patterns in {name}; at most {MOST_PATTERNS} are taken"
            )
        if patterns and plan.kind != "pull":
            raise InvalidPlanError(f"{name} is for a pull into a folder, and this is a {plan.kind}")


def _check_blobs(plan: TransferPlan) -> None:
    blobs = plan.blobs
    if not isinstance(blobs, tuple) or not all(type(blob) is Descriptor for blob in blobs):
        raise InvalidPlanError("the plan's blobs are not a tuple of descriptors")
    if len(blobs) > MOST:
        raise InvalidPlanError(f"the plan has {len(blobs)} blobs; at most {MOST} are taken: make several plans")
    if len({blob.digest for blob in blobs}) != len(blobs):
        raise InvalidPlanError("the plan has a blob twice")


def _check_ranges(plan: TransferPlan) -> None:
    ranges = plan.ranges
    if not isinstance(ranges, tuple) or not all(type(piece) is BlobRange for piece in ranges):
        raise InvalidPlanError("the plan's ranges are not a tuple of ranges")
    if not ranges:
        return
    if plan.step != "piece" or plan.kind not in ("pull", "download"):
        raise InvalidPlanError("ranges of blobs are for a piece of a pull or download")
    if len(ranges) > MOST:
        raise InvalidPlanError(f"the plan has {len(ranges)} ranges; at most {MOST} are taken: make several plans")
    whole, ends, sizes = {blob.digest for blob in plan.blobs}, dict[str, int](), dict[str, int]()
    for piece in ranges:
        digest, chunk = piece.blob.digest, piece.chunk
        if sizes.setdefault(digest, piece.blob.size) != piece.blob.size or digest in whole:
            raise InvalidPlanError(f"the plan has {digest.short} twice, in two ways")
        if chunk.start <= ends.get(digest, -1):
            raise InvalidPlanError(f"the range {chunk} of {digest.short} is not behind the one before it")
        ends[digest] = chunk.end


def _check_documents(plan: TransferPlan) -> None:
    documents = plan.documents
    if not isinstance(documents, tuple) or not all(type(raw) is bytes for raw in documents):
        raise InvalidPlanError("the plan's documents are not a tuple of bytes")
    if any(not 0 < len(raw) <= MAX_MANIFEST for raw in documents) or sum(map(len, documents)) > MOST_BYTES:
        limits = f"longer than {MAX_MANIFEST} bytes, or they have more than {MOST_BYTES} together"
        raise InvalidPlanError(f"a document of the plan is empty or {limits}")
    if bool(documents) != (plan.step != "piece" and plan.kind != "download"):
        raise InvalidPlanError(f"a {plan.step} plan of kind {plan.kind} has {len(documents)} documents")
