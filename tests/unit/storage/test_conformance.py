"""The suite that every target passes, over blobs that are written in order and over partial files."""

from __future__ import annotations

import functools

import pytest

from tests.unit.storage.suite import Kind, TargetSuite
from transferkit.storage.directory import Directory

SMALL = Kind(name="small", open=functools.partial(Directory, resume_threshold=2**40, durable=True), resumes=False)
LARGE = Kind(name="large", open=functools.partial(Directory, resume_threshold=1, durable=True), resumes=True)


@pytest.fixture(scope="module", params=[SMALL, LARGE], ids=lambda kind: kind.name)
def kind(request) -> Kind:
    return request.param


class TestDirectory(TargetSuite):
    """Both kinds of files of a folder."""
