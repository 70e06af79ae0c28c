"""Descriptors and blobs: what they check, what they compare, and what a list of them may hold."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from transferkit.content.descriptor import Blob, Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.errors import InvalidDescriptorError, InvalidDigestError

A = "sha256:" + 64 * "a"
B = "sha256:" + 64 * "b"


@pytest.mark.parametrize("kind", [Descriptor, Blob])
@pytest.mark.parametrize("size", [0, 1, 2**31, 2**63 - 1])
def test_a_size_that_a_file_can_have_is_taken(kind: Any, size: int) -> None:
    assert kind(A, size).size == size


@pytest.mark.parametrize("kind", [Descriptor, Blob])
@pytest.mark.parametrize("size", [-1, 2**63, 10**30])
def test_a_size_that_no_file_can_have_is_refused(kind: Any, size: int) -> None:
    with pytest.raises(InvalidDescriptorError) as caught:
        kind(A, size)
    assert str(caught.value) == f"the size of sha256:aaaaaaaaaaaa is {size}; it should be between 0 and 2^63-1 bytes"


@pytest.mark.parametrize("kind", [Descriptor, Blob])
@pytest.mark.parametrize(
    ("size", "name"), [(True, "bool"), (1.0, "float"), ("1", "str"), (None, "NoneType"), (float("nan"), "float")]
)
def test_a_size_that_is_no_int_is_refused(kind: Any, size: object, name: str) -> None:
    with pytest.raises(InvalidDescriptorError) as caught:
        kind(A, size)
    assert str(caught.value) == f"the size of sha256:aaaaaaaaaaaa is a number of bytes (int), not {name}"


@pytest.mark.parametrize("kind", [Descriptor, Blob])
def test_a_digest_may_be_a_plain_text_and_is_kept_as_a_digest(kind: Any) -> None:
    value = kind(A, 5)
    assert type(value.digest) is Digest
    assert (value.digest, value.size) == (A, 5)


@pytest.mark.parametrize("kind", [Descriptor, Blob])
def test_a_digest_that_is_none_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidDigestError):
        kind("sha256-" + 64 * "a", 5)


def test_a_descriptor_has_harmless_defaults() -> None:
    descriptor = Descriptor(Digest(A), 5)
    assert descriptor.media_type == "application/octet-stream"
    assert descriptor.annotations == ()
    assert descriptor.source is None


@pytest.mark.parametrize("kind", [Descriptor, Blob])
def test_it_is_frozen_and_hashable_and_survives_pickle(kind: Any) -> None:
    value = kind(A, 5, source="library/other")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.size = 6
    assert pickle.loads(pickle.dumps(value)) == value
    assert {value} == {kind(A, 5, source="library/other")}


def test_annotations_and_the_source_do_not_make_another_descriptor() -> None:
    first = Descriptor(Digest(A), 5, annotations=(("a", "b"),), source="library/other")
    assert first == Descriptor(Digest(A), 5)
    assert hash(first) == hash(Descriptor(Digest(A), 5))
    assert first != Descriptor(Digest(A), 6)
    assert first != Descriptor(Digest(B), 5)
    assert first != Descriptor(Digest(A), 5, media_type="text/plain")


def test_unique_keeps_the_order_and_the_first_of_each_digest() -> None:
    blobs: list[Blob | Descriptor] = [
        Blob(B, 2, source="library/other"),
        Descriptor(Digest(A), 1),
        Blob(B, 2),
        Blob(A, 1),
    ]
    result = unique(blobs)
    assert result == [Descriptor(Digest(B), 2), Descriptor(Digest(A), 1)]
    assert [descriptor.source for descriptor in result] == ["library/other", None]


def test_unique_keeps_a_descriptor_as_it_is() -> None:
    descriptor = Descriptor(Digest(A), 1, media_type="text/plain")
    assert unique([descriptor])[0] is descriptor


def test_unique_takes_any_iterable_and_none_at_all() -> None:
    assert unique(iter([Blob(A, 1)])) == [Descriptor(Digest(A), 1)]
    assert unique([]) == []


def test_the_same_digest_with_two_sizes_is_refused() -> None:
    with pytest.raises(InvalidDescriptorError) as caught:
        unique([Blob(A, 1), Blob(B, 1), Descriptor(Digest(A), 2)])
    assert str(caught.value) == "sha256:aaaaaaaaaaaa is listed twice, with 1 and with 2 bytes"


@pytest.mark.parametrize("blobs", [[A], "sha256", [(A, 5)], [None], {A: 5}])
def test_what_is_no_blob_is_refused(blobs: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^blobs are Blob or Descriptor objects, such as Blob\(digest, size\), not \w+$"
    ):
        unique(blobs)
