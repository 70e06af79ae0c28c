"""Where the requests of one repository go, whose turn it is to ask, and whether it has a blob."""

from __future__ import annotations

from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import RegistryError
from transferkit.names import check_repository
from transferkit.protocol import routes
from transferkit.transport.client import Client
from transferkit.transport.flight import SingleFlight
from transferkit.transport.request import Request


class Endpoint:
    """One repository as its requests see it. A ``name`` that is none is an InvalidNameError."""

    __slots__ = ("blobs", "client", "first_list", "name", "read", "write")

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = check_repository(name)
        self.blobs = routes.blobs(name)  # the path that a digest is appended to
        self.first_list = SingleFlight()  # the turn to ask for a first list of chunks
        self.read = partial(Request, scope=routes.pull_scope(name))
        self.write = partial(Request, scope=routes.push_scope(name))

    def exists(self, descriptor: Descriptor, flow: Flow, *, uploading: bool = False) -> bool:
        """Tell whether the repository says that it has a blob. ``uploading``: where it will not say, the blob is sent.

        Raises:
            RegistryError: any answer but "here" and "not here"; a server error says nothing about the blob.
        """
        digest = descriptor.digest
        make = self.write if uploading else self.read
        # 405: a registry without HEAD
        request = make(method="HEAD", url=self.blobs + digest, ok=(200, 404, 405), subject=digest.short)
        try:
            response = self.client.send(request, flow)
        except RegistryError as error:
            if not uploading or error.retryable or error.status in (429, 503):
                raise
            return False
        response.finish()
        # Portals say 200 to everything, with no length or with that of a page.
        length, said = (response.headers.get(name, "") for name in ("content-length", "docker-content-digest"))
        if response.status != 200 or "html" in response.headers.get("content-type", ""):
            return False
        if said != digest and said.startswith(digest.algorithm):
            return False
        return length == str(descriptor.size) if length else said == digest
