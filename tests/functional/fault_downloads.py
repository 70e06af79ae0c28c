"""The fault matrix, downloads: what answers, connections and framings do wrong, and how the call has to end."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from itertools import product

from fault_cases import AGAIN, RIGHT, UNREACHABLE, Case, classes, final, gave_up, http, in_lanes, says, whole_call, wire

import transferkit as tk
from transferkit.testing import (
    Close,
    FaultRule,
    Reset,
    answer,
    bad_status_line,
    chunked,
    corrupt,
    encode_gzip,
    hang_up,
    header_flood,
    html_page,
    ignore_range,
    informational,
    lengthen,
    redirect,
    respond,
    set_header,
    shift_range,
    truncate,
    two_lengths,
    until_close,
)

GET = {"method": "GET", "path": "/blobs/"}
BOTH = ("plain", "tls")
ALL = ("small", "large", "rest")
WITH_EMPTY = (*ALL, "empty")

NEVER = {
    202: tk.RegistryError,
    204: tk.RegistryError,
    304: tk.RegistryError,
    400: tk.RegistryError,
    403: tk.DeniedError,
    404: tk.BlobNotFoundError,
    410: tk.RegistryError,
    501: tk.ServerError,
    505: tk.ServerError,
}


def get(name, action, once, ever, *, kinds=ALL, schemes=("plain",), requests=(None, None), **options):
    return Case(
        name=name,
        arm=http(action, **GET),
        once=once,
        ever=ever,
        kinds=kinds,
        schemes=schemes,
        requests=requests,
        **options,
    )


def both(name, action, ends, **options):
    """A fault that ends the blob the first time, or that harms nobody."""
    return get(name, action, ends, ends, **options)


# A refusal says nothing of the size; with a part in place the request asks for a range, and the refusal may be of that.
REFUSED = {"kinds": ("small", "rest"), "alike": ("large", "empty")}
UNREAD = {"kinds": ("small",), "alike": ("large", "rest")}

STATUSES = [
    *(
        get(f"{status}", respond(status, "busy"), RIGHT, gave_up(kind), requests=(2, 2), full=full, **REFUSED)
        for status, kind, full in classes(AGAIN)
    ),
    *(
        both(f"{status}", respond(status, "no"), final(kind), kinds=("small",), alike=("large", "empty"), full=full)
        for status, kind, full in classes(NEVER)
    ),
    # It may be the range that is refused: all of the blob is asked for then.
    *(
        get(f"{status}-range", respond(status, "no"), RIGHT, final(NEVER[status]), kinds=("rest",), requests=(2, 2))
        for status in NEVER
    ),
    both("401", respond(401), whole_call(tk.UnauthorizedError), requests=(1, 1), kinds=("small",), alike=("large",)),
    get("401-range", respond(401), RIGHT, whole_call(tk.UnauthorizedError), kinds=("rest",), requests=(2, 2)),
    get("502-page", html_page(502), RIGHT, gave_up(tk.ServerError), requests=(2, 2), **UNREAD),
    both("200-page", html_page(200), final(tk.SizeMismatchError), kinds=WITH_EMPTY, requests=(1, 1)),
    both("206-unasked", respond(206, b"x"), final(tk.RegistryError), kinds=("small", "large"), requests=(1, 1)),
    get("hang-up", hang_up(), RIGHT, gave_up(tk.ReadError), kinds=WITH_EMPTY, schemes=BOTH),
]


def limited(status, retry_after):
    def arm(rig):
        text = retry_after
        if text in ("date", "past"):
            text = formatdate(time.time() + (1 if text == "date" else -3600), usegmt=True)
        rule = respond(status, "slow down, please", retry_after=text)
        rig.faults.set(FaultRule(rule, times=rig.times, **GET))

    return arm


LIMITED = {429: tk.RateLimitedError, 503: tk.ServerError}
WAITS = {"1": "1", "date": "date", "zero": "0", "negative": "-5", "text": "soon", "past": "past", "empty": ""}
# Of the times that are over, and of the texts that are none, one each; the status has no say in how they are read.
ONE_EACH = ((429, "1"), (429, "date"), (503, "zero"), (429, "text"), (503, "1"))
RETRY_AFTER = [
    *(
        Case(
            name=f"{status}-retry-after-{name}",
            arm=limited(status, value),
            once=RIGHT,
            ever=None if name in ("1", "date") else gave_up(LIMITED[status]),
            kinds=("small",),
            alike=() if name in ("1", "date") else ("large",),
            requests=(2, 2),
            full=(status, name) not in ONE_EACH,
        )
        for status, (name, value) in product(LIMITED, WAITS.items())
    ),
    *(
        Case(
            name=f"{status}-retry-after-{name}",
            arm=limited(status, value),
            once=ends,
            ever=ends,
            kinds=("small",),
            alike=("large",),
            requests=(1, 1),
            full=name == "absurd",
        )
        for name, value in {"huge": "86400", "absurd": "9" * 60}.items()
        for status, ends in {429: whole_call(tk.RateLimitedError), 503: final(tk.ServerError)}.items()
    ),
]

LIES = [
    both("range-ignored", ignore_range(), RIGHT, kinds=("rest",), schemes=BOTH, requests=(1, 1)),
    Case(
        name="range-refused",
        arm=http(respond(416), where=lambda environ: "HTTP_RANGE" in environ, **GET),
        ever=RIGHT,
        kinds=("rest",),
        requests=(None, 2),
    ),
    # A range that is not the one asked for is as good as none: all of the blob is asked for then.
    both("range-start+1", shift_range(start=1), RIGHT, kinds=("rest",), requests=(2, 2)),
    both("range-start-1", shift_range(start=-1), RIGHT, kinds=("rest",), requests=(2, 2), full=True),
    both("range-total+1", shift_range(total=1), RIGHT, kinds=("rest",), requests=(2, 2)),
    both("range-garbage", set_header("Content-Range", "x"), RIGHT, kinds=("rest",), requests=(2, 2)),
    both("range-unsaid", set_header("Content-Range", None), RIGHT, kinds=("rest",), requests=(2, 2)),
    both("short-announced", truncate(9000, announce=False), final(tk.SizeMismatchError), schemes=BOTH),
    get("short", truncate(9000), RIGHT, gave_up(tk.ReadError), kinds=("small",), schemes=BOTH, requests=(2, 2)),
    both("short-resumed", truncate(400_000), RIGHT, kinds=("large", "rest"), schemes=BOTH),
    both("longer", lengthen(b"x"), final(tk.SizeMismatchError), kinds=WITH_EMPTY, schemes=BOTH, requests=(1, 1)),
    both("no-length", set_header("Content-Length", None), RIGHT, kinds=WITH_EMPTY, schemes=BOTH, requests=(1, 1)),
    both("gzip", encode_gzip(), final(tk.ProtocolError), requests=(1, 1), **REFUSED),
    both("gzip-claimed", encode_gzip(really=False), RIGHT, requests=(1, 1), **REFUSED),
    *(
        get(
            f"corrupt-{at}",
            corrupt(at),
            RIGHT,
            final(tk.DigestMismatchError),
            schemes=BOTH,
            requests=(2, 2),
            full=at == 0,
        )
        for at in (0, 30_000)
    ),
    both("type", set_header("Content-Type", "text/html"), RIGHT, requests=(1, 1), **REFUSED),
    both("digest-absent", set_header("Docker-Content-Digest", None), RIGHT, requests=(1, 1), **UNREAD),
    both("etag-weak", set_header("ETag", 'W/"other"'), RIGHT, requests=(1, 1)),
]


def to_storage(*rules):
    """Redirect to a storage of another origin, which has faults of its own."""

    def arm(rig):
        rig.faults.set(FaultRule(redirect(lambda environ: rig.storage.url + environ["PATH_INFO"]), **GET))
        rig.storage.faults.set(*(FaultRule(action, times=rig.times, **GET) for action in rules))

    return arm


def leads(location):
    """Redirect to what ``location`` makes of the rig and the WSGI environment."""

    def arm(rig):
        action = redirect(lambda environ: location(rig, environ))
        rig.faults.set(FaultRule(action, times=rig.times, **GET))

    return arm


def stored(status, once, ever, *, full=False):
    """A storage that answers with a status. A refusal says nothing of the size."""
    name, arm = f"storage-{status}", to_storage(respond(status))
    return Case(name=name, arm=arm, once=once, ever=ever, kinds=("small", "rest"), alike=("large",), full=full)


STORAGE = [
    Case(name="storage", arm=to_storage(), ever=RIGHT, kinds=ALL, requests=(1, 1)),
    stored(404, *2 * [final(tk.BlobNotFoundError)]),
    stored(410, *2 * [final(tk.RegistryError)]),
    # A signed URL that has run out: asked for once more, and then it is the storage's last word.
    stored(400, RIGHT, final(tk.RegistryError)),
    stored(403, RIGHT, final(tk.DeniedError)),
    *(stored(status, RIGHT, gave_up(kind), full=full) for status, kind, full in classes(AGAIN)),
    Case(
        name="storage-corrupt",
        arm=to_storage(corrupt(7)),
        once=RIGHT,
        ever=final(tk.DigestMismatchError),
        kinds=ALL,
        requests=(2, 2),
    ),
    Case(name="storage-hangs-up", arm=to_storage(hang_up()), once=RIGHT, ever=gave_up(tk.ReadError), kinds=ALL),
    get(
        "redirect-loop",
        redirect(lambda e: e["PATH_INFO"]),
        RIGHT,
        final(tk.ProtocolError),
        requests=(2, 11),
        kinds=("small",),
        alike=("large",),
    ),
    Case(
        name="redirect-down",
        arm=leads(lambda rig, environ: rig.storage.url + environ["PATH_INFO"]),
        once=final(tk.ProtocolError),
        ever=final(tk.ProtocolError),
        schemes=("tls",),
        **UNREAD,
        requests=(1, 1),
    ),
    Case(
        name="redirect-nobody-there",
        arm=leads(lambda rig, environ: f"http://127.0.0.1:{rig.closed_port}/blob"),
        once=RIGHT,
        ever=UNREACHABLE,
        requests=(2, 2),
        **UNREAD,
    ),
    *(
        both(f"redirect-{name}", redirect(location), final(tk.ProtocolError), requests=(1, 1), **UNREAD)
        for name, location in {
            "file": "file:///etc/passwd",
            "unclosed": "http://[::1/blob",
            "user": "http://me:you@127.0.0.1/blob",
            "port": "http://127.0.0.1:99999/blob",
            "blank": "http://a b/blob",
        }.items()
    ),
    both("redirect-nowhere", respond(307), final(tk.RegistryError), requests=(1, 1), **UNREAD),
]


def always(kind, place, grows):
    """How it ends where every connection breaks at a place."""
    if kind == "reset_after" and place == "start":
        return None  # whether connect() or the first read hears of it is the system's affair
    if grows and place in ("middle", "last"):
        return RIGHT  # a large blob goes on where it was cut, so it gets through: there is a new byte each time
    return gave_up(tk.TransportTimeout if kind == "silent_after" and place in ("start", "head") else ERRORS[kind])


def kinds_for(kind, place, grows):
    # Silence takes its time, and before the body it is the same for all sizes.
    if kind == "silent_after" and place in ("start", "head"):
        return ("rest",) if grows else ("small",)
    return ("large", "rest") if grows else ("small",)


ERRORS = {"reset_after": tk.ReadError, "close_after": tk.ReadError, "silent_after": tk.StalledError}
WORDS = {"reset_after": "reset", "close_after": "close", "silent_after": "silent"}
PLACES = ("start", "head", "middle", "last")
WIRE = [
    *(
        Case(
            name=f"wire-{WORDS[kind]}-{place}",
            arm=wire(kind, place),
            once=RIGHT,
            ever=always(kind, place, grows),
            kinds=kinds_for(kind, place, grows),
            schemes=schemes,
            silent=kind == "silent_after",
        )
        for kind, place, grows in product(WORDS, PLACES, (False, True))
        for schemes in ([BOTH] if place != "start" and (kind, place) != ("silent_after", "last") else [("plain",)])
    ),
    *(
        Case(
            name=f"wire-{WORDS[kind]}-handshake",
            arm=wire(kind, place),
            once=RIGHT,
            ever=gave_up(tk.TransportTimeout) if kind == "silent_after" else UNREACHABLE,
            schemes=("tls",),
            kinds=("small", "rest"),
            silent=kind == "silent_after",
        )
        for kind in WORDS
        for place in (0,)
    ),
    Case(
        name="wire-corrupt-record",
        arm=wire("corrupt_at", "middle"),
        once=RIGHT,
        ever=gave_up(tk.ReadError),
        schemes=("tls",),
        kinds=("small",),
    ),
    Case(name="wire-refused", arm=wire("refuse", 1), once=RIGHT, schemes=BOTH),
    Case(name="wire-late", arm=wire("latency", 0.05), ever=RIGHT, kinds=ALL, schemes=BOTH),
    Case(name="nobody-there", arm=lambda rig: rig.unplug(), ever=UNREACHABLE, schemes=BOTH),
]


# What is refused by its head is refused whatever the size: ALL.
RAW = [
    Case(name=f"raw-{name}", arm=says(step), once=once, ever=ever, **(UNREAD if kinds is ALL else {"kinds": kinds}))
    for name, step, once, ever, kinds in [
        ("100", lambda data: informational(100) + answer(200, data), RIGHT, RIGHT, ("small", "large")),
        ("102", lambda data: informational(102) + answer(200, data), RIGHT, RIGHT, ("small", "large")),
        ("103-twice", lambda data: informational(103) * 2 + answer(200, data), RIGHT, RIGHT, ("small", "large")),
        ("1xx-flood", lambda data: informational(103) * 5000 + answer(200, data), *2 * [final(tk.ProtocolError)], ALL),
        ("until-close", until_close, RIGHT, RIGHT, ("small", "large", "empty")),
        ("chunked", lambda data: chunked(data[:7], data[7:]), RIGHT, RIGHT, ("small", "large")),
        (
            "chunked-cut",
            lambda data: [chunked(data[:9000], trailer=b""), Close()],
            RIGHT,
            gave_up(tk.ReadError),
            ("small",),
        ),
        ("chunked-longer", lambda data: chunked(data, b"x"), *2 * [final(tk.SizeMismatchError)], ("small", "large")),
        (
            "chunked-garbage",
            lambda data: chunked(trailer=b"zzz\r\n"),
            RIGHT,
            gave_up(tk.ReadError),
            ("small", "large"),
        ),
        ("bytes-after", lambda data: answer(200, data) + b"and more", RIGHT, RIGHT, ("small", "large", "empty")),
        ("longer", lambda data: answer(200, data + b"x"), *2 * [final(tk.SizeMismatchError)], ("small", "large")),
        ("close-longer", lambda data: until_close(data + b"x"), *2 * [final(tk.SizeMismatchError)], ("small",)),
        (
            "close-shorter",
            lambda data: until_close(data[:-1]),
            RIGHT,
            gave_up(tk.SizeMismatchError),
            ("small", "large"),
        ),
        ("two-lengths", lambda data: two_lengths(data, len(data) + 1), *2 * [final(tk.ProtocolError)], ALL),
        (
            "same-length-twice",
            lambda data: answer(200, data, 2 * [("Content-Length", str(len(data)))]),
            RIGHT,
            RIGHT,
            ("small", "large"),
        ),
        ("bad-length", lambda data: answer(200, data, {"Content-Length": "-1"}), *2 * [final(tk.ProtocolError)], ALL),
        ("bad-status-line", lambda data: bad_status_line(), *2 * [final(tk.ProtocolError)], ALL),
        ("other-protocol", lambda data: bad_status_line(b"SSH-2.0-x"), *2 * [final(tk.ProtocolError)], ALL),
        ("long-line", lambda data: b"HTTP/1.1 200 " + 70_000 * b"x" + b"\r\n\r\n", *2 * [final(tk.ProtocolError)], ALL),
        ("long-header", lambda data: answer(200, data, {"X": 70_000 * "x"}), *2 * [final(tk.ProtocolError)], ALL),
        ("flood", lambda data: header_flood(), *2 * [final(tk.ProtocolError)], ALL),
        ("http-1.0", lambda data: [b"HTTP/1.0 200 OK\r\n\r\n" + data, Close()], RIGHT, RIGHT, ("small", "large")),
        ("nothing", lambda data: Close(), RIGHT, gave_up(tk.ReadError), ALL),
        ("reset", lambda data: Reset(), RIGHT, gave_up(tk.ReadError), ALL),
    ]
]

STALE = [
    Case(name=f"stale-{name}", arm=says(step), ever=ends, kinds=("many",))
    for name, step, ends in [
        ("closed", lambda data: [answer(200, data), Close()], RIGHT),
        ("reset", lambda data: [answer(200, data), Reset()], RIGHT),
    ]
]

ENDS = (tk.ProtocolError, tk.RegistryError, tk.BlobNotFoundError, tk.SizeMismatchError)
FINAL = [final(kind) for kind in ENDS]


def of_the_range(case: Case) -> list[Case]:
    """With a part in place a range is asked for, and what is wrong once may be wrong with that: the blob is asked for
    without one, before its error is told."""
    if case.once not in FINAL or "rest" not in (*case.kinds, *case.alike):
        return [case]
    kinds, alike = (tuple(kind for kind in some if kind != "rest") for some in (case.kinds, case.alike))
    rest = replace(case, kinds=("rest",), alike=(), once=RIGHT, requests=(None, None), full=True)
    return [replace(case, kinds=kinds or alike[:1], alike=alike if kinds else alike[1:]), rest]


ALL_CASES = [*STATUSES, *RETRY_AFTER, *STORAGE, *in_lanes(LIES, WIRE, RAW, STALE)]
CASES = [each for case in ALL_CASES for each in of_the_range(case)]
