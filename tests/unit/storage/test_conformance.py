"""The suite that every store passes, over blobs that are written in order and over partial files."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.unit.storage.suite import Kind, TargetSuite
from transferkit.content.digest import Digest
from transferkit.storage.cache import DiskCache
from transferkit.storage.directory import Directory
from transferkit.storage.layout import OCILayout


def in_layout(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.hex}"


def tar_file(folder: Path, **options) -> OCILayout:
    return OCILayout(folder / "x.tar", **options)


STORES = {
    "directory": (Directory, "", None),
    "cache": (DiskCache, "blobs", None),
    "layout": (OCILayout, "blobs", in_layout),
    "tar": (tar_file, "x.tar.partial/blobs", in_layout),
}
SIZES = {"small": 2**40, "large": 1}


def make(store: str, size: str) -> Kind:
    kind, blobs, names = STORES[store]
    return Kind(
        name=f"{store}-{size}",
        open=functools.partial(kind, resume_threshold=SIZES[size], durable=True),
        resumes=size == "large",
        blobs=blobs,
        **({} if names is None else {"names": names}),
    )


@pytest.fixture(
    scope="module", params=[make(store, size) for store in STORES for size in SIZES], ids=lambda kind: kind.name
)
def kind(request) -> Kind:
    return request.param


class TestStores(TargetSuite):
    """Each store, with both kinds of files."""
