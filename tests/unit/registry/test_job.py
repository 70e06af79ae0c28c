"""One call: what it holds until its workers have ended, and what it says of names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import transferkit as tk
from transferkit.content.graph import collect
from transferkit.content.manifest import Manifest, parse
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.transfer.operation import Operation

A, B, C = (f"sha256:{64 * letter}" for letter in "abc")


class Events(tk.Trace):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def announced(self, descriptors: Any) -> None:
        self.told.append([descriptor.digest for descriptor in descriptors])


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def job(events: Events) -> Iterator[Job]:
    with ExitStack() as held, Operation(trace=events) as operation:
        yield Job(operation, None, tk.TransferOptions(), held)  # type: ignore[arg-type]  # no names here


def test_what_is_held_is_let_go_of_after_the_workers(events: Events) -> None:
    told: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        told.append("entered")
        yield
        told.append("left")

    with ExitStack() as held:
        with Operation() as operation:
            job = Job(operation, None, tk.TransferOptions(), held)  # type: ignore[arg-type]
            job.hold(lambda flow: context())
            assert told == ["entered"]
        assert told == ["entered"]
    assert told == ["entered", "left"]


def test_layers_are_announced_before_configs_and_each_once(job: Job, events: Events) -> None:
    layers = [{"digest": digest, "size": 1} for digest in (B, C, B)]
    manifest = parse(json.dumps({"config": {"digest": A, "size": 1}, "layers": layers}).encode())
    job.announce(collect(manifest, lambda _: None))
    assert events.told == [[B, C, A]]


def test_a_digest_without_a_repository_leads_nowhere(job: Job) -> None:
    with pytest.raises(tk.InvalidNameError, match=r"is a digest alone; say in which repository: name@sha256:a"):
        job.site(Reference.parse(f"@{A}"))


class Target:
    """A repository that does not find blobs so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.pushed = 0
        self.sent: list[str] = []

    def push_manifest(self, raw: bytes, reference: str, *, media_type: str, flow: Any) -> str:
        self.pushed += 1
        if self.pushed <= self.times:
            raise tk.BlobNotFoundError("unknown blob")
        return reference

    def push(self, descriptor: tk.Descriptor, source: Any, *, flow: Any) -> Any:
        self.sent.append(descriptor.digest)
        return None


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("transferkit.transfer.flow.WorkerFlow.wait", lambda _, seconds, why="": found.append(seconds))
    return found


@pytest.mark.parametrize(("times", "expected"), [(0, []), (1, [0.0]), (3, [0.0, 0.2, 0.8])])
def test_blobs_that_a_registry_does_not_find_are_sent_again(
    job: Job, waits: list[float], times: int, expected: list[float]
) -> None:
    target: Any = Target(times)
    manifest = Manifest(json.dumps({"layers": [{"digest": A, "size": 1}]}).encode())
    job.push(manifest, None, target, "v1")  # type: ignore[arg-type]  # the source is not asked
    assert (target.pushed, target.sent, waits) == (times + 1, [A] * times, expected)


def test_they_are_not_sent_for_ever(job: Job, waits: list[float]) -> None:
    target: Any = Target(99)
    manifest = Manifest(b'{"layers": []}')
    with pytest.raises(tk.BlobNotFoundError):
        job.push(manifest, None, target, "v1")  # type: ignore[arg-type]
    assert (target.pushed, waits) == (4, [0.0, 0.2, 0.8])


def test_an_index_has_no_blobs_to_send_again(job: Job) -> None:
    target: Any = Target(1)
    with pytest.raises(tk.BlobNotFoundError):
        job.push(parse(b'{"manifests": []}'), None, target, "v1")  # type: ignore[arg-type]
    assert (target.pushed, target.sent) == (1, [])
