"""What the content of an open file is."""

from __future__ import annotations

import os

from tests.unit.storage.models import digest_of
from transferkit.storage.disk import Disk
from transferkit.storage.matching import matching
from transferkit.transfer.flow import WorkerFlow

A, B = digest_of(b"content"), digest_of(b"other")


def test_a_file_has_the_digest_of_its_content_and_none_while_it_changes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    class Edited(Disk):
        def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
            if not offset:
                os.utime(path)
            return super().preadv(fd, buffer, offset)

    with path.open("rb") as file:
        assert {A} == matching(Disk(), file.fileno(), {A, B}, WorkerFlow())[0]
        assert set() == matching(Disk(), file.fileno(), {B}, WorkerFlow())[0]
        assert set() == matching(Edited(), file.fileno(), {A, B}, WorkerFlow())[0]
