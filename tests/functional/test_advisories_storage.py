"""Advisories: what lies in the folder already, links above all, and what a manifest would call its files."""

from __future__ import annotations

import json
import os
import re

import pytest

import transferkit as tk
from transferkit.testing import answer, truncated

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
NAME = HELLO.replace(":", "-")
LARGE = tk.TransferOptions(resume_threshold=1)  # so that a partial file, a state and a lock are made


@pytest.fixture
def server(serve):
    return serve(lambda request: answer(200, b"hello"))


@pytest.fixture
def victim(tmp_path):
    """A file, and a folder with another, that nobody asked to have changed."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "verified").write_bytes(b"precious")
    return tmp_path / "victim" / "verified"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "d" / ".partial").mkdir(parents=True)
    return tmp_path / "d"


def download(server, folder, **keywords):
    where = {"base_url": server.url, "repository": REPOSITORY, "options": LARGE}
    return tk.download([tk.Blob(HELLO, 5)], folder, **{**where, **keywords})


@pytest.mark.parametrize("dangling", [False, True], ids=["to a file", "to nothing"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("name", [NAME, f".partial/{NAME}", f".partial/{NAME}.json", f".partial/{NAME}.json.new"])
def test_cve_2026_50162_a_planted_link_is_replaced_and_not_followed(server, victim, folder, name, large, dangling):
    target = victim.with_name("new") if dangling else victim
    (folder / name).symlink_to(target)
    download(server, folder, options=LARGE if large else None)

    assert (b"hello", False) == ((folder / NAME).read_bytes(), (folder / NAME).is_symlink())
    assert b"precious" == victim.read_bytes()
    assert ["verified"] == os.listdir(victim.parent)


@pytest.mark.parametrize("name", [f".partial/{NAME}.lock", ".partial/verified"], ids=["lock", "index"])
@pytest.mark.parametrize("dangling", [False, True], ids=["to a file", "to nothing"])
def test_cve_2026_50162_a_planted_link_that_would_be_written_through_is_refused(
    server, victim, folder, failure, name, dangling
):
    (folder / name).symlink_to(victim.with_name("new") if dangling else victim)
    error = failure(lambda: download(server, folder))

    assert isinstance(error, tk.StorageError)
    assert not error.retryable
    assert name in str(error)
    assert b"precious" == victim.read_bytes()
    assert ["verified"] == os.listdir(victim.parent)


@pytest.mark.parametrize("chunks", [{}, {"chunk_threshold": 0}], ids=["one body", "chunks"])
@pytest.mark.parametrize("dangling", [False, True], ids=["to a file", "to nothing"])
def test_cve_2026_50162_a_link_in_the_place_of_what_is_to_be_continued_is_refused(
    serve, server, victim, folder, failure, chunks, dangling
):
    """The state beside it says that it can be: an earlier run has left both."""
    options = tk.TransferOptions(resume_threshold=1, retry=tk.RetryOptions(attempts=1, patience=0.0), **chunks)
    failure(lambda: download(serve(lambda request: truncated(b"hel", 5)), folder, options=options))
    partial = folder / ".partial" / NAME
    assert b"hel" == partial.read_bytes()
    partial.unlink()
    partial.symlink_to(victim.with_name("new") if dangling else victim)
    error = failure(lambda: download(server, folder, options=options))

    assert isinstance(error, tk.StorageError)
    assert f".partial/{NAME}" in str(error)
    assert b"precious" == victim.read_bytes()
    assert ["verified"] == os.listdir(victim.parent)


def test_cve_2025_68146_a_planted_link_at_the_lock_truncates_nothing(server, victim, folder, failure):
    """CVE-2026-22701 is the same of the soft lock, which is not used here."""
    victim.write_bytes(b"precious" * 1000)
    (folder / f".partial/{NAME}.lock").symlink_to(victim)
    error = failure(lambda: download(server, folder))

    assert isinstance(error, tk.StorageError)
    assert b"precious" * 1000 == victim.read_bytes()
    assert not (folder / NAME).exists()


def test_cve_2025_47290_a_folder_of_partial_files_that_is_a_link_is_refused(server, victim, folder, failure):
    (folder / ".partial").rmdir()
    (folder / ".partial").symlink_to(victim.parent)
    for options in (LARGE, None):
        error = failure(lambda options=options: download(server, folder, options=options))
        assert isinstance(error, tk.StorageError)
        assert "symbolic link" in str(error)

    assert (b"precious", ["verified"]) == (victim.read_bytes(), os.listdir(victim.parent))
    assert 0 == len(server.requests)


def test_cve_2026_50162_a_planted_folder_is_an_error_and_stays(server, folder, failure):
    (folder / NAME / "inner").mkdir(parents=True)
    error = failure(lambda: download(server, folder))

    assert isinstance(error, tk.StorageError)
    assert ["inner"] == os.listdir(folder / NAME)


def test_cve_2025_44779_what_is_discarded_are_files_of_partial_alone(serve, victim, folder, failure):
    """By digest, in one folder, and a link is neither followed nor counted."""
    options = tk.TransferOptions(resume_threshold=1, retry=tk.RetryOptions(attempts=1, patience=0.0))
    failure(lambda: download(serve(lambda request: truncated(b"hel", 5)), folder, options=options))
    other = "sha256-" + 64 * "b"
    (folder / ".partial" / other).symlink_to(victim)
    for digest in ("../victim/verified", "sha256:../../victim/verified", "sha256:" + 64 * "B", str(victim)):
        with pytest.raises(tk.InvalidDigestError):
            tk.discard(folder, [digest], older_than=0)

    assert [HELLO] == [found.digest for found in tk.discard(folder, older_than=0)]
    assert b"precious" == victim.read_bytes()
    assert (folder / ".partial" / other).is_symlink()


HOSTILE = [
    "../escaped",
    "../../../../../../../../tmp/escaped",
    "/etc/cron.d/escaped",
    "C:\\escaped",
    "C:escaped",
    "\\\\host\\share\\escaped",
    "//host/share/escaped",
    "CON",
    "NUL.txt",
    "escaped...",
    "escaped ",
    "escaped:stream",
    ".partial/verified",
    "verified",
    "~/escaped",
    "$HOME/escaped",
    "x" * 5000,
    "escaped\x00",
    "escaped\n",
    "\u202egpj.exe",
    "-rf",
    "",
    ".",
    "..",
]


@pytest.fixture
def opened(monkeypatch):
    """Every path that is opened to be written to, renamed to, or made a folder of."""
    paths: list[str] = []
    plain_open, plain_replace, plain_makedirs = os.open, os.replace, os.makedirs

    def absolute(path, folder=None):
        return os.path.join("/" if folder is None else os.readlink(f"/proc/self/fd/{folder}"), os.fspath(path))

    def spy_open(path, flags, *more, dir_fd=None, **keywords):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            paths.append(absolute(path, dir_fd))
        return plain_open(path, flags, *more, dir_fd=dir_fd, **keywords)

    def spy_replace(source, target, *, dst_dir_fd=None, **keywords):
        paths.append(absolute(target, dst_dir_fd))
        return plain_replace(source, target, dst_dir_fd=dst_dir_fd, **keywords)

    def spy_makedirs(path, *more, **keywords):
        paths.append(os.fspath(path))
        return plain_makedirs(path, *more, **keywords)

    monkeypatch.setattr(os, "open", spy_open)
    monkeypatch.setattr(os, "replace", spy_replace)
    monkeypatch.setattr(os, "makedirs", spy_makedirs)
    return paths


@pytest.mark.parametrize("title", HOSTILE, ids=range(len(HOSTILE)))
def test_cve_2021_21272_what_a_manifest_calls_a_file_is_never_a_path(serve, tmp_path, opened, title):
    """CVE-2026-15717 and python-storage #1768 are the same of others; so is CVE-2026-7020, where it is the digest."""
    names = {
        "org.opencontainers.image.title": title,
        "io.deis.oras.content.unpack": "true",
        "org.cncf.model.filepath": title,
    }
    layer = {"mediaType": title, "digest": HELLO, "size": 5, "annotations": names, "name": title}
    raw = json.dumps({"schemaVersion": 2, "layers": [layer], "annotations": names, "name": title}).encode()

    def script(request):
        return answer(200, raw if "/manifests/" in request.target else b"hello")

    server = serve(script)
    manifest = tk.fetch_manifest("v1", base_url=server.url, repository=REPOSITORY)
    (tmp_path / "deep").mkdir()
    folder = tmp_path / "deep" / "d"
    opened.clear()
    tk.download(manifest.layers, folder, base_url=server.url, repository=REPOSITORY, options=LARGE)

    assert {"d"} == set(os.listdir(tmp_path / "deep"))
    assert {NAME, ".partial"} == set(os.listdir(folder))
    # The folder, the index, the content under its name, and what is named after its digest: state, lock, temporaries.
    unfinished = rf"\.partial(/verified|/{NAME}(\.json|\.new|\.lock|\.[0-9a-f]{{16}})*)?"
    allowed = re.compile(rf"{re.escape(str(folder))}(/{NAME}|/{unfinished})?\Z")
    assert opened
    assert [] == [path for path in opened if not allowed.match(path)]


@pytest.mark.parametrize("tag", ["../x", "..", "a/b", "/etc/passwd", "a\\b", "a\x00", "C:x", "%2e%2e"])
def test_cve_2021_41131_a_tag_is_neither_a_path_nor_a_piece_of_a_url(server, tmp_path, tag):
    with pytest.raises((tk.InvalidNameError, tk.InvalidDigestError)):
        tk.fetch_manifest(tag, base_url=server.url, repository=REPOSITORY)
    with pytest.raises((tk.InvalidNameError, tk.InvalidDigestError)):
        tk.upload([], tmp_path, base_url=server.url, repository=REPOSITORY, manifest=b"{}", manifest_ref=tag)

    assert 0 == len(server.requests)


def test_cve_2023_25153_files_of_ours_that_are_far_too_large_are_not_read_to_their_ends(server, folder):
    """Sparse files of 64 GiB: whoever reads them to their ends takes longer than this test may, and more memory."""
    for name in (f"{NAME}.json", "verified"):
        with open(folder / ".partial" / name, "wb") as file:
            file.truncate(64 * 1024**3)
    download(server, folder)

    assert b"hello" == (folder / NAME).read_bytes()
