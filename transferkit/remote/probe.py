"""Whether a repository has a blob, and whether asking for that pays.

A question costs a request, a third of what a small blob takes. Once a row of blobs were not there, small ones are sent
unasked, but for one in a while; the first that is there brings the questions back.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import RegistryError
from transferkit.remote.endpoint import Endpoint

SMALL = 1024 * 1024  # bytes: what is larger costs more to send in vain than to ask for
ENOUGH = 16  # that were not there, one after the other
EACH = 16  # of those that would be sent unasked, one is asked for


class ExistenceProbe:
    """What one repository has answered in one call. Thread-safe: a count that is off by one costs a request."""

    def __init__(self) -> None:
        self.absent = 0  # blobs that were not there, one after the other
        self._unasked = 0

    def pays(self, descriptor: Descriptor) -> bool:
        """Tell whether to ask for a blob."""
        if descriptor.size > SMALL or self.absent < ENOUGH:
            return True
        self._unasked += 1
        return self._unasked % EACH == 0


def exists(endpoint: Endpoint, descriptor: Descriptor, flow: Flow, *, uploading: bool = False) -> bool:
    """Tell whether a repository says that it has the blob. ``uploading``: where it refuses to say so, the blob is sent.

    Raises:
        RegistryError: any answer but "here" and "not here"; a server error says nothing about the blob.
    """
    digest = descriptor.digest
    request = (endpoint.write if uploading else endpoint.read)(
        method="HEAD",
        url=endpoint.blobs + digest,
        ok=(200, 404, 405),  # 405: a registry without HEAD
        subject=digest.short,
    )
    try:
        with endpoint.client.send(request, flow) as response:
            response.finish()
    except RegistryError as error:
        if not uploading or error.retryable or error.status in (429, 503):
            raise
        return False
    # Portals say 200 to everything, with no length or with that of a page.
    length, said = (response.headers.get(name, "") for name in ("content-length", "docker-content-digest"))
    if response.status != 200 or "html" in response.headers.get("content-type", ""):
        return False
    if said != digest and said.startswith(digest.algorithm):
        return False
    return length == str(descriptor.size) if length else said == digest
