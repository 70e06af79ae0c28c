"""Bad input gets a clear error, and nothing is lost."""

from __future__ import annotations

import errno
import functools
import os
import pickle
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"
GOOD = 64 * "a"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def download(url, blobs, folder, **keywords):
    return tk.download(blobs, folder, base_url=url, repository=REPOSITORY, **keywords)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:" + GOOD[1:],
        "sha256:" + GOOD + "a",
        "sha256:" + GOOD.upper(),
        "SHA256:" + GOOD,
        "sha256:" + "g" + GOOD[1:],
        "sha256:../../../../etc/passwd",
        "sha256:../" + GOOD[3:],
        "sha256-" + GOOD,
        "sha256:" + GOOD + "\n",
        "sha256:" + GOOD[1:] + "\n",
        "sha256:" + GOOD[1:] + "\x00",
        " sha256:" + GOOD,
        "sha256:" + "\uff11" * 64,
        "sha256:" + "\u0661" * 64,
        "md5:" + 32 * "a",
        "sha1:" + 40 * "a",
        "sha512:" + GOOD,
        GOOD,
        None,
        7,
        b"sha256:" + GOOD.encode(),
    ],
)
def test_a_malformed_digest_is_refused_before_any_request_or_path(registry, tmp_path, digest):
    with pytest.raises(tk.InvalidDigestError):
        tk.digest_to_path(digest)
    with pytest.raises(ValueError, match="digest"):
        download(registry.url, [tk.Blob(digest, 5)], tmp_path / "d")
    with pytest.raises(tk.InvalidDigestError):
        tk.Descriptor(digest, 5)

    assert 0 == len(registry.log)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("size", [-1, 2**63, 10**30, 1.5, "5", None, True])
def test_a_negative_or_absurd_size_is_refused(size):
    with pytest.raises(tk.InvalidDescriptorError, match="size"):
        tk.Blob("sha256:" + GOOD, size)


@pytest.mark.parametrize("blob", ["sha256:" + GOOD, {"digest": "sha256:" + GOOD}, None])
def test_something_that_is_no_blob_is_refused(registry, tmp_path, blob):
    with pytest.raises(TypeError, match=r"^blobs are Blob or Descriptor objects, such as Blob\(digest, size\), not "):
        download(registry.url, [blob], tmp_path / "d")


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../b", "a/../b", "a b", "a\n", "a%2fb", "a?b", "a#b", "é", "a" * 256, None]
)
def test_a_repository_that_is_no_name_is_refused(registry, tmp_path, name):
    with pytest.raises(tk.InvalidNameError):
        tk.download([tk.Blob("sha256:" + GOOD, 5)], tmp_path, base_url=registry.url, repository=name)
    assert 0 == len(registry.log)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry",
        "http://a..b",
        "ftp://host",
        "file:///etc",
        "http://",
        "http://h:99999",
        "http://h/?a=b",
        "http://h#f",
        "http://h o",
    ],
)
def test_a_base_url_that_is_none_is_refused(tmp_path, url):
    with pytest.raises(tk.InvalidNameError):
        download(url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path)


def test_a_password_in_the_base_url_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(tk.InvalidNameError) as caught:
        download("https://user:hunter2@registry.example", [tk.Blob("sha256:" + GOOD, 5)], tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("tag", ["", "a b", "-a", "a" * 129, "../x", "a/b", "a\n"])
def test_a_tag_that_is_none_is_refused(registry, tmp_path, tag):
    with pytest.raises((tk.InvalidNameError, tk.InvalidDigestError)):
        tk.fetch_manifest(tag, base_url=registry.url, repository=REPOSITORY)
    with pytest.raises((tk.InvalidNameError, tk.InvalidDigestError)):
        tk.upload([], tmp_path, base_url=registry.url, repository=REPOSITORY, manifest=b"{}", manifest_ref=tag)
    assert 0 == len(registry.log)


def test_a_destination_that_is_a_file(registry, tmp_path):
    (tmp_path / "d").write_bytes(b"keep me")

    with pytest.raises(tk.StorageError, match="a part of the path is a file"):
        download(registry.url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path / "d")
    assert b"keep me" == (tmp_path / "d").read_bytes()
    assert 0 == len(registry.log)


class ForeignDisk(Disk):
    """A folder of another user. Root writes everywhere, so the system's answer is given in its place."""

    def create(self, path: str, folder: int | None = None) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def test_a_destination_that_is_not_writable(registry, tmp_path, monkeypatch):
    (tmp_path / "d" / ".partial").mkdir(parents=True)
    monkeypatch.setattr("transferkit.arguments.Directory", functools.partial(Directory, disk=ForeignDisk()))

    with pytest.raises(tk.StorageError, match="check the permissions"):
        download(registry.url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path / "d")
    assert 0 == len(registry.log)


def test_a_file_system_that_is_wrong_about_permissions_is_good_enough(registry, make_blobs, tmp_path, monkeypatch):
    """``access`` may be answered from other users' figures than those that count, on CIFS, NFS and FUSE."""
    blobs = make_blobs(tmp_path / "s", [1_000])
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository="library/model")
    (tmp_path / "d" / ".partial").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert 1_000 == download(registry.url, blobs, tmp_path / "d").bytes


class ReadOnlyDisk(Disk):
    """A file system that can only be read."""

    def make_folder(self, *_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    create = reopen = open_append = rename = unlink = make_folder


@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_folder_that_can_only_be_read_and_has_everything_is_enough(
    registry, make_blobs, tmp_path, monkeypatch, is_remembered
):
    blobs, folder = make_blobs(tmp_path / "d", [1_000, 300_000]), tmp_path / "d"
    options = tk.TransferOptions(resume_threshold=100_000)
    if is_remembered:
        download(registry.url, blobs, folder, options=options)
    monkeypatch.setattr("transferkit.arguments.Directory", functools.partial(Directory, disk=ReadOnlyDisk()))
    report = download(registry.url, blobs, folder, options=options)
    assert (0, 2, 0) == (report.bytes, report.skipped, len(registry.log))
    assert is_remembered == (folder / ".partial").exists()

    (folder / tk.digest_to_path(blobs[1].digest)).write_bytes(bytes(300_000))
    with pytest.raises(tk.StorageError, match="read-only"):
        download(registry.url, blobs, folder, options=options)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_call_at_once_and_leaves_nothing_half(registry, make_blobs, tmp_path, small_disk):
    blobs = make_blobs(tmp_path / "source", [1024 * 1024] * 12)
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    registry.log.clear()

    with pytest.raises(tk.OutOfSpaceError, match="free some") as caught:
        download(registry.url, blobs, small_disk / "d", concurrency=2)

    assert not caught.value.retryable
    assert len(registry.log) <= 6  # three fit, two more were under way
    for name in names(small_disk / "d"):
        assert (tmp_path / "source" / name).read_bytes() == (small_disk / "d" / name).read_bytes()
    assert [] == [n for n in names(small_disk / "d" / ".partial") if n != "verified"]


class FullDisk(Disk):
    """A disk that is full after some bytes, or that takes only a part of what it is given."""

    def __init__(self, room: int, error: int) -> None:
        self.room = room
        self.error = error
        self.failed = 0

    def pwrite(self, fd: int, data: memoryview, offset: int) -> None:
        if self.room < len(data):
            self.failed += 1
            super().pwrite(fd, data[: self.room], offset)
            raise OSError(self.error, os.strerror(self.error))
        self.room -= len(data)
        super().pwrite(fd, data, offset)


@pytest.mark.parametrize(("code", "kind"), [(28, tk.OutOfSpaceError), (122, tk.OutOfSpaceError), (5, tk.StorageError)])
def test_a_disk_error_is_never_retried(registry, make_blobs, tmp_path, code, kind):
    from transferkit.remote.repository import Repository
    from transferkit.transfer.operation import Operation
    from transferkit.transport.client import Client
    from transferkit.transport.hosts import Hosts

    blobs = make_blobs(tmp_path / "source", [400_000])
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    disk = FullDisk(300_000, code)
    target = Directory(tmp_path / "d", disk=disk)
    with Hosts() as hosts, Operation(concurrency=1) as operation:
        client = Client(registry.url, hosts)
        descriptors = [tk.Descriptor(b.digest, b.size) for b in blobs]
        with pytest.raises(kind) as caught:
            operation.copy(descriptors, Repository(client, REPOSITORY), target)

    assert code == caught.value.errno
    assert 1 == disk.failed
    assert [] == names(tmp_path / "d")
    assert [] == os.listdir(tmp_path / "d" / ".partial")


def test_an_unreachable_host_is_an_error_that_names_it(tmp_path, impatient):
    with socket.socket() as bound:  # and not listening: ours, so that nobody else is there
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(tk.RetriesExhaustedError, match=f"cannot connect to {url}") as caught:
            download(url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path, options=impatient)

    assert isinstance(caught.value.__cause__, tk.ConnectError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), tk.ConnectError)
    assert 2 == caught.value.attempts


def test_a_host_name_that_is_unknown_is_final(tmp_path, monkeypatch):
    def unknown(*_: object, **__: object):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(tk.ConnectError, match="does not resolve"):
        download("http://no-such-host.invalid", [tk.Blob("sha256:" + GOOD, 5)], tmp_path)


def page_of_html(app):
    def middle(environ, start_response):
        body = b"<html><title>Please log in</title></html>"
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
        return [body]

    return middle


def test_a_server_that_answers_html_is_told_apart(tmp_path, impatient):
    with running_registry(middleware=page_of_html) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            download(registry.url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path / "d", options=impatient)
        (error,) = caught.value.failures.values()
        assert isinstance(error, tk.SizeMismatchError)
        assert "text/html" in str(error)
        with pytest.raises(tk.InvalidManifestError, match="sent an HTML page and no manifest for v1"):
            tk.fetch_manifest("v1", base_url=registry.url, repository=REPOSITORY)
    assert [] == names(tmp_path / "d")


def raw_server(answer: bytes):
    """Response every connection's first request with these bytes, and close."""
    server = socket.create_server(("127.0.0.1", 0))
    heads: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(65536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)

    return f"http://127.0.0.1:{server.getsockname()[1]}", heads, stop


@pytest.mark.parametrize(
    ("answer", "kind", "retried"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", tk.ReadError, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhel", tk.SizeMismatchError, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello you", tk.SizeMismatchError, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel", tk.SizeMismatchError, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello you", tk.SizeMismatchError, False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello you\r\n0\r\n\r\n",
            tk.SizeMismatchError,
            False,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello you", tk.ProtocolError, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", tk.ProtocolError, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello", tk.ProtocolError, False),
        (b"this is not HTTP\r\n\r\n", tk.ProtocolError, False),
        (b"", tk.ReadError, True),
    ],
)
def test_a_body_of_another_length_or_framing_is_refused(tmp_path, impatient, answer, kind, retried):
    url, heads, stop = raw_server(answer)
    try:
        with pytest.raises(tk.IncompleteError) as caught:
            download(url, [tk.Blob("sha256:" + GOOD, 5)], tmp_path / "d", options=impatient)
    finally:
        stop()
    (error,) = caught.value.failures.values()
    assert isinstance(error.__cause__ if retried else error, kind)
    assert (2 if retried else 1) == len(heads)
    assert [] == names(tmp_path / "d")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and bytes after the body",
    ],
)
def test_every_lawful_framing_brings_the_content(tmp_path, answer):
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    url, _, stop = raw_server(answer)
    try:
        report = download(url, [tk.Blob(digest, 5)], tmp_path)
    finally:
        stop()
    assert b"hello" == Path(report.paths[digest]).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": 0},
        {"concurrency": 5000},
        {"resume_threshold": -1},
        {"stall_timeout": 0},
        {"progress_interval": -1},
    ],
)
def test_an_option_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        tk.TransferOptions(**changes)
