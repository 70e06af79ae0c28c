"""``transferkit serve`` under curl, aria2c and a bare socket: heads, bodies, ranges, and how a connection goes on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.models import digest_of
from tests.integration.conftest import program
from tests.integration.served import PASSWORD, USER, Served

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("served")]

CONTENT = bytes(range(256)) * 400
DIGEST = digest_of(CONTENT)
BLOB = f"/v2/team/raw/blobs/{DIGEST}"
UPLOADS = "/v2/team/raw/blobs/uploads/"


@dataclass(frozen=True, slots=True)
class Said:
    """What curl was told."""

    head: str
    """Of all answers, one after the other, as they came."""
    body: bytes
    sent: int
    """Bytes of the request's body."""
    connections: int
    """Those that the last request opened."""

    @property
    def status(self) -> int:
        """The last one."""
        return int(re.findall(r"^HTTP/1.1 (\d+)", self.head, re.MULTILINE)[-1])

    def __getitem__(self, name: str) -> str | None:
        """The last field of this name."""
        found = re.findall(rf"(?im)^{name}: *(.*?)\r$", self.head)
        return found[-1] if found else None


Curl = Callable[..., Said]


@pytest.fixture
def curl(tmp_path: Path) -> Curl:
    """``curl(url, ...)`` runs it, with nothing of the user's."""
    executable = program("curl", package="curl")
    head, body = tmp_path / "head", tmp_path / "body"

    def run(*arguments: str | Path, stdin: bytes = b"") -> Said:
        body.write_bytes(b"")
        written = "%{size_upload} %{num_connects}\n"
        command = [executable, "-q", "-sS", "--noproxy", "*", "-m", "30", "-D", head, "-o", body, "-w", written]
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, timeout=40, check=False)
        assert done.returncode == 0, done.stderr
        sent, connections = map(int, done.stdout.split()[-2:])
        return Said(head.read_bytes().decode(), body.read_bytes(), sent, connections)

    return run


@pytest.fixture
def url(plain: Served, curl: Curl) -> str:
    """The URL of a registry that has the content."""
    if curl("-I", plain.url + BLOB).status == 404:
        assert 201 == curl("--data-binary", "@-", f"{plain.url}{UPLOADS}?digest={DIGEST}", stdin=CONTENT).status
    return plain.url


def test_curl_is_told_what_the_specification_says(url: str, curl: Curl) -> None:
    said = curl(f"{url}/v2/")
    assert (200, b"{}", "registry/2.0") == (said.status, said.body, said["Docker-Distribution-Api-Version"])
    said = curl("--compressed", url + BLOB)
    assert (200, CONTENT, None) == (said.status, said.body, said["Content-Encoding"])
    assert (DIGEST, f'"{DIGEST}"', "bytes") == (said["Docker-Content-Digest"], said["ETag"], said["Accept-Ranges"])
    head = curl("-I", url + BLOB)
    assert (200, b"", str(len(CONTENT))) == (head.status, head.body.partition(b"\r\n\r\n")[2], head["Content-Length"])
    said = curl(f"{url}/v2/team/raw/blobs/sha256:{64 * '0'}")
    assert (404, "BLOB_UNKNOWN") == (said.status, json.loads(said.body)["errors"][0]["code"])
    assert (404, "MANIFEST_UNKNOWN") == (
        (said := curl(f"{url}/v2/team/raw/manifests/none")).status,
        json.loads(said.body)["errors"][0]["code"],
    )
    assert (405, "GET, HEAD, DELETE") == ((said := curl("-X", "PATCH", url + BLOB)).status, said["Allow"])


@pytest.mark.parametrize(
    ("wanted", "span", "content"),
    [
        ("0-0", "0-0", CONTENT[:1]),
        ("1000-1999", "1000-1999", CONTENT[1000:2000]),
        ("102000-", "102000-102399", CONTENT[102000:]),
        ("-5", "102395-102399", CONTENT[-5:]),
        ("5-999999999", "5-102399", CONTENT[5:]),
    ],
    ids=["one", "middle", "open", "suffix", "beyond"],
)
def test_curl_gets_ranges(url: str, curl: Curl, wanted: str, span: str, content: bytes) -> None:
    said = curl("-r", wanted, url + BLOB)
    assert (206, f"bytes {span}/102400", content) == (said.status, said["Content-Range"], said.body)
    assert str(len(content)) == said["Content-Length"]


def test_curl_gets_no_range_where_there_is_none(url: str, curl: Curl) -> None:
    assert (416, "bytes */102400") == ((said := curl("-r", "102400-", url + BLOB)).status, said["Content-Range"])
    assert (200, CONTENT) == ((said := curl("-r", "0-1,4-5", url + BLOB)).status, said.body)  # several: the whole
    assert (206, CONTENT[50_000:]) == ((said := curl("-C", "50000", url + BLOB)).status, said.body)  # it continues


def test_curl_is_not_sent_what_it_has(url: str, curl: Curl, tmp_path: Path) -> None:
    said = curl("-H", f'If-None-Match: "{DIGEST}"', url + BLOB)
    assert (304, b"", f'"{DIGEST}"') == (said.status, said.body, said["ETag"])
    assert 200 == curl("-H", 'If-None-Match: "other"', url + BLOB).status
    assert 412 == curl("-H", 'If-Match: "other"', url + BLOB).status
    curl("--etag-save", tmp_path / "etag", url + BLOB)
    assert 304 == curl("--etag-compare", tmp_path / "etag", url + BLOB).status


def test_curl_is_challenged(secure: Served, curl: Curl) -> None:
    trusting = ["--cacert", secure.ca]
    said = curl(*trusting, f"{secure.url}/v2/")
    assert (401, "UNAUTHORIZED") == (said.status, json.loads(said.body)["errors"][0]["code"])
    assert re.match(r'Basic realm="[^"]+"', said["WWW-Authenticate"] or "")
    assert 401 == curl(*trusting, "-u", f"{USER}:wrong", f"{secure.url}/v2/").status
    said = curl(*trusting, "--anyauth", "-u", f"{USER}:{PASSWORD}", f"{secure.url}/v2/")
    assert (["401", "200"], 200) == (re.findall(r"HTTP/1.1 (\d+)", said.head), said.status)


# -- uploads


def location_of(said: Said, url: str) -> str:
    location = said["Location"]
    assert location is not None
    return location if location.startswith("http") else url + location


def test_curl_uploads_a_stream_of_unknown_length(url: str, curl: Curl) -> None:
    content = b"a stream " * 300_000
    location = location_of(curl("-X", "POST", url + UPLOADS), url)
    said = curl("-T", "-", "-H", "Expect:", f"{location}&digest={digest_of(content)}", stdin=content)
    assert (201, digest_of(content)) == (said.status, said["Docker-Content-Digest"])
    assert content == curl(url + (said["Location"] or "")).body


def test_curl_uploads_in_parts_and_is_told_how_far_it_is(url: str, curl: Curl) -> None:
    content = b"in parts " * 100_000
    halves = content[:400_000], content[400_000:]
    location = location_of(curl("-X", "POST", url + UPLOADS), url)
    patch = ["-X", "PATCH", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-"]
    said = curl(*patch, "-H", "Content-Range: 0-399999", location, stdin=halves[0])
    assert (202, "0-399999") == (said.status, said["Range"])
    assert (204, "0-399999") == ((told := curl(location_of(said, url))).status, told["Range"])
    assert 416 == curl(*patch, "-H", "Content-Range: 0-9", location_of(said, url), stdin=halves[0][:10]).status
    said = curl("-T", "-", "-X", "PATCH", location_of(said, url), stdin=halves[1])  # chunked, without a range
    assert (202, "0-899999") == (said.status, said["Range"])
    said = curl("-X", "PUT", "-d", "", f"{location_of(said, url)}&digest={digest_of(content)}")
    assert (201, content) == (said.status, curl(url + (said["Location"] or "")).body)


def test_curl_uploads_by_sha512(url: str, curl: Curl) -> None:
    digest = f"sha512:{hashlib.sha512(CONTENT).hexdigest()}"
    said = curl("--data-binary", "@-", f"{url}{UPLOADS}?digest={digest}", stdin=CONTENT)
    assert (201, digest) == (said.status, said["Docker-Content-Digest"])
    assert CONTENT == curl(f"{url}/v2/team/raw/blobs/{digest}").body


def test_curl_waits_for_an_invitation_and_is_spared_the_body(url: str, secure: Served, curl: Curl) -> None:
    content = b"an invitation " * 300_000
    waiting = ["-H", "Expect: 100-continue", "--expect100-timeout", "25", "-T", "-"]
    location = location_of(curl("-X", "POST", url + UPLOADS), url)
    said = curl(*waiting, f"{location}&digest={digest_of(content)}", stdin=content)
    assert ["100", "201"] == re.findall(r"HTTP/1.1 (\d+)", said.head)
    assert said.sent >= len(content)
    said = curl(*waiting, "--cacert", secure.ca, f"{secure.url}{UPLOADS}", stdin=content)
    assert (["401"], 0) == (re.findall(r"HTTP/1.1 (\d+)", said.head), said.sent)


def test_curl_speaks_the_older_protocol(url: str, curl: Curl) -> None:
    said = curl("--http1.0", url + BLOB)
    assert (200, CONTENT, None) == (said.status, said.body, said["Transfer-Encoding"])
    assert 206 == curl("--http1.0", "-r", "0-9", url + BLOB).status
    content = b"older " * 100_000
    said = curl("--http1.0", "--data-binary", "@-", f"{url}{UPLOADS}?digest={digest_of(content)}", stdin=content)
    assert (201, content) == (said.status, curl(url + (said["Location"] or "")).body)


def test_curl_keeps_its_connection(url: str, curl: Curl) -> None:
    said = curl(url + BLOB, "-o", os.devnull, f"{url}/v2/none", "-o", os.devnull, f"{url}/v2/")
    assert ["200", "404", "200"] == re.findall(r"HTTP/1.1 (\d+)", said.head)
    assert 0 == said.connections, "the last of three requests opened a connection"


def test_requests_in_one_packet_are_answered_one_after_the_other(url: str) -> None:
    requests = b"".join(
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n".encode()
        for method, path, more in (
            ("GET", BLOB, "Range: bytes=0-4\r\n"),
            ("HEAD", BLOB, ""),
            ("GET", "/v2/team/raw/blobs/sha256:0", ""),
            ("GET", BLOB, "Connection: close\r\n"),
        )
    )
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(requests)
        received = b""
        while block := connection.recv(65536):
            received += block
    answers = re.split(rb"(?=HTTP/1\.1 )", received)[1:]
    assert [b"206", b"200", b"400", b"200"] == [each.split()[1] for each in answers]
    bodies = [each.partition(b"\r\n\r\n")[2] for each in answers]
    assert [CONTENT[:5], b"", CONTENT] == [bodies[0], bodies[1], bodies[3]]


# -- aria2c


@pytest.mark.parametrize("kind", ["registry", "mirror"])
def test_aria2c_pulls_a_blob_in_ranges_at_once(
    kind: str, request: pytest.FixtureRequest, large: tuple[Path, str], curl: Curl, tmp_path: Path
) -> None:
    path, digest = large
    server: Served = request.getfixturevalue("plain" if kind == "registry" else "mirror")
    if kind == "registry":
        location = location_of(curl("-X", "POST", server.url + UPLOADS), server.url)
        assert 201 == curl("-T", path, f"{location}&digest={digest}").status
    else:
        tk.DiskCache(server.folder).import_file(path)
    executable = program("aria2c", package="aria2")
    arguments: list[Any] = ["--no-conf", "-q", "-x16", "-s16", "-k1M", f"--checksum=sha-256={digest[7:]}"]
    arguments += ["-d", tmp_path, "-o", "got", "-l", tmp_path / "log", "--log-level=info", "--no-netrc"]
    arguments += ["--all-proxy=", "--file-allocation=none", "--async-dns=false", "--max-download-limit=64M"]
    source = f"{server.url}/v2/team/raw/blobs/{digest}"
    subprocess.run([executable, *arguments, source], check=True, timeout=60, stdin=subprocess.DEVNULL)

    assert path.read_bytes() == (tmp_path / "got").read_bytes()
    # About sixteen; without a limit the first of them, which asks for the whole, has it before the others begin.
    assert (tmp_path / "log").read_text().count("HTTP/1.1 206 ") >= 8, "it was not pulled in ranges"
