"""The upload endpoints: mounting, one request, parts.

Knows the rules of the specification and the headers; the bytes are the business of
:mod:`~transferkit.server.sessions`. Source: OCI distribution specification v1.1, "Pushing blobs".
"""

from __future__ import annotations

import base64
import re

from werkzeug.wrappers import Request

from transferkit.content.digest import HEX_LENGTHS, Digest
from transferkit.server.answers import Answer, Refusal, origin_for
from transferkit.server.blobs import location_of
from transferkit.server.incoming import Incoming
from transferkit.server.sessions import Session, Sessions
from transferkit.server.store import Repository

_CONTENT_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})\Z", re.ASCII)
_STATE = re.compile(r"([0-9a-f-]{36}) ([0-9]{1,19})(?: (sha(?:256|512):[0-9a-f]{64,128}))?\Z", re.ASCII)


def begin(sessions: Sessions, repository: Repository, request: Request) -> Answer:
    """``POST``: mount a blob, take it whole, or begin a session."""
    incoming = Incoming(request.environ)
    if "mount" in request.args:
        digest = Digest(request.args["mount"])
        # Without "from" a registry may look everywhere; this one does not tell a stranger what other repositories have.
        source = request.args.get("from")
        if source is not None and repository.store.repository(source).has_blob(digest):
            repository.link_blob(digest)
            return _created(repository, digest)
    elif "digest" in request.args:
        digest = Digest(request.args["digest"])
        if not incoming and digest != Digest.of(b"", digest.algorithm):
            return _asked(sessions, repository, request, digest)
        session = sessions.begin(repository, digest.algorithm)
        try:
            with session.held():
                session.writer.append(incoming.blocks())
                session.finish(digest)
        finally:
            sessions.end(session)
        return _created(repository, digest)
    return _begun(request, sessions.begin(repository, _algorithm(request)))


def _asked(sessions: Sessions, repository: Repository, request: Request, digest: Digest) -> Answer:
    """Answer an empty ``POST ?digest=``, with which Ollama asks whether a blob is here, and where it goes if not."""
    if repository.has_blob(digest):
        # Without a Location: Ollama's client sends the blob to whatever stands there.
        return Answer(201, {"Docker-Content-Digest": digest})
    return _begun(request, sessions.begin(repository, digest.algorithm), digest)


def _begun(request: Request, session: Session, digest: Digest | None = None) -> Answer:
    session.writer.close()
    return Answer(202, _progress(request, session, 0, digest))


def status(sessions: Sessions, repository: Repository, request: Request, identifier: str) -> Answer:
    """``GET``: how far the upload is."""
    session = sessions.find(repository, identifier)
    _, digest = _state(request, session)
    return Answer(204, _progress(request, session, session.size, digest))


def append(sessions: Sessions, repository: Repository, request: Request, identifier: str) -> Answer:
    """``PATCH``: the next part, or, without ``Content-Range``, a stream of whatever length."""
    session = sessions.find(repository, identifier)
    incoming = Incoming(request.environ)
    with session.held() as size:
        digest = _check_position(request, session, incoming, size)
        session.writer.append(incoming.blocks())
        return Answer(202, _progress(request, session, session.size, digest))


def finish(sessions: Sessions, repository: Repository, request: Request, identifier: str) -> Answer:
    """``PUT``: what is still missing, if anything, and the digest of it all, unless the location has it."""
    session = sessions.find(repository, identifier)
    digest = Digest(request.args.get("digest") or _state(request, session)[1] or "")
    incoming = Incoming(request.environ)
    with session.held() as size:
        if incoming:
            _check_position(request, session, incoming, size)
            session.writer.append(incoming.blocks())
        else:
            _state(request, session)
        # From here on there is nothing to resume: the content is the promised one, or it never will be. And a disk that
        # could not sync says so once: a second try would pass without a word.
        try:
            session.finish(digest)
        finally:
            sessions.end(session)
    return _created(repository, digest)


def cancel(sessions: Sessions, repository: Repository, request: Request, identifier: str) -> Answer:
    """``DELETE``: forget it."""
    session = sessions.find(repository, identifier)
    _state(request, session)
    with session.held():
        sessions.end(session)
    return Answer(204)


def _created(repository: Repository, digest: Digest) -> Answer:
    return Answer(201, {"Location": location_of(repository, digest), "Docker-Content-Digest": digest})


def _algorithm(request: Request) -> str:
    """Return the algorithm that the client means to name in the end; it may still name another one."""
    algorithm = request.args.get("digest-algorithm", "sha256")
    if algorithm not in HEX_LENGTHS:
        raise Refusal(400, "DIGEST_INVALID", f"this registry knows the algorithms {' and '.join(HEX_LENGTHS)}")
    return algorithm


def _progress(request: Request, session: Session, size: int, digest: Digest | None = None) -> dict[str, str]:
    # The state names the offset, as the reference implementation has it: a client that sends a body again to an old
    # location after part of it has arrived is told so, instead of having it appended. Its padding is percent-encoded:
    # a client that drops the query, or takes it apart and encodes it anew, does not get far. What an upload was begun
    # for stands there too: Ollama's client does not say it again.
    words = filter(None, (session.identifier, str(size), digest))
    state = base64.b64encode(" ".join(words).encode()).decode("ascii")
    state = state.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")  # urllib's quote is ten times as slow
    path = f"/v2/{session.repository.name}/blobs/uploads/{session.identifier}"
    return {
        "Location": f"{origin_for(request)}{path}?_state={state}",
        "Docker-Upload-UUID": session.identifier,
        "Range": f"0-{max(size - 1, 0)}",  # the reference implementation says 0-0 for nothing, and clients expect it
    }


def _state(request: Request, session: Session) -> tuple[int, Digest | None]:
    """Return the offset that the location in the request was given out for, and the digest that it was begun for."""
    try:
        state = base64.b64decode(request.args.get("_state", ""), validate=True).decode("ascii")
    except ValueError:
        state = ""
    match = _STATE.match(state)
    if match is None or match[1] != session.identifier:
        raise Refusal(
            400, "BLOB_UPLOAD_INVALID", "the location is not as it was given out: its query is missing or changed"
        )
    return int(match[2]), None if match[3] is None else Digest(match[3])


def _check_position(request: Request, session: Session, incoming: Incoming, size: int) -> Digest | None:
    """Hold a part to where the upload is, ``size``, and return the digest that it was begun for."""
    position, digest = _state(request, session)
    text = request.headers.get("Content-Range")
    if text is not None:
        match = _CONTENT_RANGE.match(text)
        if match is None or int(match[2]) < int(match[1]):
            raise Refusal(400, "BLOB_UPLOAD_INVALID", "Content-Range is not <start>-<end>")
        position = int(match[1])
    if position != size:
        raise Refusal(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the upload has {size} bytes, and this goes on at {position}",
            headers=_progress(request, session, size, digest),
        )
    if text is not None and match is not None:
        incoming.expect(int(match[2]) - int(match[1]) + 1)
    return digest
