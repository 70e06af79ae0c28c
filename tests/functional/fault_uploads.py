"""The fault matrix, uploads: refusals, sessions that lead elsewhere, bodies that nobody takes, files that change."""

from __future__ import annotations

import os

from fault_cases import AGAIN, RIGHT, UNREACHABLE, Case, classes, final, gave_up, http, in_lanes, whole_call, wire

import transferkit as tk
from transferkit.testing import (
    Close,
    FaultRule,
    Pause,
    Reset,
    answer,
    bad_status_line,
    hang_up,
    header_flood,
    html_page,
    informational,
    redirect,
    respond,
    set_header,
)

HEAD = {"method": "HEAD", "path": "/blobs/"}
POST = {"method": "POST", "path": "/blobs/uploads/"}
PUT = {"method": "PUT", "path": "/blobs/uploads/"}
BOTH = ("plain", "tls")
NEVER = {400: tk.RegistryError, 403: tk.DeniedError, 409: tk.RegistryError, 501: tk.ServerError}
DIGEST_INVALID = respond(400, '{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}', read_body=True)
OTHER = "sha256:" + 64 * "0"


# A request without a body says nothing of the size of the blob.
BODILESS = {"kinds": ("small",), "alike": ("large",)}


def on(match, name, action, once, ever, *, requests=(None, None), **options):
    step = match["method"].lower()
    if match is not PUT and "kinds" not in options:
        options |= BODILESS
    return Case(
        name=f"{step}-{name}",
        arm=http(action, **match),
        once=once,
        ever=ever,
        requests=requests,
        **options,
    )


# The requests of an attempt before the one that fails, and of the one that then succeeds.
BEFORE = {"HEAD": 1, "POST": 2, "PUT": 3}
STATUSES = [
    *(
        on(
            match,
            f"{status}",
            respond(status, "busy", read_body=True),
            RIGHT,
            gave_up(kind),
            requests=(BEFORE[match["method"]] + 3, 2 * BEFORE[match["method"]]),
            schemes=BOTH if match is PUT else ("plain",),
            full=full,
        )
        for match in (HEAD, POST, PUT)
        for status, kind, full in classes(AGAIN)
    ),
    *(
        on(
            match,
            f"{status}",
            respond(status, "no", read_body=True),
            # Who may begin no upload may push no other blob, either.
            *2 * [whole_call(kind) if (match, status) == (POST, 403) else final(kind)],
            # After a commit that is refused, the registry is asked whether somebody else has brought the blob.
            requests=2 * (BEFORE[match["method"]] + (match is PUT and status != 501),),
            schemes=BOTH if match is PUT else ("plain",),
            full=full,
        )
        for match in (POST, PUT)
        for status, kind, full in classes(NEVER)
    ),
    *(on(match, "401", respond(401, read_body=True), *2 * [whole_call(tk.UnauthorizedError)]) for match in (POST, PUT)),
    # Who will not say whether it has the blob is sent it.
    *(on(HEAD, f"{s}", respond(s), RIGHT, RIGHT, requests=(3, 3)) for s in (400, 401, 403, 405, 409, 413, 501)),
    on(HEAD, "portal", html_page(200), RIGHT, RIGHT, requests=(3, 3)),
    on(POST, "404", respond(404), final(tk.NotFoundError), final(tk.NotFoundError)),
    on(PUT, "404", respond(404, read_body=True), final(tk.NotFoundError), final(tk.NotFoundError)),
    # One that takes no body as long as this gets it in parts, where there is enough to part.
    on(POST, "413", respond(413), final(tk.RegistryError), final(tk.RegistryError), requests=(2, 2)),
    on(PUT, "413", respond(413, read_body=True), *2 * [final(tk.RegistryError)], kinds=("small",), schemes=BOTH),
    on(PUT, "413", respond(413, read_body=True), RIGHT, final(tk.RegistryError), kinds=("large", "huge"), schemes=BOTH),
    on(PUT, "digest-invalid", DIGEST_INVALID, final(tk.RegistryError), final(tk.RegistryError), requests=(4, 4)),
    on(PUT, "502-page", html_page(502), RIGHT, gave_up(tk.ServerError), schemes=BOTH),
    on(HEAD, "hang-up", hang_up(), RIGHT, gave_up(tk.ReadError), schemes=BOTH),
    on(POST, "hang-up", hang_up(), RIGHT, gave_up(tk.ReadError), schemes=BOTH),
    on(PUT, "hang-up", hang_up(), RIGHT, None, schemes=BOTH),
]

# The registry has done its work and its answer is lost: the next attempt finds the blob in place.
DONE = [
    on(PUT, "done-hang-up", hang_up(after_app=True), RIGHT, RIGHT, schemes=BOTH, requests=(None, None)),
    on(PUT, "done-500", respond(500, after_app=True), RIGHT, RIGHT, schemes=BOTH, requests=(4, 4)),
    on(POST, "done-500", respond(500, after_app=True), RIGHT, gave_up(tk.ServerError), requests=(5, 4)),
    on(HEAD, "page", html_page(404), RIGHT, RIGHT, requests=(3, 3)),
]


def appears(rig):
    """The blob comes into the repository between HEAD and PUT, by another client's hand."""

    def action(app):
        def middle(environ, start_response):
            rig.faults.set()
            tk.upload(rig.blobs, rig.source, base_url=rig.place.url, repository=rig.repository)
            return app(environ, start_response)

        return middle

    rig.faults.set(FaultRule(action, **POST))


def location(change):
    """The Location of the session is what ``change`` makes of it."""

    def arm(rig):
        def changed(text):
            return text and change(rig, text)

        rig.faults.set(FaultRule(set_header("Location", changed), times=rig.times, **POST))

    return arm


def named(change):
    """The same for a registry with a name, which may not lead us to private addresses."""

    def arm(rig):
        rig.name_the_registry()
        location(change)(rig)

    return arm


BAD = final(tk.ProtocolError)
# The places that a public registry may not lead to are one class: the grammar of addresses has tests of its own.
LOCATIONS = [
    Case(
        name=f"location-{name}",
        arm=arm,
        once=ends,
        ever=ends,
        requests=requests,
        schemes=schemes,
        full=name in ("blank", "metadata", "decimal", "ipv6", "localhost"),
        **BODILESS,
    )
    for name, arm, ends, requests, schemes in [
        ("absent", location(lambda rig, text: None), BAD, (2, 2), ("plain",)),
        ("empty", location(lambda rig, text: ""), BAD, (2, 2), ("plain",)),
        ("relative", location(lambda rig, text: text.removeprefix(rig.url)), RIGHT, (3, 3), BOTH),
        ("absolute", location(lambda rig, text: rig.url + text.removeprefix(rig.url)), RIGHT, (3, 3), BOTH),
        ("query", location(lambda rig, text: text + "&keep=a%2Fb"), RIGHT, (3, 3), ("plain",)),
        ("other-port", location(lambda rig, text: rig.place.proxy.url + text), RIGHT, (3, 3), BOTH),
        ("file", location(lambda rig, text: "file:///etc/passwd"), BAD, (2, 2), ("plain",)),
        ("user", location(lambda rig, text: "http://me:you@127.0.0.1/x"), BAD, (2, 2), ("plain",)),
        ("blank", location(lambda rig, text: "http://a b/x"), BAD, (2, 2), ("plain",)),
        ("unclosed", location(lambda rig, text: "http://[::1/x"), BAD, (2, 2), ("plain",)),
        ("backslash", location(lambda rig, text: "http:\\\\127.0.0.1\\x"), BAD, (2, 2), ("plain",)),
        ("downgrade", location(lambda rig, text: rig.storage.url + "/x"), BAD, (2, 2), ("tls",)),
        ("named", named(lambda rig, text: text), RIGHT, (3, 3), ("plain",)),
        ("loopback", named(lambda rig, text: rig.storage.url + "/x"), BAD, (2, 2), ("plain",)),
        ("metadata", named(lambda rig, text: "http://169.254.169.254/x"), BAD, (2, 2), ("plain",)),
        ("decimal", named(lambda rig, text: "http://2130706433/x"), BAD, (2, 2), ("plain",)),
        ("ipv6", named(lambda rig, text: "http://[::ffff:10.0.0.1]/x"), BAD, (2, 2), ("plain",)),
        ("localhost", named(lambda rig, text: "http://localhost:9/x"), BAD, (2, 2), ("plain",)),
    ]
]


SESSIONS = [
    Case(name="appears", arm=appears, ever=RIGHT, kinds=("small", "large", "empty")),
    on(POST, "201-unasked", respond(201), BAD, BAD, requests=(2, 2)),
    on(POST, "200", respond(200), BAD, BAD, requests=(2, 2)),
    Case(name="mount", arm=lambda rig: None, ever=RIGHT, mounts=True, requests=(None, 2)),
    *(
        Case(
            name=f"mount-{status}",
            arm=http(respond(status), method="POST", path="mount="),
            ever=RIGHT,
            mounts=True,
            full=status not in (404, 501),
            **BODILESS,
        )
        for status in (400, 403, 404, 405, 501)
    ),
    Case(name="mount-declined", arm=lambda rig: rig.unlink_source(), ever=RIGHT, mounts=True, requests=(None, 3)),
    Case(
        name="mount-500",
        arm=http(respond(500), method="POST", path="mount="),
        once=RIGHT,
        ever=gave_up(tk.ServerError),
        mounts=True,
        requests=(4, 4),
    ),
    on(PUT, "digest-absent", set_header("Docker-Content-Digest", None), RIGHT, RIGHT, requests=(3, 3)),
    on(PUT, "digest-other", set_header("Docker-Content-Digest", OTHER), BAD, BAD, requests=(3, 3)),
    on(PUT, "digest-none", set_header("Docker-Content-Digest", "x"), RIGHT, RIGHT, requests=(3, 3)),
    on(PUT, "302", redirect("/x", status=302), BAD, BAD, requests=(3, 3), schemes=BOTH),
    # A session that the registry does not know is followed by another one.
    on(PUT, "loop", redirect("/v2/a/blobs/uploads/x"), RIGHT, BAD, schemes=BOTH),
]

# Answers before the body was read: the registry keeps what it can of the connection, and closes else.
EARLY = [
    *(
        on(PUT, f"early-{status}", respond(status, "no"), once, ever, kinds=("large", "huge"), schemes=BOTH)
        for status, once, ever in [
            (401, *2 * [whole_call(tk.UnauthorizedError)]),
            (403, *2 * [final(tk.DeniedError)]),
            (413, RIGHT, final(tk.RegistryError)),
            (500, RIGHT, gave_up(tk.ServerError)),
        ]
    ),
]

WORDS = {"reset_after": "reset", "close_after": "close", "silent_after": "silent", "reset_after_up": "cut-off"}
WIRE = [
    *(
        Case(
            name=f"wire-{WORDS[kind]}-{place}",
            arm=wire(kind, place),
            once=RIGHT,
            ever=ever,
            kinds=("small",) if kind == "silent_after" else ("small", "large"),
            schemes=schemes,
            silent=kind == "silent_after",
        )
        for kind, place, ever, schemes in [
            # Whether connect() or the first read hears of a reset at once is the system's affair.
            ("reset_after", 0, None, ("plain",)),
            ("reset_after", 30, gave_up(tk.ReadError), ("plain",)),
            ("close_after", 0, gave_up(tk.ReadError), ("plain",)),
            ("close_after", 30, gave_up(tk.ReadError), ("plain",)),
            ("silent_after", 0, gave_up(tk.TransportTimeout), ("plain",)),
            ("silent_after", 30, gave_up(tk.TransportTimeout), ("plain",)),
        ]
    ),
    Case(name="wire-cut-off", arm=wire("reset_after_up", 400_000), once=RIGHT, kinds=("large", "huge"), schemes=BOTH),
    Case(
        name="wire-nobody-reads",
        arm=wire("silent_after_up", 400_000),
        ever=gave_up(tk.StalledError),
        kinds=("huge",),
        schemes=BOTH,
        silent=True,
    ),
    Case(name="wire-late", arm=wire("latency", 0.02), ever=RIGHT, schemes=BOTH),
    Case(name="nobody-there", arm=lambda rig: rig.unplug(), ever=UNREACHABLE, schemes=BOTH),
]


def puts(step, *, read_body=True):
    """A server that plays a registry up to the PUT, to which it says this; later attempts meet the real one."""

    def arm(rig):
        rig.serve_uploads(step, read_body=read_body)

    return arm


RAW = [
    Case(name=f"raw-{name}", arm=puts(step, read_body=read), ever=ends, kinds=kinds, schemes=ways, silent=silent)
    for name, step, read, ends, kinds, ways, silent in [
        ("continue", informational(100) + answer(201), True, RIGHT, ("small", "large"), ("plain",), False),
        ("interim", informational(102) + answer(201), True, RIGHT, ("small", "large"), ("plain",), False),
        ("no-content", answer(204), True, RIGHT, ("small", "large"), ("plain",), False),
        ("bytes-after", answer(201) + b"more", True, RIGHT, ("small", "large"), ("plain",), False),
        ("garbage", bad_status_line(), True, BAD, ("small", "large"), ("plain",), False),
        ("flood", lambda: header_flood(), True, BAD, ("small", "large"), ("plain",), False),
        ("nothing", Close(), True, gave_up(tk.ReadError), ("small", "large"), ("plain",), False),
        ("reset", Reset(), True, gave_up(tk.ReadError), ("small", "large"), ("plain",), False),
        # It answers, and never takes the body; the connection stays open, or is reset under the body.
        ("early-open", [answer(403), Pause()], False, final(tk.DeniedError), ("huge",), ("plain",), True),
        (
            "early-reset",
            [answer(403), Pause(0.2), Reset()],
            False,
            final(tk.DeniedError),
            ("huge",),
            ("plain",),
            False,
        ),
        # An interim answer that nobody asked for does not hide the next one.
        (
            "early-continue",
            [informational(100), answer(403), Pause()],
            False,
            final(tk.DeniedError),
            ("huge",),
            ("plain",),
            True,
        ),
        ("never-taken", Pause(), False, gave_up(tk.StalledError), ("huge",), ("plain",), True),
    ]
]


def spoiled(spoil, when):
    """Let something happen to the file while its upload is under way."""

    def arm(rig):
        path = rig.own_source() / tk.digest_to_path(rig.blobs[0].digest)

        def action(app):
            def middle(environ, start_response):
                spoil(path)
                return app(environ, start_response)

            return middle

        rig.faults.set(FaultRule(action, times=1, **when))

    return arm


def change(path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def shorten(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    os.truncate(path, 0)


def remove(path):
    path.unlink()


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"x")


BROKEN = whole_call(tk.SourceError)
SOURCES = [
    # Before the file is opened, all of it is noticed; while a long body is under way, what a read or the hash tells.
    *(
        Case(name=f"source-{spoil.__name__}-at-post", arm=spoiled(spoil, POST), ever=BROKEN, kinds=("small", "large"))
        for spoil in (change, shorten, empty, remove, lengthen)
    ),
    *(
        Case(name=f"source-{spoil.__name__}-at-put", arm=spoiled(spoil, PUT), ever=ends, kinds=("huge",))
        for spoil, ends in [(change, BROKEN), (shorten, BROKEN), (empty, BROKEN), (remove, RIGHT), (lengthen, BROKEN)]
    ),
]

CASES = [*STATUSES, *LOCATIONS, *SESSIONS, *in_lanes(DONE, EARLY, WIRE, RAW, SOURCES)]
