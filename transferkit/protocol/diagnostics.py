"""What a refusal means: status and body of an error answer, in; one of our exceptions, out.

Bodies come as OCI's ``{"errors": [...]}``, as Ollama's ``{"error": ..., "code": ...}``, as plain text and as HTML pages
of a proxy. At most 64 KiB of one is ever read (``MAX_ERROR_BODY``), and a line of it is shown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from transferkit import errors
from transferkit.protocol.advice import about
from transferkit.protocol.origin import redact

MAX_ERROR_BODY = 64 * 1024
_SHOWN = 300  # characters of the registry's own words
_TITLE = 80  # and of the title of a page
PAGE = "an HTML page, not a registry's answer"
# Besides 5xx: 408 and 425 say "again", 429 "later"; 499 comes from proxies whose upstream did not answer.
_RETRYABLE = frozenset({408, 425, 429, 499})
_KINDS = {401: errors.UnauthorizedError, 403: errors.DeniedError, 429: errors.RateLimitedError}
# Codes that say the same, whatever the status: registries send them with 400, 403 and 404 too. From the list of
# go-containerregistry (pkg/v1/remote/transport/error.go, ``temporaryErrorCodes``), whose crane tries them again:
# BLOB_UPLOAD_INVALID (OCI distribution specification: "a blob upload that can no longer proceed"), TOOMANYREQUESTS
# (the specification: "too many requests"), UNKNOWN and UNAVAILABLE (docker/distribution, registry/api/errcode). And
# BLOB_UPLOAD_UNKNOWN (the specification: the session is not known, or was cancelled), for which another one is begun.
_TEMPORARY = frozenset({"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE"})
# Where the status says more than a code: who asks, how much, which range.
_STATUS_DECIDES = frozenset({401, 413, 416})
_UNKNOWN_BLOB = "MANIFEST_BLOB_UNKNOWN"  # with 404 by the OCI specification, with 400 from docker-registry
_UNKNOWN_MANIFEST = "MANIFEST_UNKNOWN"
_RESET = re.compile(r";\s*t=([0-9]{1,9})(?![0-9])", re.ASCII)


class Complaint(NamedTuple):
    """The registry's own words, bounded."""

    code: str = ""
    message: str = ""
    detail: str = ""


def _line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN])
    return " ".join(printable.split())[:_SHOWN]


def read_complaint(body: bytes, content_type: str = "") -> Complaint:
    """Return what an error body says; never raises, whatever it holds."""
    text = body[:MAX_ERROR_BODY].decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        data = json.loads(text)
        listed = data.get("errors") if isinstance(data, dict) else None
        first = listed[0] if isinstance(listed, list) and listed else data
        if isinstance(first, dict):
            message = first.get("message") or first.get("error")
            return Complaint(*(_line(part or "") for part in (first.get("code"), message, first.get("detail"))))
    if "html" in content_type.lower() or text.lstrip()[:1] == "<":
        title = _title(text)
        return Complaint(message=f"{PAGE} ({title!r})" if title else PAGE)
    return Complaint(message=_line(text))


def _title(text: str) -> str:
    """Return the title of an HTML page: proxies and web servers say there what is wrong."""
    begin = text.lower().find("<title>")
    end = text.lower().find("</title", begin)
    return _line(text[begin + 7 : end])[:_TITLE] if 0 <= begin < end else ""


def read_retry_after(value: str | None, *, now: float) -> float | None:
    """Return how many seconds a ``Retry-After`` asks for; ``now`` is the Unix time.

    Both forms of RFC 9110 section 10.2.3. A past date or a negative number is 0; what does not parse is ``None``.
    """
    text = (value or "").strip()[:64]
    try:
        seconds = float(text)
    except ValueError:
        from datetime import timezone
        from email.utils import parsedate_to_datetime  # here: few registries send a date, and it imports half of email

        try:
            date = parsedate_to_datetime(text)
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
        # A date without a zone is GMT by the RFC; naive ones would be read as local time.
        seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - now
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def read_reset(value: str | None) -> float | None:
    """Return in how many seconds a ``RateLimit`` begins anew; ``None`` where it does not say.

    Source: draft-ietf-httpapi-ratelimit-headers-09; the Hugging Face hub sends it with each answer.

    >>> read_reset('"resolvers";r=0;t=55')
    55.0
    """
    match = _RESET.search((value or "")[:200])
    return float(match[1]) if match else None


def refusal(
    *,
    method: str,
    url: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    max_retry_after: float,
    subject: str = "",
    missing: type[errors.NotFoundError] = errors.NotFoundError,
    hint: str = "pass auth=, token= or get_token=",
) -> errors.TransferKitError:
    """Return the exception for an answer that is a refusal.

    ``subject`` names what was asked for (a short digest, a tag); ``missing`` is what a 404 means, ``hint`` what to do
    about a 401. The refusal of a manifest that names blobs which are not there is a ``BlobNotFoundError``;
    ``MANIFEST_UNKNOWN`` is a ``ManifestNotFoundError``, whatever its status and case.
    """
    complaint = read_complaint(body, headers.get("content-type") or "")
    code, message = headers.get("x-error-code"), headers.get("x-error-message")  # the Hugging Face hub has them here
    if code or message:
        complaint = Complaint(_line(code or complaint.code), _line(message or complaint.message), complaint.detail)
    place = redact(url)
    coded = f"code {complaint.code}" if complaint.code else ""
    words = ": ".join(filter(None, (f"registry responded with status {status}", coded, complaint.message)))
    named = f"{subject}: " if subject and subject not in place else ""  # a digest stands there once
    text = f"{named}{method} {place}: {words}"
    unknown = complaint.code.upper()
    meant = 404 if unknown == _UNKNOWN_MANIFEST else status
    if advice := about(meant, place, is_page=complaint.message.startswith(PAGE)):
        text += f"; {advice}"
    if unknown == _UNKNOWN_MANIFEST:
        return errors.ManifestNotFoundError(text)
    # Some registries say BLOB_UNKNOWN to a manifest, too.
    is_push = method == "PUT" and "/manifests/" in place
    if status in (400, 404) and (unknown == _UNKNOWN_BLOB or (unknown == "BLOB_UNKNOWN" and is_push)):
        blobs = f": {complaint.detail}" if complaint.detail else ""
        return errors.BlobNotFoundError(f"{text}; what it names has to be in the repository first{blobs}")
    is_temporary = complaint.code in _TEMPORARY and status not in _STATUS_DECIDES
    if status == 404:
        # "Unknown" is what was asked for, with this status.
        return missing(text, retryable=is_temporary and complaint.code != "UNKNOWN")
    # Ollama's client makes up 999 where nothing else is known, and its own tests send it: it is no 5xx.
    failed = 500 <= status < 600
    kind = _KINDS.get(status, errors.ServerError if failed else errors.RegistryError)
    if is_temporary and complaint.code == "TOOMANYREQUESTS":
        kind = errors.RateLimitedError
    is_limit = status == 503 or kind is errors.RateLimitedError
    wait = read_retry_after(headers.get("retry-after"), now=now) if is_limit else None
    if wait is None and kind is errors.RateLimitedError:
        wait = read_reset(headers.get("ratelimit"))
    retryable = is_temporary or status in _RETRYABLE or (failed and status not in (501, 505))
    if status == 401:
        text += f"; {hint}"
    if wait is not None and wait > max_retry_after:
        retryable = False
        text += f"; it asks to come back in {wait:.0f} s, more than RetryOptions(max_retry_after={max_retry_after:.0f})"
    return kind(
        text,
        method=method,
        url=place,
        status=status,
        **complaint._asdict(),
        retry_after=wait,
        retryable=retryable,
    )
