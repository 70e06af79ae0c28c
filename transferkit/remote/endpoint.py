"""Where the requests of one repository go, and what they have in common."""

from __future__ import annotations

from functools import partial

from transferkit.names import check_repository
from transferkit.protocol import routes
from transferkit.remote.single_flight import SingleFlight
from transferkit.transport.client import Client
from transferkit.transport.request import Request


class Endpoint:
    """One repository as its requests see it: ``read`` and ``write`` make each of them, with its scope. Immutable.

    ``blobs`` is the path that a digest is appended to; ``first_list`` is the turn to ask for a first list of chunks. A
    ``name`` that is none is an InvalidNameError.
    """

    __slots__ = ("blobs", "client", "first_list", "name", "read", "write")

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = check_repository(name)
        self.blobs = routes.blobs(name)
        self.first_list = SingleFlight()
        self.read = partial(Request, scope=routes.pull_scope(name))
        self.write = partial(Request, scope=routes.push_scope(name))
