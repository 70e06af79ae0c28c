"""What servers do to requests that come together, each in its way."""

from __future__ import annotations

from tests.functional.bundles import Blobs, Fault
from transferkit.testing.scripted import RawRequest, Step
from transferkit.testing.wire import Close, Pause, Reset, answer


def out_of_order(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """The tenth answer and the eleventh change places; they are of the same size, so that the digest alone tells."""
    changes = next(blobs.number) in (10, 11)
    return answer(200, blobs.twin(data) if changes else data)


def closes_after_each(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data, headers={"Connection": "close"}), Close()]


def closes_after_three(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data, headers={"Connection": "close"}), Close()] if request.number == 2 else answer(200, data)


def closes_after_three_without_a_word(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data), Close()] if request.number == 2 else answer(200, data)


def resets_in_the_middle(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    whole = answer(200, data)
    return [whole[: len(whole) - len(data) // 2], Reset()] if next(blobs.number) == 10 else whole


def closes_within_a_head(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data)[:20], Close()] if next(blobs.number) == 10 else answer(200, data)


def answers_too_early(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """With the tenth answer comes one that nobody has asked for yet."""
    return answer(200, data) * (2 if next(blobs.number) == 10 else 1)


def refuses_the_tenth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(404, b"no such thing") if next(blobs.number) == 10 else answer(200, data)


def wants_to_know_who_asks(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """From the tenth request on, which is the first that is challenged; tokens have tests of their own."""
    if next(blobs.number) >= 10 and "authorization" not in request.headers:
        return answer(401, headers={"WWW-Authenticate": 'Basic realm="again"'})
    return answer(200, data)


def redirects_the_tenth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return answer(307, headers={"Location": request.target + "?again"})
    return answer(200, data)


def sends_more(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data + b"more") if next(blobs.number) == 10 else answer(200, data)


def sends_less(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data[:-1]) if next(blobs.number) == 10 else answer(200, data)


def two_lengths(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return answer(200, data).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 1)
    return answer(200, data)


def an_old_version(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data).replace(b"HTTP/1.1", b"HTTP/1.0", 1), Close()]


def turns_old(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return [answer(200, data).replace(b"HTTP/1.1", b"HTTP/1.0", 1), Close()]
    return answer(200, data)


def in_chunks(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
    return answer(200, data)


def falls_silent(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data)[:-5], Pause(30)] if next(blobs.number) == 10 else answer(200, data)


def interim(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" if next(blobs.number) == 10 else b""
    return early + answer(200, data)


def has_enough(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(503, b"busy") if next(blobs.number) == 10 else answer(200, data)


def counts_and_refuses_the_hundredth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(503, b"enough") if next(blobs.number) == 99 else answer(200, data)


def counts_and_forbids_the_hundredth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(403, b"enough") if next(blobs.number) == 99 else answer(200, data)


def takes_no_hundredth_on_a_connection(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return Reset() if request.number == 99 else answer(200, data)


def an_old_version_that_stays(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """HTTP/1.0 with a connection that is kept, as some servers have it."""
    return answer(200, data, {"Connection": "keep-alive"}).replace(b"HTTP/1.1", b"HTTP/1.0", 1)


def an_old_version_until_the_end(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """HTTP/1.0 without a length: the content ends where the connection does."""
    return [b"HTTP/1.0 200 OK\r\n\r\n" + data, Close()]


FAULTS: list[Fault] = [
    out_of_order,
    closes_after_each,
    closes_after_three,
    closes_after_three_without_a_word,
    resets_in_the_middle,
    closes_within_a_head,
    answers_too_early,
    refuses_the_tenth,
    wants_to_know_who_asks,
    redirects_the_tenth,
    sends_more,
    sends_less,
    two_lengths,
    an_old_version,
    turns_old,
    in_chunks,
    falls_silent,
    interim,
    has_enough,
    counts_and_refuses_the_hundredth,
    counts_and_forbids_the_hundredth,
    takes_no_hundredth_on_a_connection,
    an_old_version_that_stays,
    an_old_version_until_the_end,
]
