"""The manifest endpoints, and what is computed from manifests: tags and referrers.

Knows what a manifest must hold for a registry to take it; keeps its bytes exactly as they came.
Source: OCI distribution specification v1.1; OCI image specification v1.1, manifest.md and image-index.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from werkzeug.wrappers import Request

from transferkit.content.digest import Digest
from transferkit.content.manifest import DOCKER_MANIFEST, NO_CONFIG, OCI_INDEX, OCI_MANIFEST, finite, no_constant
from transferkit.errors import InvalidDigestError, InvalidNameError
from transferkit.grammar import check_reference
from transferkit.server.answers import Answer, Refusal, json_answer
from transferkit.server.incoming import Incoming
from transferkit.server.limits import Limits
from transferkit.server.store import Repository

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}\Z", re.ASCII)


def read(repository: Repository, request: Request, reference: str) -> Answer:
    """``GET`` and ``HEAD``."""
    found = repository.manifest(_reference(reference))
    if found is None:
        raise _unknown(reference)
    digest, media_type, raw = found
    headers = {"ETag": f'"{digest}"', "Docker-Content-Digest": digest}
    if "HTTP_IF_NONE_MATCH" in request.environ and request.if_none_match.contains_weak(digest):
        return Answer(304, headers)
    return Answer(200, {**headers, "Content-Type": media_type}, raw)


def put(repository: Repository, request: Request, reference: str, *, limits: Limits, sparse: bool) -> Answer:
    """``PUT``: by tag, or by digest, which must be the one of the bytes, and then with any tags in the query.

    ``sparse``: what the manifest names need not be here.
    """
    target = _reference(reference)
    tags = list(dict.fromkeys(map(_tag, request.args.getlist("tag"))))
    if len(tags) > limits.tags:
        raise Refusal(414, "TAG_INVALID", f"a manifest takes at most {limits.tags} tags at once")
    raw = Incoming(request.environ).whole(limits.manifest)
    document = _parse(raw)
    digest = Digest.of(raw, target.algorithm if isinstance(target, Digest) else "sha256")
    if isinstance(target, Digest) and target != digest:
        raise Refusal(400, "DIGEST_INVALID", "the manifest has another digest", detail={"digest": digest})
    media_type = _media_type(request, document)
    try:
        _check_references(repository, document, sparse=sparse)
        subject = Digest(_object(document["subject"])["digest"]) if document.get("subject") is not None else None
    except (InvalidDigestError, KeyError) as error:
        raise _invalid(f"a descriptor has no valid digest: {error}") from error
    names = tags if isinstance(target, Digest) else [target, *tags]
    repository.put_manifest(digest, media_type, raw, tags=names, subject=subject)
    headers = {"Location": f"/v2/{repository.name}/manifests/{digest}", "Docker-Content-Digest": digest}
    if subject is not None:
        headers["OCI-Subject"] = (
            subject  # "it is in the referrers": without it, clients keep a tag for the same purpose
        )
    return Answer(201, headers, more=[("OCI-Tag", tag) for tag in tags])


def delete(repository: Repository, reference: str) -> Answer:
    """``DELETE``: a tag alone, or a manifest with all its tags."""
    target = _reference(reference)
    gone = repository.remove_manifest(target) if isinstance(target, Digest) else repository.remove_tag(target)
    if not gone:
        raise _unknown(reference)
    return Answer(202)


def tags(repository: Repository, request: Request, *, page: int) -> Answer:
    """``GET .../tags/list``, after ``last``, ``n`` of them and at most a ``page``."""
    if not repository.exists():
        raise Refusal(404, "NAME_UNKNOWN", "there is no such repository", detail={"name": repository.name})
    return tag_page(repository.name, repository.tags(), request, page=page)


def tag_page(name: str, tags: Iterable[str], request: Request, *, page: int) -> Answer:
    """Answer with those of a repository's sorted tags that were asked for, at most a ``page`` of them."""
    last = request.args.get("last", "")
    found = [tag for tag in tags if tag > last]
    count = request.args.get("n", str(page))
    if _COUNT.match(count) is None:
        raise Refusal(400, "PAGINATION_NUMBER_INVALID", "n is not a number")
    shown = found[: min(int(count), page)]
    headers = {}
    if shown and len(shown) < len(found):
        query = urlencode({"n": count, "last": shown[-1]})
        headers["Link"] = f'</v2/{name}/tags/list?{query}>; rel="next"'
    return json_answer({"name": name, "tags": shown}, headers=headers)


def referrers(repository: Repository, request: Request, subject: Digest) -> Answer:
    """``GET .../referrers/<digest>``: an index of the manifests that name it as their subject.

    What they say of themselves is read from them, so that there is no second list which could be wrong.
    """
    wanted = request.args.get("artifactType")
    entries = []
    for digest in repository.referrers(subject):
        found = repository.manifest(digest)
        if found is None:  # removed meanwhile
            continue
        _, media_type, raw = found
        kind, annotations = _described(raw)
        if wanted is not None and kind != wanted:
            continue
        entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
        more = {"artifactType": kind, "annotations": annotations}
        entries.append(entry | {key: value for key, value in more.items() if value is not None})
    return json_answer(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries},
        headers=None if wanted is None else {"OCI-Filters-Applied": "artifactType"},
        media_type=OCI_INDEX,
    )


def _described(raw: bytes) -> tuple[str | None, dict[str, str] | None]:
    """Return what a manifest says of itself: its kind, and its annotations, as far as they are texts.

    What they are otherwise may be nested so deeply that it can be read, but not written into another document.
    """
    try:
        document = _parse(raw)
    except Refusal:  # it was read on its way in, with less on the stack
        return None, None
    kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
    annotations = document.get("annotations")
    if isinstance(annotations, dict):
        annotations = {key: value for key, value in annotations.items() if isinstance(value, str)}
    return (kind if isinstance(kind, str) else None), (annotations if isinstance(annotations, dict) else None)


def _reference(text: str) -> str:
    try:
        return check_reference(text)
    except InvalidNameError as error:
        raise Refusal(400, "TAG_INVALID", str(error)) from error


def _tag(text: str) -> str:
    tag = _reference(text)
    if isinstance(tag, Digest):
        raise Refusal(400, "TAG_INVALID", "a tag is no digest")
    return tag


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        # Decoded here: json would guess UTF-16 from bytes. RecursionError: "[[[[..." is cheap to send.
        return _object(json.loads(raw.decode("utf-8"), parse_constant=no_constant, parse_float=finite))
    except (ValueError, RecursionError) as error:
        raise _invalid("it is not JSON in UTF-8") from error


def _media_type(request: Request, document: dict[str, Any]) -> str:
    own = document.get("mediaType")
    given = request.headers.get("Content-Type", "").partition(";")[0].strip()
    media_type = given or own or _usual_type(document)
    if not isinstance(media_type, str) or _MEDIA_TYPE.match(media_type) is None:
        raise _invalid("its media type is none")
    if own is not None and own != media_type:
        raise _invalid("its mediaType is not its Content-Type")  # CVE-2021-41190: one document, two meanings
    return media_type


def _usual_type(document: dict[str, Any]) -> str:
    if "manifests" in document:
        return OCI_INDEX
    # One of Ollama's clients says nowhere what it pushes, and all of them ask for Docker's type alone.
    types = [_object(layer).get("mediaType") for layer in _array(document.get("layers"))]
    is_ollamas = any(isinstance(kind, str) and kind.startswith("application/vnd.ollama.") for kind in types)
    return DOCKER_MANIFEST if is_ollamas else OCI_MANIFEST


def _check_references(repository: Repository, document: dict[str, Any], *, sparse: bool) -> None:
    missing = [digest for digest in _blobs(document) if not repository.has_blob(digest)]
    missing += [digest for digest in _children(document) if not repository.has_manifest(digest)]
    if missing and not sparse:
        message = "the manifest names content that the repository does not have"
        raise Refusal(404, "MANIFEST_BLOB_UNKNOWN", message, detail=[{"digest": digest} for digest in missing])


def _blobs(document: dict[str, Any]) -> Iterator[Digest]:
    config = document.get("config")
    if config is not None and _object(config).get("digest") != NO_CONFIG:
        yield Digest(config["digest"])
    for layer in _array(document.get("layers")):
        if not _object(layer).get("urls"):  # a foreign layer lives elsewhere
            yield Digest(layer["digest"])


def _children(document: dict[str, Any]) -> Iterator[Digest]:
    for child in _array(document.get("manifests")):
        yield Digest(_object(child)["digest"])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid("a JSON object was expected")
    return value


def _array(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid("a JSON array was expected")
    return value


def _invalid(why: str) -> Refusal:
    return Refusal(400, "MANIFEST_INVALID", f"the manifest is invalid: {why}")


def _unknown(reference: str) -> Refusal:
    return Refusal(404, "MANIFEST_UNKNOWN", "there is no such manifest", detail={"reference": reference})
