"""Tensors of a model in a registry: which bytes are moved, that they are right, and what is said where they are not."""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import transferkit as tk
from tests.functional.models import IMPATIENT, OCI_MANIFEST, client, digest_of, host, put_manifest
from tests.functional.safetensors_files import data_start, manifest_of, put_model, safetensors_of
from transferkit.server.oci import OCIRegistry
from transferkit.testing import (
    FaultRule,
    Faults,
    HTTPFaults,
    answer,
    corrupt,
    fault_proxy,
    ignore_range,
    respond,
    running_registry,
    scripted_server,
    truncate,
)

KIB = 1024
MIB = 1024 * KIB
GUESS = 64 * KIB  # of a header, which comes with the first request
RNG = random.Random(13)
LARGE = {f"layer.{number}": ("I32", [256, 1024], RNG.randbytes(MIB)) for number in range(4)}
FILE = safetensors_of(LARGE, format="pt")
START = data_start(FILE)


def numbers(name: str) -> np.ndarray:
    return np.frombuffer(LARGE[name][2], "<i4").reshape(256, 1024)


class Rig:
    """A registry with faults, and what it was asked for."""

    def __init__(self, stack, folder, **server):
        self.faults = HTTPFaults()
        application = OCIRegistry(folder / "server", **{"chunksums": False, **server})
        self.registry = stack.enter_context(
            running_registry(folder / "server", middleware=lambda _: self.faults(application))
        )
        self.url = self.registry.url
        self.folder = folder
        self._stack = stack

    def client(self, **keywords):
        return self._stack.enter_context(client(self.folder / "cache", **keywords))

    def open(self, name, options=IMPATIENT, hosts=None, **keywords):
        return self._stack.enter_context(self.client(options=options, hosts=hosts).open_tensors(name, **keywords))

    def blobs(self):
        """The requests for blobs, of the files and of the lists of their chunks, since the last look."""
        found = [r for r in self.registry.log if r.method == "GET" and ("/blobs/" in r.path or "/chunksums/" in r.path)]
        self.registry.log.clear()
        return found

    def ranges(self):
        """The ranges of those requests, sorted."""
        asked = (re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")) for request in self.blobs())
        return sorted((int(match[1]), int(match[2])) for match in asked if match)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def rig(stack, tmp_path):
    return Rig(stack, tmp_path)


@pytest.fixture
def listing(stack, tmp_path):
    """A registry with lists of the digests of chunks, of 100,000 bytes each."""
    return Rig(stack, tmp_path, chunksums=True, chunk_size=100_000)


# -- what is moved


def test_one_tensor_moves_its_own_bytes_and_the_header(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    tensors = rig.open(name)
    assert [GUESS] == [request.sent for request in rig.blobs() if request.status == 206]
    array = tensors["layer.2"]
    assert np.array_equal(numbers("layer.2"), array)
    (request,) = rig.blobs()
    assert (MIB, f"bytes={START + 2 * MIB}-{START + 3 * MIB - 1}") == (request.sent, request.headers["range"])
    assert ("int32", True, True) == (array.dtype.name, array.flags.owndata, array.flags.writeable)
    assert [] == os.listdir(rig.folder / "cache") if (rig.folder / "cache").exists() else True


def test_a_slice_moves_its_rows(rig):
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}))
    rig.blobs()
    whole = numbers("layer.1")
    for arguments, expected in (
        ((10, 20), whole[10:20]),
        ((slice(10, 20),), whole[10:20]),
        ((-2,), whole[-2:]),
        ((None, 3), whole[:3]),
        ((250, 1000), whole[250:]),
    ):
        assert np.array_equal(expected, tensors.slice("layer.1", *arguments))
        assert expected.nbytes == sum(request.sent for request in rig.blobs())
    assert (0, 1024) == tensors.slice("layer.1", 5, 5).shape
    assert [] == rig.blobs()


def test_many_tensors_come_in_few_ranges(rig):
    small = {f"t{number:02}": ("U8", [1000], RNG.randbytes(1000)) for number in range(60)}
    gap = {"between": ("U8", [300_000], bytes(300_000))}
    more = {f"u{number:02}": ("U8", [1000], RNG.randbytes(1000)) for number in range(60)}
    file = safetensors_of({**small, **gap, **more})
    tensors = rig.open(put_model(rig.url, {"model.safetensors": file}))
    rig.blobs()
    wanted = [name for name in tensors if name != "between" and name[-1] in "05"]
    arrays = tensors.load(wanted)
    assert wanted == list(arrays)
    assert all((small | more)[name][2] == arrays[name].tobytes() for name in wanted)
    start = data_start(file)
    second = start + 60_000 + 300_000
    assert [(start, start + 55_999), (second, second + 55_999)] == rig.ranges()


def test_a_long_tensor_comes_in_chunks_side_by_side(rig):
    options = tk.TransferOptions(chunk_size=300_000, retry=IMPATIENT.retry)
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}), options)
    rig.blobs()
    assert np.array_equal(numbers("layer.0"), tensors["layer.0"])
    asked = rig.ranges()
    assert (4, MIB) == (len(asked), sum(end - start + 1 for start, end in asked))


def test_a_header_longer_than_the_guess_is_read_on_from_there(rig):
    many = {f"a.tensor.with.a.long.name.{number:05}": ("U8", [1], bytes([number % 256])) for number in range(2000)}
    file = safetensors_of(many)
    start = data_start(file)
    assert start > 2 * GUESS
    tensors = rig.open(put_model(rig.url, {"model.safetensors": file}))
    assert [(0, GUESS - 1), (GUESS, start - 1)] == rig.ranges()
    assert list(many) == list(tensors)
    assert all(array.tobytes() == many[name][2] for name, array in tensors.load().items())


def test_the_requests_for_many_files_are_bounded(rig):
    files = {
        f"model-{number:03}.safetensors": safetensors_of({f"t{number}": ("U8", [1], b"x")}) for number in range(50)
    }
    name = put_model(rig.url, files)
    lock, now, most = threading.Lock(), [0], [0]

    def counting(application):
        def counted(environ, start_response):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1
            return application(environ, start_response)

        return counted

    rig.faults.set(FaultRule(counting, path="/blobs/"))
    tensors = rig.open(name, tk.TransferOptions(concurrency=3))
    assert (50, 50) == (len(tensors), len(tensors.load()))
    assert 1 < most[0] <= 3


def test_progress_is_told_in_bytes(rig):
    calls = []
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}), progress=lambda *figures: calls.append(figures))
    assert (0, GUESS) in calls
    assert (GUESS, GUESS) == calls[-1]
    calls.clear()
    tensors["layer.1"]
    assert ((0, MIB), (MIB, MIB)) == (calls[0], calls[-1])


# -- what there is


def test_a_mapping_over_all_files(rig):
    first = safetensors_of({"b": ("F32", [1], b"\0\0\x80\x3f"), "a": ("I8", [2, 1], b"\x01\xff")}, format="np")
    second = safetensors_of({"c": ("BOOL", [], b"\x01"), "empty": ("F64", [0, 3], b"")})
    name = put_model(
        rig.url, {"z.safetensors": second, "deep/a.safetensors": first, "config.json": b"{}", "README.md": b"!"}
    )
    tensors = rig.open(name)
    assert (["b", "a", "c", "empty"], 4) == (list(tensors), len(tensors))
    assert ("a" in tensors, "x" in tensors, 5 in tensors) == (True, False, False)
    start = data_start(first)
    info = tensors.info("a")
    assert ("a", "I8", (2, 1), "deep/a.safetensors", start + 4, start + 6, False, 2) == (
        info.name,
        info.dtype,
        info.shape,
        info.file,
        info.start,
        info.end,
        info.verified,
        info.nbytes,
    )
    assert {"deep/a.safetensors": {"format": "np"}, "z.safetensors": {}} == tensors.metadata
    assert ([1.0], [[1], [-1]], True) == (tensors["b"].tolist(), tensors["a"].tolist(), bool(tensors["c"]))
    assert (0, 3) == tensors["empty"].shape
    assert ["b", "a", "c", "empty"] == [key for key, _ in tensors.items()]
    assert None is tensors.get("x")
    with pytest.raises(KeyError, match="has no tensor 'x'"):
        tensors["x"]
    with pytest.raises(KeyError):
        tensors.load(["a", "x"])
    with pytest.raises(TypeError, match=r"\['a'\]"):
        tensors.load("a")
    with pytest.raises(ValueError, match="single number"):
        tensors.slice("c", 0, 1)
    with pytest.raises(ValueError, match="step"):
        tensors.slice("a", slice(0, 2, 2))
    with pytest.raises(TypeError, match=r"slice\(name, slice\(start, stop\)\)"):
        tensors.slice("a", slice(0, 2), 1)
    assert f"<Tensors of {name.removeprefix('oci://')}: 4 in 2 files>" in repr(tensors).replace("http://", "")
    assert tensors != rig.open(name)


@pytest.mark.parametrize("format", ["modelpack", "oras", "docker"])
def test_a_folder_that_was_pushed_is_read(rig, format):
    folder = rig.folder / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(FILE)
    (folder / "deep" / "more.safetensors").write_bytes(safetensors_of({"more": ("U8", [3], b"abc")}))
    name = f"{host(rig.url)}/team/folder:{format}"
    rig.client().push(name, folder=folder, format=format)
    tensors = rig.open(name)
    assert {*LARGE, "more"} == set(tensors)
    assert (b"abc", True) == (tensors["more"].tobytes(), np.array_equal(numbers("layer.3"), tensors["layer.3"]))


def test_rows_of_half_bytes_are_refused_where_they_begin_within_one(rig):
    file = safetensors_of({"odd": ("F4", [2, 3], b"abc"), "even": ("F4", [3, 2], b"abc")})
    tensors = rig.open(put_model(rig.url, {"model.safetensors": file}))
    assert (b"abc", b"bc") == (tensors["odd"].tobytes(), tensors.slice("even", 1).tobytes())
    with pytest.raises(ValueError, match=r"the rows of 'odd', F4\[2, 3\], do not begin at whole bytes"):
        tensors.slice("odd", 0, 1)


def test_two_files_with_the_same_tensor_are_an_error_that_names_both(rig):
    one, two = (safetensors_of({"w": ("U8", [1], data), "x" + str(data): ("U8", [1], data)}) for data in (b"1", b"2"))
    name = put_model(rig.url, {"text/model.safetensors": one, "unet/model.safetensors": two})
    with pytest.raises(
        tk.InvalidModelError, match=r"^both text/model.safetensors and unet/model.safetensors have a tensor 'w'"
    ):
        rig.open(name)
    assert b"2" == rig.open(name, only="unet/*")["w"].tobytes()
    assert b"1" == rig.open(name, exclude=["unet/*", "x/*"])["w"].tobytes()
    with pytest.raises(tk.InvalidModelError, match=r"is wanted; it has text/model\.safetensors, unet"):
        rig.open(name, only="nothing")


def test_an_index_that_lies_is_no_matter(rig):
    lie = b'{"weight_map": {"layer.0": "elsewhere.safetensors", "more": "model.safetensors"}}'
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE, "model.safetensors.index.json": lie}))
    assert list(LARGE) == list(tensors)
    assert np.array_equal(numbers("layer.0"), tensors["layer.0"])


def test_a_model_without_such_files_says_what_it_has(rig):
    name = put_model(rig.url, {"model.gguf": b"GGUF"})
    with pytest.raises(tk.InvalidModelError, match=r"has no \.safetensors files; it has model\.gguf$"):
        rig.open(name)


def test_a_malformed_file_is_named(rig):
    file = safetensors_of({"w": ("F32", [3], bytes(8))})
    with pytest.raises(tk.InvalidModelError, match=rf"^bad\.safetensors \({digest_of(file)[:19]}\): .*'w'"):
        rig.open(put_model(rig.url, {"bad.safetensors": file}))


def test_headers_that_are_too_long_together_are_refused(rig, monkeypatch):
    monkeypatch.setattr("transferkit.registry.tensor_files.MOST_HEADERS", 100_000)
    files = {}
    for number in range(3):
        many = {f"{number}.{'n' * 100}.{index}": ("U8", [0], b"") for index in range(800)}
        files[f"{number}.safetensors"] = safetensors_of(many)
    name = put_model(rig.url, files)
    with pytest.raises(tk.InvalidModelError, match=r"the headers of the model have more than 100000 bytes together"):
        rig.open(name)


def test_one_platform_of_an_index(rig):
    files = {"model.safetensors": FILE}
    put_model(rig.url, files)
    raw = manifest_of(files)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest_of(raw), "size": len(raw)}
    platforms = [{**entry, "platform": {"os": "linux", "architecture": "s390x"}}]
    index = f'{{"schemaVersion": 2, "manifests": {platforms}}}'.replace("'", '"').encode()
    put_manifest(rig.url, "team/model", "index", index, "application/vnd.oci.image.index.v1+json")
    name = f"{host(rig.url)}/team/model:index"
    assert 4 == len(rig.open(name, platform="linux/s390x"))
    with pytest.raises(tk.InvalidManifestError, match="nothing for linux/sparc"):
        rig.open(name, platform="linux/sparc")
    with pytest.raises(tk.InvalidManifestError, match="is an index of several"):
        rig.open(name, platform="all")


# -- faults


def test_a_part_goes_on_where_it_was_cut(rig):
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}))
    rig.blobs()
    rig.faults.set(FaultRule(truncate(400_000), path="/blobs/", times=1))
    assert np.array_equal(numbers("layer.3"), tensors["layer.3"])
    (first, end), (second, same) = rig.ranges()
    assert (START + 3 * MIB, START + 4 * MIB - 1) == (first, end)
    assert (first < second <= first + 400_000, end) == (True, same)


def test_a_silent_connection_is_left(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    options = tk.TransferOptions(stall_timeout=0.2, chunk_size=MIB, retry=IMPATIENT.retry)
    with fault_proxy(rig.url) as proxy:
        tensors = rig.open(name.replace(host(rig.url), host(proxy.url)), options)
        proxy.cut()
        proxy.set([Faults(silent_after=300_000)])
        assert np.array_equal(numbers("layer.0"), tensors["layer.0"])
        tensors.close()


def test_a_server_without_ranges_is_read_as_one_stream(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    rule = FaultRule(ignore_range(), path="/blobs/")
    rig.faults.set(rule)
    tensors = rig.open(name, tk.TransferOptions(chunk_size=100_000))
    assert 1 == rule.hits
    arrays = tensors.load(["layer.3", "layer.1"])
    assert all(np.array_equal(numbers(name), array) for name, array in arrays.items())
    assert 2 == rule.hits


def test_ranges_that_are_lost_meanwhile_are_read_over(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    tensors = rig.open(name)
    rig.faults.set(FaultRule(ignore_range(), path="/blobs/"), FaultRule(truncate(3 * MIB), path="/blobs/", times=1))
    assert np.array_equal(numbers("layer.2"), tensors["layer.2"])


def test_a_missing_blob_and_a_refusal_are_errors_of_the_registry(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    tensors = rig.open(name)
    rig.faults.set(FaultRule(respond(403), path="/blobs/"))
    with pytest.raises(tk.DeniedError):
        tensors["layer.0"]
    rig.faults.set(FaultRule(respond(503), path="/blobs/"))
    with pytest.raises(tk.ServerError):
        tensors["layer.0"]
    rig.faults.set()
    rig.registry.blob_path(digest_of(FILE)).unlink()
    with pytest.raises(tk.BlobNotFoundError):
        tensors["layer.0"]
    with pytest.raises(tk.ManifestNotFoundError):
        rig.open(name.replace(":v1", ":v2"))


def test_a_cancelled_read_ends(rig):
    cancel = tk.Cancellation()
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}), cancel=cancel)

    def cancelling(application):
        def cancelled(environ, start_response):
            cancel.cancel("enough")
            return application(environ, start_response)

        return cancelled

    rig.faults.set(FaultRule(cancelling, path="/blobs/"))
    for _ in range(2):
        with pytest.raises(tk.CancelledError, match="enough"):
            tensors["layer.0"]


# -- what is verified


def test_without_a_list_nobody_can_tell(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    tensors = rig.open(name)
    assert {False} == {tensors.info(each).verified for each in tensors}
    with pytest.raises(
        tk.VerificationError,
        match=r"^nobody can verify the tensors of model\.safetensors in .*: .* pull the model first, or open it",
    ):
        rig.open(name, require_verified=True)


def test_a_list_of_chunks_verifies_what_is_read(listing):
    name = put_model(listing.url, {"model.safetensors": FILE})
    tensors = listing.open(name)
    assert {True} == {tensors.info(each).verified for each in tensors}
    listing.blobs()
    assert np.array_equal(numbers("layer.1")[:2], tensors.slice("layer.1", 0, 2))
    first = (START + MIB) // 100_000 * 100_000
    # The chunk that has the rows, and the one that has the header, which came without a proof.
    assert [(0, 99_999), (first, first + 99_999)] == listing.ranges()
    assert np.array_equal(numbers("layer.1")[:2], tensors.slice("layer.1", 0, 2))
    assert [(first, first + 99_999)] == listing.ranges()


def test_what_came_wrong_once_is_fetched_again_and_twice_is_an_error(listing):
    name = put_model(listing.url, {"model.safetensors": FILE})
    tensors = listing.open(name, require_verified=True)
    listing.faults.set(FaultRule(corrupt(5000), path="/blobs/", times=1))
    assert np.array_equal(numbers("layer.1")[:2], tensors.slice("layer.1", 0, 2))
    listing.faults.set(FaultRule(corrupt(5000), path="/blobs/"))
    with pytest.raises(tk.DigestMismatchError, match=r"the bytes \d+-\d+ are not what their digest sha256:\w+ says"):
        tensors.slice("layer.1", 0, 2)


@pytest.mark.parametrize("require_verified", [False, True])
def test_a_header_that_came_wrong_is_found_out(listing, require_verified):
    name = put_model(listing.url, {"model.safetensors": FILE})
    at = FILE.index(b"layer.0") + 6  # it becomes layer.1, and that one...
    other = FILE.index(b"layer.1") + 6
    listing.faults.set(
        FaultRule(corrupt(at), path="/blobs/", times=1), FaultRule(corrupt(other), path="/blobs/", times=1)
    )
    with pytest.raises(tk.DigestMismatchError, match=r"^model\.safetensors \(.*\): its header came otherwise"):
        listing.open(name, require_verified=require_verified)["layer.0"]


def test_a_list_that_cannot_be_had_is_done_without(listing):
    name = put_model(listing.url, {"model.safetensors": FILE})
    listing.faults.set(FaultRule(truncate(200), path="/chunksums/"))
    tensors = listing.open(name)
    assert not tensors.info("layer.0").verified
    assert np.array_equal(numbers("layer.0"), tensors["layer.0"])
    with pytest.raises(tk.VerificationError):
        listing.open(name, require_verified=True)


@pytest.mark.parametrize("lists", [False, True])
def test_a_mirror_is_asked_for_what_can_be_verified_alone(stack, tmp_path, lists):
    """And where that is wrong it comes from the registry."""
    rig = Rig(stack, tmp_path / "registry", chunksums=lists, chunk_size=500_000)
    mirror = Rig(stack, tmp_path / "mirror", chunksums=False)
    name = put_model(rig.url, {"model.safetensors": FILE})
    put_model(mirror.url, {"model.safetensors": FILE})
    lie = bytearray(FILE)
    lie[START + MIB + 5] ^= 1
    mirror.registry.blob_path(digest_of(FILE)).write_bytes(lie)
    tensors = rig.open(name, hosts={host(rig.url): tk.HostOptions(mirrors=(mirror.url,))})
    assert all(np.array_equal(numbers(each), array) for each, array in tensors.load().items())
    assert lists is bool(mirror.blobs())
    assert lists is tensors.info("layer.0").verified


# -- from the cache


def test_what_was_pulled_is_read_there_and_is_verified(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    registry = rig.client()
    registry.pull(name)
    rig.blobs()
    with registry.open_tensors(name, require_verified=True) as tensors:
        assert tensors.info("layer.2").verified
        assert np.array_equal(numbers("layer.2"), tensors["layer.2"])
        assert np.array_equal(numbers("layer.2")[5:7], tensors.slice("layer.2", 5, 7))
    assert [] == rig.blobs()


def test_a_file_that_nobody_knows_is_hashed_once(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    blobs = rig.folder / "cache" / "blobs"
    blobs.mkdir(parents=True)
    file = blobs / digest_of(FILE).replace(":", "-")
    file.write_bytes(FILE)
    assert np.array_equal(numbers("layer.2"), rig.open(name, require_verified=True)["layer.2"])
    file.write_bytes(FILE[:-1] + b"?")
    tensors = rig.open(name)
    assert not tensors.info("layer.3").verified
    assert np.array_equal(numbers("layer.3"), tensors["layer.3"])


def test_a_file_of_the_cache_that_is_changed_meanwhile_is_left(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    registry = rig.client()
    registry.pull(name)
    file = rig.folder / "cache" / "blobs" / digest_of(FILE).replace(":", "-")
    with registry.open_tensors(name) as tensors, registry.open_tensors(name, require_verified=True) as strict:
        file.chmod(0o644)
        file.write_bytes(FILE[:-1] + b"?")
        assert np.array_equal(numbers("layer.3"), tensors["layer.3"])
        assert not tensors.info("layer.3").verified
        with pytest.raises(tk.VerificationError):
            strict["layer.3"]
        file.unlink()
        assert np.array_equal(numbers("layer.3"), tensors["layer.3"])


def test_offline_the_cache_is_all_there_is(rig):
    name = put_model(rig.url, {"model.safetensors": FILE, "other.txt": b"x"})
    registry = rig.client()
    registry.pull(name)
    (registry.cache.root and (rig.folder / "cache" / "blobs" / digest_of(b"x").replace(":", "-"))).unlink()
    rig.registry.log.clear()
    offline = rig.client(offline=True)
    with offline.open_tensors(name, require_verified=True) as tensors:
        assert np.array_equal(numbers("layer.0"), tensors["layer.0"])
        (rig.folder / "cache" / "blobs" / digest_of(FILE).replace(":", "-")).unlink()
        with pytest.raises(tk.SourceError):
            tensors["layer.0"]
    with pytest.raises(tk.BlobNotFoundError, match=r"^model\.safetensors \(.*\) is not in .* offline; pull the model"):
        offline.open_tensors(name)
    with pytest.raises(tk.ManifestNotFoundError):
        offline.open_tensors(name.replace("v1", "v2"))
    assert 0 == len(rig.registry.log)


def test_who_wants_it_verified_is_refused_however_often_he_asks(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    registry = rig.client()
    registry.pull(name)
    with registry.open_tensors(name, require_verified=True) as tensors:
        (rig.folder / "cache" / "blobs" / digest_of(FILE).replace(":", "-")).unlink()
        rig.blobs()
        for read in (
            lambda: tensors["layer.0"],
            lambda: tensors["layer.0"],
            lambda: tensors.load(),
            lambda: tensors.slice("layer.1", 0, 1),
            tensors.prove,
        ):
            with pytest.raises(tk.VerificationError, match=r"nobody can verify the tensors of model\.safetensors"):
                read()
        with ThreadPoolExecutor(1) as other, pytest.raises(tk.VerificationError):
            other.submit(tensors.load).result()
    assert [] == rig.ranges()


# -- one version


def changing(answers):
    """A registry that has one file, and sends what ``answers`` says of it: its content and ETag, by the request."""
    asked = []

    def script(request):
        if "/manifests/" in request.target:
            return answer(200, manifest_of({"model.safetensors": FILE}), {"Content-Type": OCI_MANIFEST})
        match = re.match(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if "/blobs/" not in request.target or digest_of(FILE) not in request.target or not match:
            return answer(404, b"{}")
        asked.append(request)
        content, tag = answers(len(asked))
        if content is None:
            return answer(412)
        first, last = int(match[1]), min(int(match[2]), len(FILE) - 1)
        fields = {"Content-Range": f"bytes {first}-{last}/{len(FILE)}", **({"ETag": tag} if tag else {})}
        return answer(206, content[first : last + 1], fields)

    return scripted_server(script)


OTHER = FILE[:START] + bytes(len(FILE) - START)


@pytest.mark.parametrize(
    "answers",
    [
        lambda number: (FILE, '"1"') if number < 3 else (OTHER, '"2"'),
        lambda number: (FILE, '"1"') if number < 3 else (None if number == 3 else OTHER, '"2"'),
        lambda number: (FILE, '"1"') if number < 3 else (None if number == 3 else OTHER, None),
    ],
    ids=["another tag", "412", "412, and none"],
)
def test_a_tensor_is_never_of_two_versions(tmp_path, answers):
    options = tk.TransferOptions(chunk_size=300_000, concurrency=1, retry=IMPATIENT.retry)
    with changing(answers) as server, client(tmp_path, options=options) as registries:
        with registries.open_tensors(f"{server.url}/team/model:v1") as tensors:
            for _ in range(2):  # the header is of the first version all the time
                with pytest.raises(tk.ProtocolError, match=r"^model\.safetensors .* of two versions .* open it again"):
                    tensors["layer.1"]


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', None, "1"])
def test_tags_that_stay_or_promise_nothing_are_no_matter(tmp_path, tag):
    weak = ("W/" in (tag or "")) or tag == "1"
    said = lambda number: (FILE, tag.replace("1", str(number)) if weak else tag)  # noqa: E731
    with changing(said) as server, client(tmp_path) as registries:
        with registries.open_tensors(f"{server.url}/team/model:v1") as tensors:
            assert all(np.array_equal(numbers(name), array) for name, array in tensors.load().items())


def test_a_registry_that_repeats_the_token_in_a_title_does_not_get_it_into_an_error(tmp_path):
    def script(request):
        title = request.headers.get("authorization", "")[7:]
        raw = manifest_of({f"{title}.bin": FILE})
        return answer(200, raw, {"Content-Type": OCI_MANIFEST}) if "/manifests/" in request.target else answer(404)

    with scripted_server(script) as server, client(tmp_path, token="s3cr3t-of-the-user") as registries:
        with pytest.raises(tk.InvalidModelError, match="it has ") as caught:
            registries.open_tensors(f"{server.url}/team/model:v1")
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


# -- using it


def test_a_closed_one_says_so(rig):
    name = put_model(rig.url, {"model.safetensors": FILE})
    with rig.open(name) as tensors:
        pass
    tensors.close()
    assert "closed" in repr(tensors)
    for call in (
        lambda: tensors["layer.0"],
        lambda: tensors.info("layer.0"),
        lambda: tensors.load(),
        lambda: tensors.load([]),
        tensors.prove,
        lambda: tensors.slice("layer.0", 0, 1),
        lambda: list(tensors),
        lambda: len(tensors),
        lambda: tensors.metadata,
        lambda: "layer.0" in tensors,
    ):
        with pytest.raises(ValueError, match=r"^the tensors of .* are closed$"):
            call()


def test_several_threads_read_at_once(listing):
    tensors = listing.open(put_model(listing.url, {"model.safetensors": FILE}))
    found = {}

    def read(name):
        found[name] = tensors[name]

    threads = [threading.Thread(target=read, args=(name,)) for name in LARGE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(numbers(name), found[name]) for name in LARGE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads(rig):
    tensors = rig.open(put_model(rig.url, {"model.safetensors": FILE}))
    tensors["layer.0"]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(numbers("layer.1"), tensors["layer.1"]) else 1)
        except BaseException:
            os._exit(2)
    assert 0 == os.waitpid(child, 0)[1]
    assert np.array_equal(numbers("layer.2"), tensors["layer.2"])


def test_without_numpy_nothing_is_asked(rig, monkeypatch):
    name = put_model(rig.url, {"model.safetensors": FILE})
    rig.registry.log.clear()
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"transferkit\[tensors\]"):
        rig.open(name)
    assert 0 == len(rig.registry.log)


def test_the_function_uses_the_registry_of_the_process(rig, monkeypatch):
    from transferkit.registry import defaults

    monkeypatch.setenv("TRANSFERKIT_CACHE", str(rig.folder / "default"))
    monkeypatch.setattr(defaults, "_made", {})
    with tk.open_tensors(put_model(rig.url, {"model.safetensors": FILE})) as tensors:
        assert isinstance(tensors, tk.Tensors)
        assert np.array_equal(numbers("layer.0")[:1], tensors.slice("layer.0", 0, 1))
    defaults.default().close()
