"""Content that is read while another thread fills its file: what is in place, and the last byte at last."""

from __future__ import annotations

import hashlib
import random

import pytest

import transferkit as tk
from tests.descriptors import open_descriptors
from transferkit.content.descriptor import Descriptor
from transferkit.storage.arriving import Arriving
from transferkit.transfer.flow import WorkerFlow

DATA = random.Random(14).randbytes(100_000)
BLOB = Descriptor("sha256:" + hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.fixture(params=["small", "large"])
def cache(tmp_path, request):
    """A cache for which the blob is a small one, which is begun anew, or a large one, which is continued."""
    with tk.DiskCache(tmp_path, resume_threshold=1 if request.param == "large" else 1 << 30) as cache:
        cache.blobs.share()
        cache.is_large = request.param == "large"
        yield cache


@pytest.fixture
def arriving(cache):
    reader = Arriving(cache, BLOB)
    yield reader
    reader.close()


def ingest(cache):
    cache.prepare([BLOB])
    return cache.blobs.ingest(BLOB, flow=WorkerFlow())


def put(filled, start, end, data=DATA):
    filled.write_at(start, memoryview(data)[start:end])
    filled.record(start, end - 1)


def test_nothing_is_there_before_anybody_fills_it(arriving):
    assert b"" == arriving.read(0, 10)


def test_what_is_in_place_is_read_and_the_last_byte_when_the_whole_was_found_right(cache, arriving):
    filled = ingest(cache)
    assert b"" == arriving.read(0, 10)
    put(filled, 0, 60_000)
    assert DATA[:60_000] == arriving.read(0, 100_000)
    assert DATA[10:20] == arriving.read(10, 10)
    assert b"" == arriving.read(60_000, 10)
    put(filled, 60_000, 100_000)
    assert DATA[60_000:-1] == arriving.read(60_000, 100_000)
    assert b"" == arriving.read(99_999, 10), "the last byte went out before the content was verified"
    filled.commit(WorkerFlow())
    assert DATA[-1:] == arriving.read(99_999, 10)
    assert DATA == arriving.read(0, 100_000)
    assert b"" == arriving.read(100_000, 10)


def test_ranges_are_read_that_arrived_out_of_order(tmp_path):
    with tk.DiskCache(tmp_path, resume_threshold=1) as cache:
        cache.blobs.share()
        filled, arriving = ingest(cache), Arriving(cache, BLOB)
        put(filled, 50_000, 70_000)
        assert b"" == arriving.read(0, 10)
        assert DATA[50_000:70_000] == arriving.read(50_000, 100_000)
        assert DATA[69_999:70_000] == arriving.read(69_999, 100_000)
        filled.abort()
        arriving.close()


def test_content_that_is_wrong_in_the_end_is_cut_off(cache, arriving):
    wrong = bytearray(DATA)
    wrong[5] ^= 1
    filled = ingest(cache)
    put(filled, 0, 100_000, bytes(wrong))
    assert bytes(wrong[:-1]) == arriving.read(0, 100_000)
    with pytest.raises(tk.DigestMismatchError):
        filled.commit(WorkerFlow())
    assert b"" == arriving.read(99_999, 1)

    again = ingest(cache)  # the next attempt has another file
    put(again, 0, 100_000)
    with pytest.raises(tk.VerificationError, match="began again"):
        arriving.read(99_999, 1)
    again.commit(WorkerFlow())
    assert b"" != Arriving(cache, BLOB).read(99_999, 1)


def test_what_was_not_read_yet_may_begin_again(cache, arriving):
    filled = ingest(cache)
    put(filled, 0, 10)
    assert b"" == arriving.read(50, 10)
    filled.abort()
    assert b"" == arriving.read(0, 10)
    again = ingest(cache)
    put(again, 0, 20)
    assert DATA[:20] == arriving.read(0, 100)
    again.abort()


def test_content_that_is_thrown_away_before_it_is_read_is_read_anew(cache, arriving):
    filled = ingest(cache)
    put(filled, 0, 100)
    assert b"" == arriving.read(500, 10)
    filled.restart()
    put(filled, 0, 200)
    assert b"" == arriving.read(0, 100)
    assert DATA[:100] == arriving.read(0, 100)
    filled.abort()


def test_content_that_is_thrown_away_while_it_is_read_is_cut_off(cache, arriving):
    filled = ingest(cache)
    put(filled, 0, 100)
    assert DATA[:100] == arriving.read(0, 100)
    filled.restart()
    put(filled, 0, 200)
    with pytest.raises(tk.VerificationError, match="began again"):
        arriving.read(100, 100)
    filled.abort()


def test_a_large_one_is_read_on_when_it_goes_on(tmp_path):
    with tk.DiskCache(tmp_path, resume_threshold=1) as cache:
        cache.blobs.share()
        filled, arriving = ingest(cache), Arriving(cache, BLOB)
        put(filled, 0, 100)
        assert DATA[:100] == arriving.read(0, 1000)
        filled.keep()
        assert b"" == arriving.read(100, 1000)
        again = ingest(cache)
        put(again, 100, 100_000)
        assert DATA[100:1000] == arriving.read(100, 900)
        again.commit(WorkerFlow())
        assert DATA[1000:] == arriving.read(1000, 100_000)
        arriving.close()


def test_a_blob_that_is_in_the_cache_by_now_is_read_from_there(cache, arriving):
    filled = ingest(cache)
    put(filled, 0, 100_000)
    filled.commit(WorkerFlow())
    del filled
    assert DATA == arriving.read(0, 100_000)


def test_a_blob_of_which_another_file_was_read_is_not_read_on(cache, arriving):
    """Another process has brought it, and what was read of our own file may be something else."""
    filled = ingest(cache)
    put(filled, 0, 100)
    assert DATA[:100] == arriving.read(0, 100)
    filled.abort()
    cache.put(DATA)
    with pytest.raises(tk.VerificationError, match="began again"):
        for _ in range(3):  # who filled it has gone; who fills it now; what is there
            arriving.read(100, 100)


def test_no_descriptor_stays_open(cache):
    before = len(open_descriptors())
    filled = ingest(cache)
    put(filled, 0, 100_000)
    readers = [Arriving(cache, BLOB) for _ in range(5)]
    assert [DATA[:10]] * 5 == [reader.read(0, 10) for reader in readers]
    filled.commit(WorkerFlow())
    for reader in readers:
        assert DATA[-1:] == reader.read(99_999, 1)
        reader.close()
        reader.close()
    cache.blobs.close()
    assert before == len(open_descriptors())
