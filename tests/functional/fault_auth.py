"""The fault matrix, authentication: challenges, token services and tokens, for downloads and uploads alike."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

from fault_cases import RIGHT, UNREACHABLE, Case, final, gave_up, whole_call

import transferkit as tk
from transferkit.testing import FaultRule, challenge, encode_gzip, hang_up, html_page, redirect, respond, truncate

CHALLENGE = 'Bearer realm="{url}/token",service="test",scope="repository:library/model:pull"'
REFUSED = whole_call(tk.UnauthorizedError)
# Tokens say nothing of the size of the blob.
ANY = {"kinds": ("small",), "alike": ("large",)}
BAD = final(tk.ProtocolError)


def issued(**fields):
    return respond(200, json.dumps({"token": "good", **fields}), content_type="application/json")


def guarded(answer, *, asks=CHALLENGE, accept="Bearer good", spoils=()):
    """Guard the registry; its token service gives ``answer``, or what ``spoils`` makes of it while the fault holds."""

    def arm(rig):
        rig.faults.set(
            FaultRule(
                challenge(asks.format(url=rig.url, port=rig.closed_port), accept=accept),
                where=lambda environ: environ["PATH_INFO"].startswith("/v2/"),
            ),
            *(FaultRule(action, path="/token", times=rig.times) for action in spoils),
            FaultRule(answer, path="/token"),
        )

    return arm


def forgetful(times, skip):
    """A registry that after ``skip`` good requests knows its tokens no more, for ``times`` requests."""

    def arm(rig):
        lock, seen = threading.Lock(), [0]

        def accept(given):
            with lock:
                seen[0] += given == "Bearer good"
                return given == "Bearer good" and not skip < seen[0] <= skip + times

        guarded(issued(), accept=accept)(rig)

    return arm


FINE = [
    Case(name=f"auth-{name}", arm=arm, ever=RIGHT, schemes=schemes, **ANY)
    for name, arm, schemes in [
        ("token", guarded(issued()), ("plain", "tls")),
        ("access-token", guarded(respond(200, '{"access_token": "good"}')), ("plain",)),
        ("both", guarded(issued(access_token="other")), ("plain",)),
        ("lifetime-zero", guarded(issued(expires_in=0)), ("plain",)),
        ("lifetime-negative", guarded(issued(expires_in=-5)), ("plain",)),
        ("lifetime-text", guarded(issued(expires_in="soon")), ("plain",)),
        ("lifetime-huge", guarded(issued(expires_in=10**30)), ("plain",)),
        ("lifetime-short", guarded(issued(expires_in=0.001)), ("plain",)),
        ("relative-realm", guarded(issued(), asks='Bearer realm="/token"'), ("plain", "tls")),
        ("no-service", guarded(issued(), asks='Bearer realm="{url}/token"'), ("plain",)),
        ("two-challenges", guarded(issued(), asks=f'Basic realm="x", {CHALLENGE}'), ("plain",)),
        ("comma", guarded(issued(), asks='Bearer realm="{url}/token",scope="repository:a/b:pull,push"'), ("plain",)),
        ("lower-case", guarded(issued(), asks='bearer REALM="{url}/token"'), ("plain",)),
        ("extra", guarded(issued(), asks=f'{CHALLENGE},error="invalid_token",x="\\"\\\\"'), ("plain",)),
        ("refused-midway", forgetful(1, 0), ("plain",)),
    ]
]

# Statuses that end as another one of their class does.
ALIKE = ("service-400", "service-401", "service-404", "service-500", "service-list")

SPOILED = [
    Case(name=f"auth-{name}", arm=guarded(issued(), spoils=[action]), once=once, ever=ever, full=name in ALIKE, **ANY)
    for name, action, once, ever in [
        *((f"service-{status}", respond(status), REFUSED, REFUSED) for status in (400, 401, 403, 404)),
        *((f"service-{status}", respond(status), RIGHT, gave_up(tk.UnauthorizedError)) for status in (429, 500, 503)),
        ("service-page", html_page(200), BAD, BAD),
        ("service-502-page", html_page(502), RIGHT, gave_up(tk.UnauthorizedError)),
        ("service-gzip", encode_gzip(), BAD, BAD),
        ("service-redirects", redirect("/v2/"), REFUSED, REFUSED),
        ("service-hangs-up", hang_up(), RIGHT, gave_up(tk.ReadError)),
        ("service-cut", truncate(5), RIGHT, gave_up(tk.ReadError)),
        ("service-short", truncate(5, announce=False), BAD, BAD),
        ("service-empty", respond(200, "{}"), BAD, BAD),
        ("service-list", respond(200, "[]"), BAD, BAD),
        ("service-blank", issued(token="a b"), BAD, BAD),
        ("service-header", issued(token="a\r\nX: y"), BAD, BAD),
        ("service-huge", issued(token="x" * 1_000_000), BAD, BAD),
        ("service-deep", respond(200, "[" * 60_000), BAD, BAD),
    ]
]

HOPELESS = [
    Case(name=f"auth-{name}", arm=arm, ever=ends, **ANY)
    for name, arm, ends in [
        ("never-good", guarded(issued(), accept="Bearer other"), REFUSED),
        ("no-challenge", guarded(issued(), asks=""), REFUSED),
        ("garbage", guarded(issued(), asks="@@@"), REFUSED),
        ("negotiate", guarded(issued(), asks="Negotiate"), REFUSED),
        ("basic", guarded(issued(), asks='Basic realm="x"'), REFUSED),
        ("no-realm", guarded(issued(), asks='Bearer realm=""'), REFUSED),
        ("realm-file", guarded(issued(), asks='Bearer realm="file:///etc/passwd"'), BAD),
        ("realm-user", guarded(issued(), asks='Bearer realm="http://a:b@127.0.0.1/token"'), BAD),
        ("realm-port", guarded(issued(), asks='Bearer realm="http://127.0.0.1:99999/"'), BAD),
        ("realm-nobody-there", guarded(issued(), asks='Bearer realm="http://127.0.0.1:{port}/t"'), UNREACHABLE),
    ]
]

CASES = [*FINE, *SPOILED, *HOPELESS]
# The token service fails the question whether a blob is there, which an upload can do without, and then no more.
FOR_UPLOADS = [replace(case, once=RIGHT) if case.once in (REFUSED, BAD) else case for case in CASES]
