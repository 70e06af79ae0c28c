"""A server that answers as the Hugging Face hub does, and a CDN at another origin that has what is in LFS.

What it says, with which fields and statuses, is from exchanges with huggingface.co that github.com/wzshiming/xet has
recorded on 2026-09-25 with hf 1.31 (client/hf/hftest/testdata/ref-download-plain.json and ref-anonymous.json), and from
huggingface_hub: ``utils/_http.py`` (X-Error-Code, 401 for what does not exist), ``utils/_pagination.py`` (Link), and
``file_download.py`` (X-Repo-Commit, X-Linked-Size, X-Linked-Etag). The 307 to ``/api/resolve-cache/`` and the
``RateLimit`` fields are as in many public logs of the last year.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from transferkit.testing import RawRequest, answer, scripted_server
from transferkit.testing.scripted import Step

COMMIT = "bcf51b2ec6fb5bc8215f4b365a0e48532e26abb8"
TOKEN = "hf_" + 34 * "x"
SIGNED = "X-Signature=s1gn4tur3"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def refusal(status: int, code: str, message: str) -> bytes:
    fields = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json; charset=utf-8"}
    if status == 401:
        fields["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return answer(status, json.dumps({"error": message}).encode(), {k: v for k, v in fields.items() if v})


class ScriptedHub:
    """A hub with one repository; what a test changes of it, it does before it asks, or in ``before``.

    ``files`` are contents by path, and those of ``lfs`` are on the CDN. With a ``token`` the repository is private.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        lfs: Iterable[str] = (),
        repository: str = "org/model",
        kind: str = "models",
        token: str | None = None,
        page: int = 1000,
        revision: str = "main",
    ) -> None:
        self.files = files
        self.lfs = set(lfs)
        self.prefix = "" if kind == "models" else f"/{kind}"
        self.repository = repository
        self.api = f"/api/{kind}/{repository}"
        self.token = token
        self.page = page
        self.revision = revision
        self.before: Callable[[RawRequest], Step | None] = lambda request: None
        """Answers in the place of the hub, where it returns something."""
        self.before_cdn: Callable[[RawRequest], Step | None] = lambda request: None
        self.known_as = ""
        """The base URL in its links; by default its own."""
        self.front = scripted_server(self._front)
        self.cdn = scripted_server(self._cdn)
        self._stack = ExitStack()

    def __enter__(self) -> ScriptedHub:
        self._stack.enter_context(self.cdn)
        self._stack.enter_context(self.front)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self.front.url

    def asked(self, part: str = "") -> list[str]:
        """The paths that the hub was asked for, as they were sent, without queries."""
        return [r.target.partition("?")[0] for r in self.front.requests if part in r.target]

    def entries(self) -> list[dict[str, Any]]:
        folders = {path.rpartition("/")[0] for path in self.files} - {""}
        found = [{"type": "directory", "oid": 40 * "d", "size": 0, "path": folder} for folder in sorted(folders)]
        for path, content in sorted(self.files.items()):
            entry: dict[str, Any] = {"type": "file", "oid": git_oid(content), "size": len(content), "path": path}
            if path in self.lfs:
                pointer = b"version https://git-lfs.github.com/spec/v1\n" + sha256(content).encode()
                entry["oid"] = git_oid(pointer)
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 132}
                entry["xetHash"] = 64 * "f"
            found.append(entry)
        return found

    def _front(self, request: RawRequest) -> Step:
        said = self.before(request)
        if said is None:
            said = self._answer(request)
        return _head(said) if request.method == "HEAD" and isinstance(said, bytes) else said

    def _answer(self, request: RawRequest) -> bytes:
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(401, "", "Invalid username or password.")
        parts = urlsplit(request.target)
        path = unquote(parts.path)
        if path == self.api or path.startswith(f"{self.api}/revision/"):
            if path.removeprefix(self.api) not in ("", f"/revision/{self.revision}", f"/revision/{COMMIT}"):
                return refusal(404, "RevisionNotFound", "Invalid rev id: nowhere")
            names = [{"rfilename": path} for path in self.files]
            return _json({"id": self.repository, "sha": COMMIT, "private": False, "gated": False, "siblings": names})
        if path == f"{self.api}/tree/{COMMIT}":
            return self._tree(parse_qs(parts.query))
        base = f"{self.prefix}/{self.repository}/resolve/{COMMIT}/"
        cache = f"/api/resolve-cache{self.api.removeprefix('/api')}/{COMMIT}/"
        if path.startswith(base):
            return self._resolve(path.removeprefix(base), cache)
        if path.startswith(cache):
            content = self.files[path.removeprefix(cache)]
            return _ranged(request, content, {"ETag": f'"{git_oid(content)}"', "X-Repo-Commit": COMMIT})
        # Without a token it is not said what is private and what does not exist.
        return refusal(401 if "authorization" not in request.headers else 404, "RepoNotFound", "Repository not found")

    def _tree(self, query: dict[str, list[str]]) -> bytes:
        entries, at = self.entries(), int(query.get("cursor", ["0"])[0])
        fields = {}
        if at + self.page < len(entries):
            base = self.known_as or self.url
            url = f"{base}{self.api}/tree/{COMMIT}?recursive=true&expand=false&cursor={at + self.page}"
            fields["Link"] = f'<{url}>; rel="next"'
        return _json(entries[at : at + self.page], fields)

    def _resolve(self, path: str, cache: str) -> bytes:
        if path not in self.files:
            return refusal(404, "EntryNotFound", "Entry not found")
        content = self.files[path]
        if path not in self.lfs:
            return answer(307, b"", {"Location": f"{cache}{quote(path)}?etag=%22{git_oid(content)}%22"})
        fields = {
            "Location": f"{self.cdn.url}/xet-bridge-us/{sha256(content)}?{SIGNED}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{sha256(content)}"',
            "Accept-Ranges": "bytes",
        }
        return answer(302, b"Found. Redirecting to the CDN", fields)

    def _cdn(self, request: RawRequest) -> Step:
        said = self.before_cdn(request)
        if said is not None:
            return said
        path, _, query = request.target.partition("?")
        if query != SIGNED:
            return answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        content = next(c for c in self.files.values() if path.endswith(sha256(c)))
        return _ranged(request, content, {"ETag": f'"{sha256(content)}"'})


def _head(said: bytes) -> bytes:
    """Return an answer without its body."""
    return said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _json(value: Any, fields: dict[str, str] | None = None) -> bytes:
    named = {"Content-Type": "application/json; charset=utf-8", "RateLimit": '"api";r=485;t=163', **(fields or {})}
    return answer(200, json.dumps(value).encode(), named)


def _ranged(request: RawRequest, content: bytes, fields: dict[str, str]) -> bytes:
    wanted = request.headers.get("range", "").removeprefix("bytes=")
    if not wanted:
        return answer(200, content, fields)
    start, _, end = wanted.partition("-")
    first, last = int(start), min(int(end or len(content)), len(content) - 1)
    if first >= len(content):
        return answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
    said = {"Content-Range": f"bytes {first}-{last}/{len(content)}", **fields}
    return answer(206, content[first : last + 1], said)


def use(hub: ScriptedHub | str, patch: pytest.MonkeyPatch, home: object, token: str | None = None) -> None:
    """Have the library speak to this hub, with this token and no other one."""
    for name in (
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    ):
        patch.delenv(name, raising=False)
    patch.setenv("HF_HOME", str(home))
    patch.setenv("HF_ENDPOINT", hub if isinstance(hub, str) else hub.url)
    if token is not None:
        patch.setenv("HF_TOKEN", token)
