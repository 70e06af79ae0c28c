"""Where the requests of one repository go, whose turn it is to ask, and whether it has a blob."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import (
    BlobNotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.grammar import WIDE, Grammar, check_repository
from transferkit.protocol import routes
from transferkit.remote.proof import EXISTS, SUCCESS, WHOLE, Questions, contradicts, is_page, is_there
from transferkit.transport.client import Client
from transferkit.transport.flight import SingleFlight
from transferkit.transport.request import Request


class Place(Protocol):
    """Where blobs are fetched from, as their requests see it. Thread-safe."""

    client: Client
    questions: Questions
    read: Callable[..., Request]
    """Makes a request that only reads."""

    def home(self, digest: Digest) -> str:
        """Return where a blob is asked for: a path of the server, or an absolute URL. BlobNotFoundError: nowhere."""


class Endpoint:
    """One repository as its requests see it. A ``name`` that is none by its ``grammar`` is an InvalidNameError."""

    __slots__ = ("blobs", "client", "first_list", "grammar", "name", "questions", "read", "write")

    def __init__(self, client: Client, name: str, grammar: Grammar = WIDE) -> None:
        self.client = client
        self.grammar = grammar
        self.name = check_repository(name, grammar)
        self.blobs = routes.blobs(name)  # the path that a digest is appended to
        self.first_list = SingleFlight()  # the turn to ask for a first list of chunks
        self.questions = Questions()
        self.read: Callable[..., Request] = partial(Request, scope=routes.pull_scope(name))
        self.write = partial(Request, scope=routes.push_scope(name))

    def home(self, digest: Digest) -> str:
        """Return the path of a blob."""
        return self.blobs + digest

    def exists(self, descriptor: Descriptor, flow: Flow, *, uploading: bool = False) -> bool:
        """Tell whether the repository has a blob; RegistryError: it does not say. ``uploading``: that is a no then."""
        digest = descriptor.digest
        make = self.write if uploading else self.read
        # 405: a registry without HEAD
        request = make(method="HEAD", url=self.blobs + digest, ok=(200, 404, 405), subject=digest.short)
        if uploading and self.questions.failures and self.questions.is_spent(EXISTS, digest, flow):
            return False
        try:
            response = self.client.send(request, flow)
        except TransferKitError as error:
            if not uploading:
                raise
            self.questions.go_without(error, EXISTS, digest, flow)
            return False
        response.finish()
        return is_there(response, descriptor)

    def describe(self, digest: Digest, flow: Flow) -> Descriptor:
        """Ask how large a blob is: by ``HEAD``, and where the answer does not say it, by the head of ``GET``.

        Raises:
            BlobNotFoundError: the repository has no such blob.
            ProtocolError: nobody says how large it is.
        """
        for method in ("HEAD", "GET"):
            request = self.read(
                method=method, url=self.home(digest), ok=SUCCESS, subject=digest.short, missing=BlobNotFoundError
            )
            try:
                with self.client.send(request, flow) as response:
                    length = response.headers.get("content-length", "")
                    if response.status in WHOLE and not is_page(response) and not contradicts(response, digest):
                        size = int(length)
                        if size or digest.matches(digest.hasher()):  # nothing is the content of one digest alone
                            return Descriptor(digest, size)
            except (RegistryError, ValueError) as error:
                # A storage host may take no HEAD at all, or no answer may have a length.
                if method == "GET" or isinstance(error, (UnauthorizedError, RateLimitedError)):
                    raise
        raise ProtocolError(f"{self.client.origin} does not say how large {digest.short} is")
