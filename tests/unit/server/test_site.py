"""The page's files and their headers, and what it hears of the store."""

from __future__ import annotations

import os
import re
import shutil
import time

import pytest
from werkzeug.test import Client

import transferkit as tk
from transferkit.server.site import Site

FILES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}


def behind(environ, start_response):
    start_response("404 Not Found", [])
    return [b"behind"]


@pytest.fixture
def cache(tmp_path):
    return tk.DiskCache(tmp_path / "cache")


@pytest.fixture
def site(cache):
    site = Site(behind, cache)
    yield Client(site)
    site.checking.close()


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_ours_alone_and_says_so(site, path):
    response = site.get(path)
    assert (200, FILES[path]) == (response.status_code, response.mimetype)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert "'none'" == policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"]
    assert {"'self'"} == {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")}
    assert ("nosniff", "DENY", "no-referrer") == tuple(
        response.headers[name] for name in ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy")
    )
    head = site.head(path)
    assert (b"", str(len(response.data))) == (head.data, head.headers["Content-Length"])


@pytest.mark.parametrize("path", FILES)
def test_a_file_names_no_foreign_host_and_has_nothing_inline(site, path):
    text = site.get(path).get_data(as_text=True)
    assert [] == [url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) if url != "http://www.w3.org"]
    if path == "/":
        assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=|javascript:", text)
    assert "innerHTML" not in text


def test_a_file_that_has_not_changed_is_not_sent_again(site):
    tag = site.get("/page.js").headers["ETag"]
    again = site.get("/page.js", headers={"If-None-Match": tag})
    assert (304, b"", tag) == (again.status_code, again.data, again.headers["ETag"])
    assert 200 == site.get("/page.js", headers={"If-None-Match": '"another"'}).status_code


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/", "GET, HEAD"), ("DELETE", "/page.js", "GET, HEAD"), ("GET", "/api/transferkit/verify", "POST"),
     ("POST", "/api/transferkit/store", "GET, HEAD")],
)  # fmt: skip
def test_another_method_is_refused(site, method, path, allowed):
    response = site.open(path, method=method)
    assert (405, allowed, "method_not_allowed") == (
        response.status_code,
        response.headers["Allow"],
        response.json["code"],
    )


@pytest.mark.parametrize("path", ["/index.html", "/page/page.js", "/../site.py", "/api/transferkit", "/api/tags"])
def test_what_it_does_not_know_is_behind(site, path):
    assert b"behind" == site.get(path).data


def test_a_store_that_is_not_there_yet_is_empty(site, cache):
    told = site.get("/api/transferkit/store").json
    assert (cache.root, 0, 0, False, None) == (
        told["path"],
        told["size"],
        told["blobs"],
        told["read_only"],
        told["verify"],
    )
    assert told["free"] > 0


def wait_for_the_end(site) -> dict:
    deadline = time.monotonic() + 10
    while (told := site.get("/api/transferkit/store").json["verify"])["ended_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return told


def test_a_check_names_what_is_wrong(site, cache):
    good, bad = cache.put(b"good"), cache.put(b"bad bytes")
    with open(cache.path(bad.digest), "r+b") as file:
        file.write(b"BAD")
    assert 200 == site.post("/api/transferkit/verify").status_code
    told = wait_for_the_end(site)
    assert (13, 13, 1, "") == (told["completed"], told["total"], told["count"], told["error"])
    assert [{"digest": str(bad.digest), "size": 9}] == told["wrong"]
    assert str(good.digest) not in str(told["wrong"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told["ended_at"])


def test_a_check_that_fails_says_why_and_the_next_one_may_not(site, cache, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise tk.StorageError("the disk refused")

    with monkeypatch.context() as patch:
        patch.setattr(tk.DiskCache, "verify", broken)
        site.post("/api/transferkit/verify")
        assert "the disk refused" == wait_for_the_end(site)["error"]
    site.post("/api/transferkit/verify")
    assert "" == wait_for_the_end(site)["error"]


def test_a_store_that_cannot_be_read_is_told(site, cache):
    cache.put(b"x")
    shutil.rmtree(cache.blobs.path)
    os.symlink("/", cache.blobs.path)
    response = site.get("/api/transferkit/store")
    assert (200, False) == (response.status_code, response.json["read_only"])
    assert "blobs" in response.json["error"]
