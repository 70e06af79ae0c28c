"""What an answer proves, and which answers the job can do without: the two rules for every request of a repository.

1. Success is believed only with proof: a blob is there, mounted or stored, and a manifest pushed, where the registry
   says so in its own terms. A page of a proxy proves nothing, whatever its status.
2. A request that the job can do without never fails the job. Whatever is not plainly a yes means "not known", and the
   plain way is taken.

``docs/requests.rst`` lists every request with what its answers mean.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import (
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
    SizeMismatchError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.protocol.upload import announced
from transferkit.transport.response import Response

# The questions that the job can do without; a list of chunks has attempts of its own (``transfer.copy``).
EXISTS, MOUNT, RANGE, STATUS = "HEAD", "mount", "range", "status"
SUCCESS = range(200, 300)  # no refusals; what they prove, the functions below say
WHOLE = (200, 203)  # all of a blob or manifest; 203 comes from proxies that have changed something, if only a field
_ATTEMPTS = 3  # at one question about one blob
_ATTEMPTS_BROKEN = 5  # at a range of a blob that is here in part, where no answer came: to begin anew loses that part
_UNANSWERED = (ReadError, WriteError, TransportTimeout)


def is_page(response: Response) -> bool:
    """Tell whether the answer is a page, as portals and proxies make them, and no registry's."""
    headers = response.headers
    return "content-type" in headers and "html" in headers["content-type"].lower()


def contradicts(response: Response, digest: Digest) -> bool:
    """Tell whether the answer names another digest of the same algorithm."""
    if response.headers.get("docker-content-digest") == digest:
        return False
    said = announced(response.headers)
    return said is not None and said != digest and said.algorithm == digest.algorithm


def is_there(response: Response, descriptor: Descriptor) -> bool:
    """Tell whether the answer to a ``HEAD`` says that the blob is there: its length fits, else its digest does."""
    digest, headers = descriptor.digest, response.headers
    length, said = headers.get("content-length", ""), headers.get("docker-content-digest", "")
    if response.status != 200 or is_page(response) or (said != digest and said.startswith(digest.algorithm)):
        return False
    return length == str(descriptor.size) if length else said == digest


def is_mounted(response: Response, digest: Digest) -> bool:
    """Tell whether the answer to a mount says that the blob is in the repository now."""
    return response.status == 201 and not is_page(response) and not contradicts(response, digest)


def is_stored(response: Response, digest: Digest) -> bool:
    """Tell whether the answer to the request that ends an upload, or to a manifest, says that it is stored.

    201 is the specification's word. 200 and 204 come from registries before it.
    """
    return response.status in (200, 201, 204) and not is_page(response) and not contradicts(response, digest)


class Questions:
    """The requests that the job can do without, and how often each has failed for a blob.

    Each worker, known by its flow, counts what it has tried itself: several may hear of one failure. Thread-safe.
    """

    def __init__(self) -> None:
        self.failures: dict[tuple[str, Digest, int], int] = {}

    def is_spent(self, question: str, digest: Digest, flow: Flow) -> bool:
        """Tell whether a question has failed often enough not to be asked any more."""
        return self.failures.get((question, digest, id(flow)), 0) >= _ATTEMPTS

    def answered(self, question: str, digest: Digest, flow: Flow) -> None:
        """Take in that a question was answered after all."""
        self.failures.pop((question, digest, id(flow)), None)

    def go_without(
        self, error: TransferKitError, question: str, digest: Digest, flow: Flow, *, costly: bool = False
    ) -> None:
        """Return where the job goes on without an answer, and raise the error where it does not.

        A refusal is an answer. Trouble (5xx, 429, silence, a cut connection) is raised twice, so that the retry loop
        waits and the controller hears of it; the third time, the job goes on without. ``costly``: that would throw
        away what is here of the blob. A host that wants to be left alone for longer than the user waits, and
        whatever concerns more than the one request (no connection, a certificate, a cancelled call), is raised.
        """
        if not isinstance(error, (RegistryError, NotFoundError, ProtocolError, SizeMismatchError, *_UNANSWERED)):
            raise error
        if not error.retryable:
            if isinstance(error, RegistryError) and error.status in (429, 503):
                raise error
            return
        key = (question, digest, id(flow))
        self.failures[key] = count = self.failures.get(key, 0) + 1
        if count < (_ATTEMPTS_BROKEN if costly and isinstance(error, _UNANSWERED) else _ATTEMPTS):
            raise error
