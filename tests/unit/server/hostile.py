"""Requests that nobody planned: sent, and judged by what comes back. What stands in them is in ``hostile_values``.

Knows WSGI and the words in which the parts of a server refuse something; knows nothing of how they are served. Texts
are as WSGI has them: one character a byte.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
ABSENT = "sha256:" + 64 * "0"
SESSION, STATE = "{session}", "{state}"
"""What stands for an upload that is under way, and for what its location says, until the request is sent."""
OCI_CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "TOOMANYREQUESTS",
    "UNAUTHORIZED", "UNSUPPORTED",
    # Of docker-registry, for what the specification has no code for.
    "PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "TAG_INVALID",
}  # fmt: skip
_LINE = re.compile(r"[0-9]{3} [ -~]+\Z")
VALUE = re.compile(r"[\t -~\x80-\xff]*\Z")


@dataclass(frozen=True)
class Ask:
    """One request, with whatever stands in it."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def filled(self, session: str = "", state: str = "") -> Ask:
        """Return it with an upload that is under way."""

        def fill(text: str) -> str:
            return text.replace(SESSION, session).replace(quote(STATE), quote(state)).replace(STATE, quote(state))

        return Ask(self.method, fill(self.path), fill(self.query), self.headers, self.body)

    def environ(self) -> dict[str, Any]:
        """Return it as a server gives it to an application."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        for name, value in self.headers:
            key = name.upper().replace("-", "_")
            environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        return environ

    def raw(self, host: str) -> bytes:
        """Return it as bytes for a socket."""
        target = quote(self.path.encode("latin-1"), safe="/%") + (f"?{self.query}" if self.query else "")
        fields = [("Host", host), *self.headers]
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in self.headers):
            fields.append(("Content-Length", str(len(self.body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{self.method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace") + self.body


@dataclass(frozen=True)
class Told:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


def tell(application: WSGIApplication, ask: Ask) -> Told:
    """Send a request, and hold the answer to what WSGI promises a server."""
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
        begun.append((status, headers))

    answer: Iterable[bytes] = application(ask.environ(), start_response)
    try:
        body = b"".join(answer)
    finally:
        getattr(answer, "close", lambda: None)()
    ((line, fields),) = begun
    assert _LINE.match(line)
    for name, value in fields:
        assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        assert VALUE.match(value), (name, value)
    headers = {name.lower(): value for name, value in fields}
    status = int(line[:3])
    if ask.method == "HEAD" or status in (204, 304):
        assert body == b""
    elif "content-length" in headers:
        assert headers["content-length"] == str(len(body))
    return Told(status, headers, body)


def judge(ask: Ask, told: Told, *, is_registry: bool = False) -> None:
    """Hold an answer to what every one has to be; ``is_registry``: the application is one at every path."""
    assert told.status < 500, (ask, told.body)
    assert b"Traceback" not in told.body
    assert b'File "' not in told.body
    if told.headers.get("content-type", "").startswith(("application/json", "application/vnd.oci.image.index")):
        if ask.method != "HEAD" and told.status != 304:
            document = json.loads(told.body, parse_constant=_refuse)
            if told.status >= 400:
                _judge_error(is_registry or _is_registry(ask.path), told.status, document)
    else:
        assert told.status < 400 or ask.method == "HEAD", (ask, told)


def _is_registry(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def _judge_error(is_registry: bool, status: int, document: Any) -> None:
    if is_registry:
        (error,) = document["errors"]
        assert {"code", "message", "detail"} == set(error)
        assert error["code"] in OCI_CODES, (status, error)
        assert isinstance(error["message"], str)
    else:
        assert {"code", "error"} == set(document)
        assert isinstance(document["error"], str)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def manifest_with(annotations: str) -> str:
    """Return the text of a manifest that a store may have, with annotations that need not be any."""
    return f'{{"schemaVersion":2,"subject":{{"digest":"{ABSENT}"}},"layers":[],"annotations":{annotations}}}'
