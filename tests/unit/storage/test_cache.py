"""A store of models in Ollama's layout: blobs, names, sizes, and who else may use it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import HOUR, ReadOnlyDisk, add, digest_of, manifest_of
from tests.unit.storage.suite import descriptor_of
from transferkit.names import Name
from transferkit.storage.cache import DiskCache
from transferkit.storage.default_cache import default_cache
from transferkit.transfer.flow import WorkerFlow

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
HELLO_FILE = "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
NAME = "smollm:135m"
PATH = "manifests/registry.ollama.ai/library/smollm/135m"


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "models")


def tree(root: Path) -> dict[str, bytes]:
    """Return all files of a store but what is unfinished, by their paths."""
    files = (path for path in root.rglob("*") if path.is_file() and ".partial" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# -- blobs


def test_what_is_put_has_its_place_and_is_described(cache):
    assert cache.path(HELLO) == f"{cache.root}/blobs/{HELLO_FILE}"
    with pytest.raises(tk.BlobNotFoundError, match="2cf24dba5fb0 is not in"):
        cache.get(HELLO)
    described = cache.put(b"hello")
    assert (HELLO, 5) == (described.digest, described.size)
    assert b"hello" == Path(cache.path(HELLO)).read_bytes()
    entry = cache.get(HELLO)
    assert (HELLO, 5, cache.path(HELLO)) == (entry.digest, entry.size, entry.path)
    assert abs(entry.time - time.time()) < 60
    assert cache.knows(described)


@pytest.mark.parametrize("content", [b"hello", bytearray(b"hello"), memoryview(b"hello"), io.BytesIO(b"hello")])
def test_content_is_bytes_or_a_file(cache, content):
    assert HELLO == cache.put(content).digest


def test_content_that_is_a_text_is_a_type_error_that_says_what_is_taken(cache):
    with pytest.raises(TypeError, match="content is bytes, or a file that is open for reading bytes, not str"):
        cache.put("hello")


def test_content_of_another_digest_is_refused_and_leaves_nothing(cache):
    for content in (b"hullo", io.BytesIO(b"hullo")):
        with pytest.raises(tk.DigestMismatchError, match="not sha256:2cf24dba5fb0"):
            cache.put(content, HELLO)
    assert [] == cache.entries()
    assert [] == [name for name in os.listdir(cache.blobs.unfinished) if name != "verified"]


def test_a_long_digest_is_an_address_as_well(cache):
    digest = (
        "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
        "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"
    )
    assert digest == cache.put(b"hello", digest).digest
    assert b"hello" == cache.read(tk.Digest(digest))


@pytest.mark.parametrize("digest", ["sha256:../../x", "hello", "", "sha256-" + 64 * "a", None, "sha256:" + 64 * "A"])
def test_what_is_no_digest_is_no_path(cache, digest):
    with pytest.raises(tk.InvalidDigestError):
        cache.path(digest)
    with pytest.raises(tk.InvalidDigestError):
        cache.get(digest)


def test_a_file_is_imported_as_a_copy(cache, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    assert HELLO == cache.import_file(source).digest
    source.write_bytes(b"other")
    assert b"hello" == cache.read(tk.Digest(HELLO))


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_imported_nor_waited_for(cache, tmp_path, make):
    make(tmp_path / "source")
    with pytest.raises(tk.SourceError, match="source"):
        cache.import_file(tmp_path / "source")


def test_a_file_that_somebody_else_put_there_is_replaced_by_what_is_put(cache):
    cache.put(b"something")
    Path(cache.path(HELLO)).write_bytes(b"hullo")
    cache.put(b"hello")
    assert b"hello" == Path(cache.path(HELLO)).read_bytes()


# -- names


def test_a_model_is_linked_listed_resolved_and_unlinked(cache):
    raw = add(cache, NAME, b"{}", b"weights")
    assert [Name("registry.ollama.ai", "library", "smollm", "135m")] == cache.links()
    assert raw == cache.manifest(NAME) == Path(cache.root, PATH).read_bytes()
    assert digest_of(raw) == cache.resolve(NAME)
    assert [7] == [layer.size for layer in cache.document(NAME).layers]
    assert cache.unlink(NAME)
    assert not cache.unlink(NAME)
    assert [] == cache.links()
    assert [] == os.listdir(f"{cache.root}/manifests")
    assert b"weights" == cache.read(digest_of(b"weights"))
    with pytest.raises(tk.ManifestNotFoundError, match=r'model "registry\.ollama\.ai/.*" not found in'):
        cache.resolve(NAME)


def test_a_manifest_that_is_a_blob_is_linked_by_its_digest(cache):
    digest = cache.put(manifest_of(b"{}", b"weights")).digest
    assert digest == cache.link(NAME, digest)
    assert digest == cache.resolve(NAME)
    with pytest.raises(tk.BlobNotFoundError):
        cache.link(NAME, HELLO)


def test_names_are_found_without_regard_to_case_and_keep_theirs(cache):
    cache.link("Host.example/Team/Model:V1", b"{1}")
    assert digest_of(b"{1}") == cache.resolve("host.example/team/model:v1")
    cache.link("HOST.example/TEAM/model:v1", b"{2}")
    assert {"manifests/Host.example/Team/Model/V1": b"{2}"} == {
        path: data for path, data in tree(Path(cache.root)).items() if path.startswith("manifests")
    }


def test_of_several_spellings_the_lexically_first_counts_and_all_are_unlinked(cache):
    for model, text in (("model", b"{3}"), ("MODEL", b"{1}"), ("Model", b"{2}")):
        folder = Path(cache.root, "manifests/h.example/n", model)
        folder.mkdir(parents=True)
        (folder / "v1").write_bytes(text)
    assert digest_of(b"{1}") == cache.resolve("h.example/n/model:v1")
    assert [Name("h.example", "n", "MODEL", "v1")] == cache.links()
    assert cache.unlink("h.example/n/mOdEl:v1")
    assert [] == cache.links()


def test_a_manifest_that_was_edited_by_hand_is_addressable(cache):
    add(cache, NAME, b"{}", b"weights")
    edited = manifest_of(b"{}", b"others")
    Path(cache.root, PATH).write_bytes(edited)
    digest = cache.resolve(NAME)
    assert digest_of(edited) == digest
    assert edited == cache.read(digest)


def test_a_manifest_whose_blob_is_wrong_is_made_addressable_again(cache):
    raw = add(cache, NAME, b"{}", b"weights")
    Path(cache.path(digest_of(raw))).write_bytes(bytes(len(raw)))
    assert raw == cache.read(cache.resolve(NAME))


def test_linking_what_is_linked_already_touches_nothing(cache):
    raw = add(cache, NAME, b"{}", b"weights")
    os.utime(f"{cache.root}/{PATH}", (1000, 1000))
    before = os.lstat(f"{cache.root}/{PATH}")
    assert digest_of(raw) == cache.link(NAME, raw)
    assert (before.st_mtime_ns, before.st_ino) == (1000 * 10**9, os.lstat(f"{cache.root}/{PATH}").st_ino)


@pytest.mark.parametrize("broken", [b"", b"not json", b"\xff\xfe", b"[" * 5000, b"null", b"x" * (5 * 1024 * 1024)])
def test_a_manifest_that_is_broken_hides_no_other(cache, broken):
    add(cache, NAME, b"{}", b"weights")
    Path(cache.root, PATH).with_name("broken").write_bytes(broken)
    assert ["smollm:135m", "smollm:broken"] == [f"{name.model}:{name.tag}" for name in cache.links()]
    with pytest.raises((tk.InvalidManifestError, tk.ManifestNotFoundError)):
        cache.document("smollm:broken")
    assert 2 == len(cache.document(NAME).blobs)
    assert [] == cache.verify()
    assert [] == cache.gc(grace=-HOUR)
    assert cache.unlink("smollm:broken")


def test_why_a_manifest_counts_as_missing_is_told(cache):
    add(cache, NAME, b"{}", b"weights")
    Path(cache.root, PATH).write_bytes(b"")
    with pytest.raises(tk.ManifestNotFoundError, match=r"smollm/135m is empty; pull it again"):
        cache.resolve(NAME)
    Path(cache.root, PATH).write_bytes(bytes(5 * 1024 * 1024))
    with pytest.raises(tk.ManifestNotFoundError, match=r"has more than 4194304 bytes"):
        cache.resolve(NAME)


@pytest.mark.parametrize("raw", [b"", bytes(4 * 1024 * 1024 + 1)], ids=["empty", "long"])
def test_what_nobody_would_read_is_not_linked(cache, raw):
    with pytest.raises(tk.InvalidManifestError, match="a manifest has 1 to 4194304 bytes"):
        cache.link(NAME, raw)
    assert [] == cache.links()


def test_files_that_are_no_names_are_left_out(cache):
    add(cache, NAME, b"{}", b"weights")
    folder = Path(cache.root, "manifests")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "registry.ollama.ai" / "library" / "smollm" / "bad name").write_bytes(b"x")
    (folder / "registry.ollama.ai" / "library" / "smollm" / "deep" / "er" / "and" / "deeper").mkdir(parents=True)
    os.mkfifo(folder / "registry.ollama.ai" / "library" / "smollm" / "pipe")
    (folder / "a" / "b" / "c").mkdir(parents=True)
    os.close(os.open(os.fsencode(folder / "a" / "b" / "c") + b"/\xff", os.O_CREAT | os.O_WRONLY))
    assert ["smollm:135m"] == [f"{name.model}:{name.tag}" for name in cache.links()]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "://",
        "../x:y",
        "a/b:..",
        7,
        "x" * 600,
        Name("..", "..", "etc", "passwd"),
        Name("h", "n", "..", "t"),
        Name("h/../..", "n", "m", "t"),
        Name("h", "n", "m", "/etc/passwd"),
        Name("h", "n", "m"),
        Name(),
    ],
)
def test_what_is_no_name_is_no_path(cache, name):
    for call in (cache.manifest, cache.resolve, cache.unlink, cache.size, lambda name: cache.link(name, b"{}")):
        with pytest.raises(tk.InvalidNameError):
            call(name)
    assert not Path(cache.root, "manifests").exists()


# -- layout, permissions and bytes, as PROTOCOLS ("Store") has them


# Written by hand from PROTOCOLS ("Store"); the digests are those of sha256sum.
MODEL = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
    b'"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
    b'"digest":"sha256:c71877c4b03e07080199d40925a661add5fccc43b959793e88db97b72973e925","size":23},'
    b'"layers":[{"mediaType":"application/vnd.ollama.image.model",'
    b'"digest":"sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","size":7}]}'
)
STORE = {
    "blobs/sha256-c71877c4b03e07080199d40925a661add5fccc43b959793e88db97b72973e925": b'{"model_format":"gguf"}',
    "blobs/sha256-9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c": b"weights",
    "blobs/sha256-dc126ca356b2c213aafc383163d7c36655308df961ffd7ef257b620d9358ee2b": MODEL,
    "manifests/Example.com:5000/Team/Model/Q4_0": MODEL,
}


@pytest.mark.parametrize(
    ("umask", "folders", "files"), [(0o022, 0o755, 0o644), (0o002, 0o775, 0o664), (0, 0o777, 0o666)]
)
def test_names_permissions_and_bytes_are_those_of_ollama(tmp_path, umask, folders, files):
    before = os.umask(umask)
    try:
        cache = DiskCache(tmp_path / "models")
        for path, data in STORE.items():
            if path.startswith("blobs"):
                cache.put(data)
        cache.link("Example.com:5000/Team/Model:Q4_0", MODEL)
        cache.close()
    finally:
        os.umask(before)
    root = tmp_path / "models"
    assert STORE == {path: data for path, data in tree(root).items() if path != "CACHEDIR.TAG"}
    for path in root.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (folders if path.is_dir() else files), path


def test_a_store_that_somebody_else_wrote_is_read(tmp_path):
    for path, data in STORE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    cache = DiskCache(tmp_path)
    assert ["Example.com:5000/Team/Model:Q4_0"] == [str(name) for name in cache.links()]
    document = cache.document("example.com:5000/team/model:q4_0")
    assert MODEL == document.raw
    assert [] == cache.missing(document.blobs) == cache.verify() == cache.gc(grace=-HOUR)
    assert STORE == tree(tmp_path)


def test_a_new_store_is_marked_as_a_cache_and_a_store_of_ollamas_is_not(tmp_path):
    new = DiskCache(tmp_path / "new")
    new.put(b"hello")
    assert (tmp_path / "new/CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (tmp_path / "theirs/blobs").mkdir(parents=True)
    DiskCache(tmp_path / "theirs").put(b"hello")
    assert not (tmp_path / "theirs/CACHEDIR.TAG").exists()


def test_a_store_that_is_only_looked_at_is_not_made(cache):
    assert [] == cache.links() == cache.entries() == cache.verify() == cache.gc() == cache.gc(dry_run=True)
    assert 0 == cache.size()
    assert not cache.unlink(NAME)
    cache.close()
    assert not os.path.lexists(cache.root)


def test_the_default_is_ollamas_store_where_there_is_one(tmp_path, monkeypatch):
    for variable in ("TRANSFERKIT_CACHE", "OLLAMA_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/.cache/transferkit" == default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert f"{tmp_path}/.cache/transferkit" == default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert "/xdg/transferkit" == default_cache()
    (tmp_path / ".ollama/models").mkdir(parents=True)
    assert f"{tmp_path}/.ollama/models" == default_cache()
    monkeypatch.setenv("OLLAMA_MODELS", "/theirs")
    assert "/theirs" == default_cache()
    monkeypatch.setenv("TRANSFERKIT_CACHE", "~/ours")
    assert "~/ours" == default_cache()
    assert f"{tmp_path}/ours" == DiskCache().root


# -- sizes


def test_sizes_are_those_of_the_store_and_of_a_name(cache):
    one = add(cache, "one", b"{}", b"weights")
    other = add(cache, "other", b"{}", bytes(1000))
    assert 2 + 7 + len(one) == cache.size("one")
    assert 2 + 7 + 1000 + len(one) + len(other) == cache.size()
    with pytest.raises(tk.ManifestNotFoundError):
        cache.size("third")


# -- stores that can only be read, and stores below this one


def test_a_store_that_can_only_be_read_can_be_read(cache):
    raw = add(cache, NAME, b"{}", b"weights")
    edited = manifest_of(b"{}", b"weights", b"{}")
    Path(cache.root, PATH).with_name("edited").write_bytes(edited)
    cache.close()
    before = tree(Path(cache.root))
    frozen = DiskCache(cache.root, disk=ReadOnlyDisk())
    assert 2 == len(frozen.links())
    assert digest_of(raw) == frozen.resolve(NAME) == frozen.link(NAME, raw)
    assert digest_of(edited) == frozen.resolve("smollm:edited")
    assert [] == frozen.verify()
    assert 7 == frozen.get(digest_of(b"weights")).size
    blobs = [descriptor_of(b"{}"), descriptor_of(b"weights")]
    frozen.prepare(blobs)
    assert frozen.ingest(blobs[1], flow=WorkerFlow()) is None
    with frozen.pinned([blobs[0].digest]), frozen.lock(Name.parse("h.example/n/m:t"), WorkerFlow()):
        pass
    for refused in (lambda: frozen.put(b"new"), lambda: frozen.unlink(NAME), lambda: frozen.link("other", raw)):
        with pytest.raises(tk.StorageError, match="read-only"):
            refused()
    frozen.close()
    assert before == tree(Path(cache.root))


def test_shared_stores_are_read_and_never_written_to(tmp_path):
    deep, below = DiskCache(tmp_path / "deep"), tmp_path / "below"
    add(deep, "deep", b"{}", b"deep weights")
    with DiskCache(below) as first:
        add(first, NAME, b"{}", b"weights")
    before = {**tree(tmp_path / "deep"), **tree(below)}
    middle = DiskCache(below, shared=[deep])
    cache = DiskCache(tmp_path / "own", shared=[middle])
    assert ["deep:latest", "smollm:135m"] == [f"{name.model}:{name.tag}" for name in cache.links()]
    assert cache.path(digest_of(b"weights")).startswith(str(below))
    assert cache.path(digest_of(b"deep weights")).startswith(str(tmp_path / "deep"))
    assert cache.path(HELLO).startswith(f"{tmp_path}/own")
    blob = descriptor_of(b"weights")
    assert cache.knows(blob)
    assert [] == cache.missing([blob])
    cache.prepare([blob])
    assert cache.ingest(blob, flow=WorkerFlow()) is None
    with cache.fetch(blob, flow=WorkerFlow()) as body:
        assert 7 == body.readinto(memoryview(bytearray(100)))
    assert 1 == cache.plan([blob, descriptor_of(b"new")]).present
    assert not (tmp_path / "own").exists()

    add(cache, NAME, b"{}", b"weights of our own")
    assert 18 == cache.document(NAME).layers[0].size
    assert cache.unlink(NAME)
    assert 7 == cache.document(NAME).layers[0].size
    assert not cache.unlink(NAME)
    cache.close()
    assert before == {**tree(tmp_path / "deep"), **tree(below)}


def test_shared_is_a_list(tmp_path):
    with pytest.raises(TypeError, match="shared is a list of stores or of their paths"):
        DiskCache(tmp_path, shared=str(tmp_path))


# -- planted links


def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(b"keep me")
    return folder


@pytest.mark.parametrize("place", ["blobs", "blobs/.partial", "manifests"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path, place):
    folder, root = outside(tmp_path), tmp_path / "models"
    (root / place).parent.mkdir(parents=True)
    (root / place).symlink_to(folder)
    cache = DiskCache(root)
    with pytest.raises(tk.StorageError, match="symbolic link"):
        cache.link(NAME, manifest_of(b"{}", b"weights"))
    assert [] == cache.links()
    with pytest.raises(tk.BlobNotFoundError):
        cache.get(digest_of(b"keep me"))
    cache.close()
    assert ["precious"] == os.listdir(folder)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_in_the_place_of_a_folder_of_manifests_is_not_followed(tmp_path, depth):
    folder, cache = outside(tmp_path), DiskCache(tmp_path / "models")
    place = Path(cache.root, *PATH.split("/")[: depth + 1])
    place.parent.mkdir(parents=True)
    place.symlink_to(folder)
    with pytest.raises(tk.StorageError, match="is a symbolic link, which is not followed"):
        cache.link(NAME, b"{}")
    with pytest.raises(tk.ManifestNotFoundError):
        cache.resolve(NAME)
    assert not cache.unlink(NAME)
    with pytest.raises(tk.StorageError, match="is a symbolic link"):
        cache.gc()
    assert ["precious"] == os.listdir(folder)


def test_a_link_in_the_place_of_a_manifest_is_replaced_and_not_read(tmp_path):
    folder, cache = outside(tmp_path), DiskCache(tmp_path / "models")
    place = Path(cache.root, PATH)
    place.parent.mkdir(parents=True)
    place.symlink_to(folder / "precious")
    with pytest.raises(tk.ManifestNotFoundError):
        cache.manifest(NAME)
    cache.link(NAME, b"{}")
    assert not place.is_symlink()
    assert b"keep me" == (folder / "precious").read_bytes()


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_link_in_the_place_of_a_blob_is_replaced_and_not_read(tmp_path, kind):
    folder, cache = outside(tmp_path), DiskCache(tmp_path / "models", resume_threshold=1)
    (folder / "hello").write_bytes(b"hello")
    place = Path(cache.path(HELLO))
    place.parent.mkdir(parents=True)
    place.symlink_to({"file": folder / "hello", "folder": folder, "nothing": folder / "nothing"}[kind])
    blob = descriptor_of(b"hello")
    with pytest.raises(tk.BlobNotFoundError):
        cache.get(HELLO)
    with pytest.raises(tk.BlobNotFoundError):
        cache.read(blob.digest)
    assert [blob] == cache.missing([blob])
    assert [] == cache.entries()
    with pytest.raises(tk.SourceError):
        cache.fetch(blob, flow=WorkerFlow())
    cache.put(b"hello")
    assert not place.is_symlink()
    assert {"precious", "hello"} == set(os.listdir(folder))


def test_a_link_in_the_place_of_a_lock_is_an_error(tmp_path):
    folder, cache = outside(tmp_path), DiskCache(tmp_path / "models")
    cache.put(b"old")
    name = Name.parse("h.example/n/m:t")
    with cache.lock(name, WorkerFlow()):
        (lock,) = (file for file in os.listdir(cache.blobs.unfinished) if file.startswith("name."))
    for file in (lock, "gc.lock"):
        Path(cache.blobs.unfinished, file).symlink_to(folder / "precious")
    with pytest.raises(tk.StorageError, match="locking"), cache.lock(name, WorkerFlow()):
        pass
    with pytest.raises(tk.StorageError, match="locking"):
        cache.gc(grace=-HOUR)
    assert b"keep me" == (folder / "precious").read_bytes()


# -- the lock of a name


def test_the_lock_of_a_name_keeps_others_away_in_every_spelling(cache):
    other = DiskCache(cache.root)
    with cache.lock(Name.parse("h.example/n/Model:t"), WorkerFlow()):
        cancelled = WorkerFlow()
        cancelled.cut(tk.CancelledError("enough"), final=True)
        with pytest.raises(tk.CancelledError), other.lock(Name.parse("h.example/N/model:T"), cancelled):
            pass
        # Who gave up has not taken away the lock of who has it.
        assert any(name.startswith("name.") for name in os.listdir(cache.blobs.unfinished))
        with other.lock(Name.parse("h.example/n/another:t"), WorkerFlow()):
            pass
    assert not any(name.startswith("name.") for name in os.listdir(cache.blobs.unfinished))


# -- two processes

WRITER = """
import sys, transferkit as tk
cache = tk.DiskCache(sys.argv[1])
for number in range(int(sys.argv[3])):
    raw = b'{"schemaVersion":2,"layers":[]} ' + sys.argv[2].encode() + b"%d" % number
    cache.put(b"shared %d" % number)
    cache.link("h.example/n/m%d:t" % (number % 3), raw)
    cache.unlink("h.example/n/m%d:t" % ((number + 1) % 3))
    cache.gc(grace=3600)
cache.close()
"""


def test_two_processes_may_write_link_unlink_and_collect_at_once(cache):
    command = [sys.executable, "-c", WRITER, cache.root]
    running = [subprocess.Popen([*command, who, "40"], stderr=subprocess.PIPE, text=True) for who in ("a", "b")]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert (0, "") == (process.returncode, said)
    assert 40 <= len(cache.entries())
    assert [] == cache.verify()
    for name in cache.links():
        cache.read(cache.resolve(name))
    left = set(os.listdir(cache.blobs.unfinished))
    assert set() == left - {"verified"}


def test_a_store_is_usable_after_a_close_and_as_a_context(cache):
    with cache:
        cache.put(b"hello")
    cache.put(b"other")
    assert 2 == len(cache.entries())
    assert f"<DiskCache {cache.root}>" == repr(cache)
