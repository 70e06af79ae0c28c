"""The pump: the only loop that copies bytes from a source to a target on disk, for whole blobs and for chunks."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Hasher
from transferkit.content.interfaces import Body, Fetcher, Ingest, Ingester, Outcome
from transferkit.errors import DigestMismatchError, SizeMismatchError, TransferKitError
from transferkit.transfer.flow import WorkerFlow

# Seconds that what has arrived waits in the buffer at most for more: others may read the file while it is filled.
_SOON = 1.0


class Span:
    """The bytes of a blob from ``start`` to ``end``, not inclusive, on their way; those before ``at`` have arrived.

    They are in place at once, but for those of a span with a ``hasher``: it gets to see them, and who owns it says that
    they are in place once it has found them right; until then they are there unverified. One thread's.
    """

    __slots__ = ("at", "end", "hasher", "ingest", "start")

    def __init__(self, ingest: Ingest, start: int, end: int) -> None:
        self.ingest = ingest
        self.start = self.at = start
        self.end = end
        self.hasher: Hasher | None = None

    def write(self, data: memoryview) -> None:
        """Put the next bytes in their place; StorageError where the disk refuses."""
        at = self.at
        end = at + len(data)
        if self.hasher is None:
            self.ingest.write_at(at, data)
            self.ingest.record(at, end - 1)
        else:
            self.ingest.write_at(at, data, final=False)
            self.hasher.update(data)
            self.ingest.record_unverified(self.start, end - 1)
        self.at = end


def pump(body: Body, span: Span, flow: WorkerFlow) -> bool:
    """Read a body into its span; what has arrived when it breaks off stays, and nothing else is counted as progress.

    It may end early: ``span.at`` tells. ``True``: there is more of it than the span takes.
    """
    buffer = flow.buffer
    watch = flow.watch
    size = len(buffer)
    left = span.end - span.at
    filled = 0
    watch.start()
    due = monotonic() + _SOON
    try:
        while left:
            # Fill the buffer before hashing and writing: TLS hands out 16 KiB at most.
            count = body.readinto(buffer[filled : filled + left])
            if not count:
                break
            filled += count  # first: where it is cut while it waits for its share of the bandwidth, they have arrived
            left -= count
            flow.moved(count)
            if filled == size or not left or monotonic() >= due:
                whole, filled = filled, 0
                watch.paused = True
                span.write(buffer[:whole])
                watch.paused = False
                due = monotonic() + _SOON
        if filled:
            whole, filled = filled, 0
            span.write(buffer[:whole])
        # Where nobody has said how long it is, its end has to be seen.
        return not left and body.length is None and body.readinto(buffer[:1]) > 0
    except BaseException:
        with suppress(TransferKitError):  # the error that broke the attempt off is the one to be told
            if filled:
                span.write(buffer[:filled])
        flow.counter.set_position(span.at - span.start)
        raise
    finally:
        watch.stop()


def stream(source: Fetcher, target: Ingester, descriptor: Descriptor, flow: WorkerFlow) -> Outcome:
    """Make one attempt to bring a blob from ``source`` to ``target`` as one stream, from where an earlier one ended.

    Raises:
        VerificationError: what came is not what the descriptor says.
        TransferKitError: the source or the target failed; what the target keeps is still counted as progress.
    """
    ingest = target.ingest(descriptor, flow=flow)
    if ingest is None:
        flow.counter.set_position(descriptor.size)
        return Outcome.PRESENT
    try:
        ingest.follow(flow)
        span = Span(ingest, 0, descriptor.size)
        span.at = ingest.offset
        flow.counter.set_position(span.at)
        # An empty blob is asked for as well: only its source knows whether there is one.
        if span.at < span.end or not span.end:
            with source.fetch(descriptor, offset=span.at, flow=flow) as body:
                if body.offset != span.at:
                    # The source cannot resume. What was there is fetched again, and is no progress any more.
                    ingest.restart()
                    span.at = 0
                    flow.counter.set_position(0)
                is_longer = pump(body, span, flow)
            if is_longer or span.at < span.end:
                # Where nobody has said how long it would be, an early end may be a connection that was cut.
                what = "more than was announced" if is_longer else "incomplete"
                raise SizeMismatchError(
                    f"{descriptor.digest.short}: {what}: received {span.at}/{span.end} bytes",
                    retryable=body.length is None and not is_longer,
                )
        ingest.commit(flow)
    except BaseException as error:
        ingest.keep()
        flow.counter.set_position(0 if isinstance(error, DigestMismatchError) else ingest.offset)
        raise
    return Outcome.MOVED
