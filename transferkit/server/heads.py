"""The head of a request, judged before anything acts on it: bytes in, a refusal or nothing out.

Source: RFC 9112 and RFC 9110, section 5. Whatever two servers in a row could read in two ways is refused, so that no
request hides in another one: a length that stands twice or beside a transfer coding, blanks before a colon, folded
lines, bare carriage returns and line feeds, control characters, no host or two. Knows no sockets and no cheroot.
"""

from __future__ import annotations

import re

LIMIT = 64 * 1024  # bytes of request line and fields; signed URLs and big tokens stay below 16 KiB
MAX_FIELDS = 100  # as Apache and http.client have it; clients of registries send ten
END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9112, section 3: one space each, and in the target visible ASCII alone, each % with its two digits.
_LINE = re.compile(rb"(?:\r\n)?%b (?! )[!-$&-~]*(?:%%[0-9A-Fa-f]{2}[!-$&-~]*)* HTTP/([0-9]\.[0-9])\r\n" % _TOKEN)
_FIELDS = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % _TOKEN)
_FRAMING = re.compile(rb"(?i)^(host|content-length|transfer-encoding):[\t ]*(.*?)[\t ]*\r$", re.MULTILINE)
_HOST = re.compile(rb"[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]*\Z")
_LENGTH = re.compile(rb"[0-9]{1,19}\Z")


def is_ready(data: bytes | bytearray) -> bool:
    """Tell whether what has arrived of a head can be judged: it is whole, or can never become a good one."""
    return END in data or len(data) > LIMIT or data.count(b"\n") != data.count(b"\r\n")


def refusal(head: bytes) -> tuple[str, str] | None:
    """Return the status and the reason with which a request is refused, or ``None`` if its head is in order.

    >>> refusal(b"GET /v2/ HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    >>> refusal(b"GET /v2/ HTTP/1.1\\r\\n\\r\\n")
    ('400 Bad Request', 'A request has one Host.')
    """
    if len(head) > LIMIT:
        if b"\r\n" not in head[2:LIMIT]:
            return "414 URI Too Long", f"A request line is at most {LIMIT} bytes long."
        return "431 Request Header Fields Too Large", f"The head of a request is at most {LIMIT} bytes long."
    line = _LINE.match(head)
    if line is None:
        return _bad("The request line is malformed.")
    version = line[1]
    if version not in (b"1.0", b"1.1"):
        return "505 HTTP Version Not Supported", "This server speaks HTTP/1.1 and HTTP/1.0."
    if _FIELDS.fullmatch(head, line.end()) is None:
        return _bad("A header field is malformed.")
    fields = head[line.end() :]
    if fields.count(b"\r\n") > MAX_FIELDS + 1:
        return "431 Request Header Fields Too Large", f"A request has at most {MAX_FIELDS} header fields."
    found: dict[bytes, list[bytes]] = {}
    for name, value in _FRAMING.findall(fields):
        found.setdefault(name.lower(), []).append(value)
    hosts = found.get(b"host", [])
    if len(hosts) > 1 or (not hosts and version == b"1.1") or not all(map(_HOST.match, hosts)):
        return _bad("A request has one Host.")
    return _framing(version, found.get(b"content-length", []), found.get(b"transfer-encoding", []))


def _framing(version: bytes, lengths: list[bytes], codings: list[bytes]) -> tuple[str, str] | None:
    """Judge what says where the body ends: one length, or the chunked coding, or nothing (RFC 9112, section 6)."""
    if len(lengths) > 1 or not all(map(_LENGTH.match, lengths)):
        return _bad("A Content-Length is one number of bytes.")
    if not codings:
        return None
    if lengths or version == b"1.0":
        return _bad("A Transfer-Encoding goes neither with a Content-Length nor with HTTP/1.0.")
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    if any(name not in (b"chunked", b"") for name in names):
        return "501 Not Implemented", "This server knows the transfer coding chunked alone."
    return None if names == [b"chunked"] else _bad("A Transfer-Encoding is chunked, once.")


def _bad(reason: str) -> tuple[str, str]:
    return "400 Bad Request", reason
