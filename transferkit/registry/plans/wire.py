"""Plans as JSON: ``transferkit-plan/1``. What is read may be anybody's, and each field is checked."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from transferkit._version import __version__
from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import no_constant
from transferkit.errors import InvalidDescriptorError, InvalidDigestError, InvalidPlanError
from transferkit.registry.plans import checks

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan

SCHEMA = "transferkit-plan/1"
_TEXTS = ("kind", "source", "repository", "target", "step", "platform", "credentials")
_PATTERNS = ("only", "exclude")
_LISTS = ("blobs", "ranges", "documents", *_PATTERNS)


def to_json(plan: TransferPlan) -> str:
    """Return a plan as JSON: what it does not have is left out, and keys are sorted."""
    document: dict[str, Any] = {name: getattr(plan, name) for name in _TEXTS if getattr(plan, name)}
    document.update({name: getattr(plan, name) for name in _PATTERNS if getattr(plan, name)})
    document["schema"] = SCHEMA
    document["blobs"] = [_row(blob) for blob in plan.blobs]
    if plan.ranges:
        document["ranges"] = [[*_row(piece.blob), piece.chunk.start, piece.chunk.end] for piece in plan.ranges]
    if plan.documents:
        document["documents"] = [base64.b64encode(raw).decode("ascii") for raw in plan.documents]
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _row(blob: Descriptor) -> list[Any]:
    return [blob.digest, blob.size]


def from_json(text: str | bytes) -> dict[str, Any]:
    """Return the fields of a plan. InvalidPlanError: a text is none, or has something that nobody knows."""
    document = _parse(text)
    schema = document.pop("schema", None)
    if schema != SCHEMA:
        shown = f"{schema[:40]!r}" if isinstance(schema, str) else "nothing of the kind"
        hint = "plan it with the version of transferkit that runs it"
        raise InvalidPlanError(f"a plan is {SCHEMA} here (transferkit {__version__}), and this says {shown}: {hint}")
    if unknown := sorted(document.keys() - {*_TEXTS, *_LISTS}):
        raise InvalidPlanError(f"the plan has {', '.join(map(repr, unknown))[:200]}, which nobody here knows")
    if missing := [name for name in ("kind", "source", "blobs") if name not in document]:
        raise InvalidPlanError(f"the plan has no {missing[0]}")
    fields: dict[str, Any] = {name: document[name] for name in _TEXTS if name in document}
    fields.update({name: tuple(_listed(document, name, checks.MOST_PATTERNS)) for name in _PATTERNS})
    fields["blobs"] = _blobs(_listed(document, "blobs", checks.MOST))
    fields["ranges"] = _ranges(_listed(document, "ranges", checks.MOST))
    fields["documents"] = _documents(_listed(document, "documents", checks.MOST))
    return fields


def _parse(text: str | bytes) -> dict[str, Any]:
    if not isinstance(text, str | bytes):
        raise TypeError(f"a plan is a text, not {type(text).__name__}")
    try:
        document = json.loads(text, parse_constant=no_constant, object_pairs_hook=_once)
    except InvalidPlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidPlanError(f"the plan is not JSON: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise InvalidPlanError(f"the plan is not a JSON object but {type(document).__name__}")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: two readers might take the plan for two things."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidPlanError("the plan has a field twice")
    return found


def _listed(document: dict[str, Any], name: str, most: int) -> list[Any]:
    found = document.get(name, [])
    if not isinstance(found, list):
        raise InvalidPlanError(f"the plan's {name} are not a list")
    if len(found) > most:
        raise InvalidPlanError(f"the plan has {len(found)} {name}; at most {most} are taken: make several plans")
    return found


def _blobs(rows: Iterable[Any]) -> tuple[Descriptor, ...]:
    try:
        return tuple([Descriptor(digest, size) for digest, size in rows])
    except (InvalidDigestError, InvalidDescriptorError) as error:
        raise InvalidPlanError(f"a blob of the plan is none: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidPlanError("a blob of the plan is not a digest and a size") from error


def _ranges(rows: Iterable[Any]) -> tuple[BlobRange, ...]:
    try:
        return tuple([BlobRange(Descriptor(digest, size), Chunk(start, end)) for digest, size, start, end in rows])
    except (InvalidDigestError, InvalidDescriptorError) as error:
        raise InvalidPlanError(f"a range of the plan is none: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidPlanError("a range of the plan is not a digest, a size, its first and its last byte") from error


def _documents(rows: Iterable[Any]) -> tuple[bytes, ...]:
    try:
        return tuple([base64.b64decode(row, validate=True) for row in rows])
    except (binascii.Error, TypeError, ValueError) as error:
        raise InvalidPlanError("a document of the plan is not base64") from error
