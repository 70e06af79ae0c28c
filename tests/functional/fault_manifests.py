"""The fault matrix, manifests: pushing one after its blobs, and fetching one."""

from __future__ import annotations

from fault_cases import AGAIN, RIGHT, Case, classes, final, http, whole_call

import transferkit as tk
from transferkit.testing import (
    encode_gzip,
    hang_up,
    html_page,
    ignore_range,
    lengthen,
    respond,
    set_header,
    truncate,
)

PUT = {"method": "PUT", "path": "/manifests/"}
GET = {"method": "GET", "path": "/manifests/"}
HEAD = {"method": "HEAD", "path": "/blobs/"}
NEVER = {400: tk.RegistryError, 401: tk.UnauthorizedError, 403: tk.DeniedError, 413: tk.RegistryError}
UNKNOWN = '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}'
OTHER = "sha256:" + 64 * "0"
BOTH = ("plain", "tls")


def tired(kind):
    return whole_call(tk.RetriesExhaustedError, kind)


def row(name, match, action, once, ever, **options):
    return Case(name=name, arm=http(action, **match), once=once, ever=ever, kinds=("small",), **options)


def both(name, match, action, *ends, **options):
    return row(name, match, action, ends, ends, **options)


PUSHES = [
    *(
        row(f"put-{s}", PUT, respond(s, "x", read_body=True), RIGHT, tired(kind), full=full)
        for s, kind, full in classes(AGAIN)
    ),
    *(both(f"put-{s}", PUT, respond(s, "x", read_body=True), kind, full=full) for s, kind, full in classes(NEVER)),
    both("put-404", PUT, respond(404, read_body=True), tk.NotFoundError),
    # It has just confirmed the blobs, and is given a moment.
    row("put-unknown", PUT, respond(400, UNKNOWN, read_body=True), RIGHT, whole_call(tk.BlobNotFoundError)),
    row("put-404-unknown", PUT, respond(404, UNKNOWN, read_body=True), RIGHT, whole_call(tk.BlobNotFoundError)),
    row("put-hang-up", PUT, hang_up(), RIGHT, tired(tk.ReadError), schemes=BOTH),
    row("put-done-hang-up", PUT, hang_up(after_app=True), RIGHT, tired(tk.ReadError), schemes=BOTH),
    row("put-done-500", PUT, respond(500, after_app=True), RIGHT, tired(tk.ServerError)),
    row("put-502-page", PUT, html_page(502), RIGHT, tired(tk.ServerError)),
    both("put-digest-absent", PUT, set_header("Docker-Content-Digest", None)),
    both("put-digest-other", PUT, set_header("Docker-Content-Digest", OTHER), tk.DigestMismatchError),
    both("put-digest-none", PUT, set_header("Docker-Content-Digest", "x")),
    both("put-redirect-302", PUT, respond(302, headers={"Location": "/x"}, read_body=True), tk.ProtocolError),
    # A 200 to HEAD that is of something else: the blob is sent.
    both("head-lies", HEAD, respond(200)),
    both("head-length", HEAD, lengthen(b"x")),
    row("blob-500", {"method": "PUT", "path": "/uploads/"}, respond(500), RIGHT, None),
    both("blob-403", {"method": "PUT", "path": "/uploads/"}, respond(403), *final(tk.DeniedError)),
]

FETCHES = [
    *(row(f"get-{s}", GET, respond(s, "x"), RIGHT, tired(kind), full=full) for s, kind, full in classes(AGAIN)),
    *(both(f"get-{s}", GET, respond(s, "x"), kind, full=full) for s, kind, full in classes(NEVER)),
    both("get-404", GET, respond(404), tk.ManifestNotFoundError),
    both("get-204", GET, respond(204), tk.RegistryError),
    row("get-hang-up", GET, hang_up(), RIGHT, tired(tk.ReadError), schemes=BOTH),
    row("get-cut", GET, truncate(20), RIGHT, tired(tk.ReadError), schemes=BOTH),
    both("get-short", GET, truncate(20, announce=False), tk.DigestMismatchError, schemes=BOTH),
    both("get-longer", GET, lengthen(b" "), tk.DigestMismatchError, schemes=BOTH),
    both("get-endless", GET, lengthen(5_000_000 * b" "), tk.ProtocolError, schemes=BOTH),
    both("get-gzip", GET, encode_gzip(), tk.ProtocolError),
    both("get-gzip-claimed", GET, encode_gzip(really=False)),
    both("get-page", GET, html_page(200), tk.InvalidManifestError),
    both("get-empty", GET, respond(200, b""), tk.InvalidManifestError),
    both("get-no-length", GET, set_header("Content-Length", None), schemes=BOTH),
    both("get-digest-absent", GET, set_header("Docker-Content-Digest", None)),
    both("get-digest-other", GET, set_header("Docker-Content-Digest", OTHER), tk.DigestMismatchError),
    both("get-digest-none", GET, set_header("Docker-Content-Digest", "sha256:x")),
    both("get-range-ignored", GET, ignore_range()),
]
