"""What refers to what: each once, and never without an end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from transferkit.content.digest import Digest
from transferkit.content.graph import Document, collect
from transferkit.content.manifest import Manifest
from transferkit.errors import ProtocolError
from transferkit.registry import copying


class End:
    """Documents, and which of them refer to which."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.edges: dict[str, list[Digest]] = {}

    def add(self, name: str, *subjects: Document) -> Manifest:
        document = Manifest(json.dumps({"layers": [], "annotations": {"name": name}}).encode())
        self.documents[document.digest] = document
        for subject in subjects:
            self.edges.setdefault(subject.digest, []).append(document.digest)
        return document

    def load(self, digest: Digest) -> Document:
        return self.documents[digest]

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        return iter(self.edges.get(digest, []))


def found_by(end: End, root: Document) -> dict[Digest, list[Document]]:
    return copying._referring(end, collect(root, lambda _: None))  # type: ignore[arg-type]  # all that is used of it


def test_each_is_found_once_by_what_it_refers_to() -> None:
    end = End()
    root = end.add("root")
    one, two = end.add("one", root), end.add("two", root)
    third = end.add("third", one, two)
    assert found_by(end, root) == {root.digest: [one, two], one.digest: [third]}


def test_a_cycle_has_an_end() -> None:
    end = End()
    root = end.add("root")
    one = end.add("one", root)
    two = end.add("two", one)
    end.edges[two.digest] = [one.digest, root.digest, two.digest]
    assert found_by(end, root) == {root.digest: [one], one.digest: [two]}


@pytest.mark.parametrize(("limit", "value"), [("_MOST", 2), ("MOST_BYTES", 100)])
def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    end = End()
    root = end.add("root")
    for number in range(3):
        end.add(f"{number}", root)
    assert len(found_by(end, root)[root.digest]) == 3
    monkeypatch.setattr(copying, limit, value)
    with pytest.raises(ProtocolError, match="refer to"):
        found_by(end, root)
