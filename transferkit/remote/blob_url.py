"""Where the parts of one blob are asked for: found once for all threads, and once again when it has expired."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Flow
from transferkit.errors import BlobNotFoundError, ConnectError, RegistryError, SizeMismatchError
from transferkit.protocol.origin import Origin, redact, target_of
from transferkit.protocol.ranges import RangeRefused, VersionChanged
from transferkit.protocol.routes import EXPIRED
from transferkit.remote.body import BlobBody, open_body, strong_tag
from transferkit.remote.endpoint import Place
from transferkit.remote.proof import WHOLE
from transferkit.transport.flight import SingleFlight
from transferkit.transport.request import Request
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)

_OK = (*WHOLE, 206, 412, 416)


@dataclass(slots=True, eq=False)
class Target:
    """One URL of the blob."""

    url: str
    foreign: bool  # on another origin than the registry: it may expire
    etag: str | None = None


class BlobURL:
    """The URL of one blob, whichever it is at the moment. Thread-safe: one for all who fetch parts of the blob.

    The storage that the registry redirects to is kept only where it is on another origin: it is asked without
    credentials then. What stays on the registry's own goes through the registry each time.
    """

    def __init__(self, endpoint: Place, descriptor: Descriptor) -> None:
        self.endpoint = endpoint
        self.descriptor = descriptor
        self.subject = descriptor.digest.short
        self.target: Target | None = None  # where the parts are asked for; None while nobody knows
        self.has_ranges = False  # a part has come already
        self.pins = True  # the ETag of the first part has to be that of all
        self._turn = SingleFlight()  # to look for the target
        self._lock = threading.Lock()  # on the ETag of a target
        self._home = endpoint.home(descriptor.digest)
        self._listed: str | None = None

    def fetch(self, chunk: Chunk, flow: Flow) -> BlobBody:
        """Open the bytes of ``chunk``, or all of the blob where the server sends that: its ``offset`` is 0 then.

        Raises RangeRefused, SizeMismatchError, or ProtocolError: it is no blob, or another version (VersionChanged).
        """
        send, target, response = self.endpoint.client.send, self.target, None
        if target is not None:
            try:
                return self._open(send(self.request(chunk, target), flow), target, chunk)
            except RegistryError as error:
                if not target.foreign or error.status not in EXPIRED:
                    raise
                logger.debug("%s: %s answers %d; resolved again", self.subject, redact(target.url), error.status)
            except ConnectError:
                if target.foreign and self.target is target:
                    self.target = None  # the registry may know another
                raise
        with self._turn.turn(flow):
            expired, target = target, self.target
            if target is None or target is expired:
                response = send(self.request(chunk), flow)
                target = self._found(response)
        if response is None:  # another thread has found the target meanwhile
            response = send(self.request(chunk, target), flow)
        return self._open(response, target, chunk)

    def request(self, chunk: Chunk, target: Target | None = None) -> Request:
        """Return the request for a part: to ``target``, else to the registry."""
        headers = {"Range": f"bytes={chunk}"}
        if target is not None and target.etag is not None:
            headers["If-Match"] = target.etag
        url = self._home if target is None else target.url
        return self.endpoint.read(
            method="GET",
            url=url,
            ok=_OK,
            headers=headers,
            subject=self.subject,
            missing=BlobNotFoundError,
            is_content=True,
        )

    def _found(self, response: Response) -> Target:
        """Take in where the registry has led to, and return it."""
        foreign = Origin.of(response.url) != self.endpoint.client.origin
        target = Target(response.url if foreign else self._home, foreign)
        if response.status == 206:
            self.check_version(target, response.headers.get("etag"))  # before anybody else asks there
        self.target = target
        return target

    def _open(self, response: Response, target: Target, chunk: Chunk) -> BlobBody:
        size = self.descriptor.size
        if response.status in WHOLE or response.status == 206:
            body = open_body(response, chunk.start, chunk.end, self.descriptor)
            if response.status != 206:
                return body
            if self.check_version(target, response.headers.get("etag")):
                self.has_ranges = True
                return body
        response.close()
        if response.status == 416:
            said = response.headers.get("content-range", "")
            if said.startswith("bytes */") and said != f"bytes */{size}":
                text = f"{self.subject}: {response.origin} has {said[8:40]} bytes of it, expected {size}"
                raise SizeMismatchError(text)
            raise RangeRefused(f"{self.subject}: {response.origin} refuses the bytes {chunk} of {size} (416)")
        # Or 412. Without If-Match from now on: mirrors with tags of their own would refuse again and again. Whether it
        # was another version, the digest of the whole tells; whoever has none hears of it (registry.tensor_files).
        self.pins, target.etag = False, None
        text = f"{self.subject}: {response.origin} has another version of it now than for the first part"
        raise VersionChanged(text, retryable=True)

    def check_version(self, target: Target, etag: str | None) -> bool:
        """Pin the first strong ``ETag`` of a target, and tell whether this one is the same."""
        tag = strong_tag(etag)
        if tag is None or not self.pins:
            return True
        with self._lock:  # of two that come at once, of different versions, one is refused
            if target.etag is None:
                target.etag = tag
            return target.etag == tag

    def follow(self, url: str) -> None:
        """Ask where the list says. A URL that was followed before is not gone back to: it may have expired."""
        if url == self._listed:
            return
        self._listed = url
        if Origin.of(url) != self.endpoint.client.origin:
            self.target = Target(url, foreign=True)
        elif self._home != target_of(url):
            self._home, self.target = url, None
