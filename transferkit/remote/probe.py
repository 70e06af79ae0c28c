"""Whether a repository has a blob, and whether asking for that pays.

A question costs a request, a third of what a small blob takes. Once a row of blobs were not there, small ones are sent
unasked, but for one in a while; the first that is there brings the questions back.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.protocol.upload import is_another
from transferkit.remote.endpoint import Endpoint
from transferkit.transport.response import Response

SMALL = 1024 * 1024  # bytes: what is larger costs more to send in vain than to ask for
ENOUGH = 16  # that were not there, one after the other
EACH = 16  # of those that would be sent unasked, one is asked for


class ExistenceProbe:
    """What one repository has answered in one call. Thread-safe: a count that is off by one costs a request."""

    def __init__(self) -> None:
        self._absent = 0
        self._unasked = 0

    def pays(self, descriptor: Descriptor) -> bool:
        """Tell whether to ask for a blob."""
        if descriptor.size > SMALL or self._absent < ENOUGH:
            return True
        self._unasked += 1
        return self._unasked % EACH == 0

    def heard(self, *, is_there: bool) -> None:
        """Take in an answer."""
        self._absent = 0 if is_there else self._absent + 1

    def begin_again(self) -> None:
        """Ask again: something went wrong, and nobody knows what the registry has now."""
        self._absent = 0


def exists(endpoint: Endpoint, descriptor: Descriptor, flow: Flow, *, writes: bool = False) -> bool:
    """Tell whether a repository says that it has the blob. ``writes``: with the permission of the upload that follows.

    Raises:
        RegistryError: any answer but "here" and "not here"; a server error says nothing about the blob.
    """
    request = (endpoint.write if writes else endpoint.read)(
        method="HEAD",
        url=endpoint.blobs + descriptor.digest,
        ok=(200, 404, 405),  # 405: a registry without HEAD. The upload that follows asks again, in its own words.
        subject=descriptor.digest.short,
    )
    with endpoint.client.send(request, flow) as response:
        response.finish()
        return response.status == 200 and _fits(response, descriptor)


def _fits(response: Response, descriptor: Descriptor) -> bool:
    """Tell whether a 200 speaks of this blob: portals say it to everything, with no length or that of a page."""
    length, digest = (response.headers.get(name) for name in ("content-length", "docker-content-digest"))
    if is_another(digest, descriptor.digest) or "html" in response.headers.get("content-type", ""):
        return False
    return digest == descriptor.digest if length is None else length.strip() == str(descriptor.size)
