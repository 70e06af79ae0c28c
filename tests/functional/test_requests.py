"""Every request that a job can do without, as ``docs/requests.rst`` lists them, fails in every way: the job ends right.

``make test`` runs one status a class; all of them: ``make test-full``.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry
from transferkit.testing import (
    FaultRule,
    HTTPFaults,
    hang_up,
    html_page,
    respond,
    running_registry,
    set_header,
    truncate,
)

PAGE = Path(__file__).parents[2] / "docs" / "requests.rst"
REPOSITORY, SOURCE = "library/model", "library/source"
SIZE = 1_500_000
LISTS = {"method": "GET", "path": "/chunksums/"}
SESSION = {"method": "GET", "path": "/blobs/uploads/"}
HEAD = {"method": "HEAD", "path": "/blobs/"}
PUT = {"method": "PUT", "path": "/blobs/uploads/"}


def is_range(environ: dict[str, Any]) -> bool:
    return "HTTP_RANGE" in environ and "/blobs/" in environ["PATH_INFO"]


def begins_with_content(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] == "POST" and environ.get("QUERY_STRING", "").startswith("digest=")


@dataclass(frozen=True)
class Question:
    """``match`` finds the request, and ``rules`` lead to it; ``error`` is a status that may be told for success."""

    match: dict[str, Any]
    upload: bool = True
    rules: tuple[Callable[[], FaultRule], ...] = ()
    part_size: int | None = None
    error: int | None = None


MIB = 1024 * 1024
QUESTIONS = {
    "exists": Question(HEAD),
    "mount": Question({"method": "POST", "path": "mount="}),
    "at once": Question({"where": begins_with_content}),
    "range": Question({"where": is_range}, upload=False),
    "rest": Question({"where": is_range}, upload=False),
    "list": Question(LISTS, upload=False),
    "status": Question(SESSION, rules=(lambda: FaultRule(respond(503, read_body=True), times=1, **PUT),)),
    "part": Question(
        SESSION,
        rules=(lambda: FaultRule(set_header("Range", None), method="PATCH", path="/blobs/uploads/"),),
        part_size=MIB,
    ),
    "commit": Question(
        {**HEAD, "skip": 1},
        rules=(lambda: FaultRule(respond(409, after_app=True), times=1, **PUT),),
        error=409,
    ),
}


def silent(app):
    """Say nothing for longer than is waited for."""

    def middle(environ, start_response):
        threading.Event().wait(0.15)
        return app(environ, start_response)

    return middle


def sample(status: HTTPStatus) -> bool:
    """Tell whether a status is the first of those that mean the same to us."""
    return status in (202, 204, 304, 307, 400, 401, 403, 404, 416, 429, 500, 501, 503)


STATUSES = [status for status in HTTPStatus if status >= 200]
FAULTS = [
    *(
        pytest.param(respond(status), id=f"{status}", marks=() if sample(status) else pytest.mark.full)
        for status in STATUSES
    ),
    pytest.param(silent, id="silence"),
    pytest.param(hang_up(), id="cut"),
    pytest.param(html_page(200), id="page"),
    pytest.param(respond(200, ""), id="empty"),
]


class World:
    """A registry with a blob to fetch, and the same blob to send."""

    def __init__(self, registry: Any, faults: HTTPFaults, folder: Path, blob: tk.Blob) -> None:
        self.registry = registry
        self.faults = faults
        self.folder = folder
        self.blob = blob
        self.small = [self._put(b"small %d" % number) for number in range(20)]
        """As many as it takes until they are sent with the request that begins their upload."""
        self.options = tk.TransferOptions(
            chunk_threshold=MIB,
            chunk_size=MIB // 2,
            resume_threshold=MIB,
            retry=tk.RetryOptions(patience=0.0, max_wait=0.01),
            transport=tk.TransportOptions(response_timeout=0.1),
        )
        self.where = {"base_url": registry.url, "concurrency": 2}

    def _put(self, content: bytes) -> tk.Blob:
        blob = tk.Blob("sha256:" + hashlib.sha256(content).hexdigest(), len(content))
        (self.folder / "source" / tk.digest_to_path(blob.digest)).write_bytes(content)
        return blob

    def download(self, folder: Path, **keywords: Any) -> None:
        tk.download([self.blob], folder, repository=SOURCE, **self.where, **keywords)

    @property
    def partial(self) -> Path:
        """A folder with a part of the blob that an interrupted download has left."""
        folder = self.folder / "partial"
        if not folder.exists():
            self.faults.set(FaultRule(truncate(700_000), method="GET", path="/blobs/"))
            options = tk.TransferOptions(resume_threshold=MIB, retry=tk.RetryOptions(attempts=1, patience=0.0))
            with pytest.raises(tk.IncompleteError):
                self.download(folder, options=options)
        return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    data = random.Random(7).randbytes(SIZE)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    (folder / "source").mkdir()
    (folder / "source" / tk.digest_to_path(digest)).write_bytes(data)
    faults = HTTPFaults()

    def middleware(_app: Any) -> Any:
        return faults(OCIRegistry(folder / "store", chunksums=True, chunk_size=MIB // 2))

    with running_registry(folder / "store", middleware=middleware) as registry:
        world = World(registry, faults, folder, tk.Blob(digest, SIZE))
        tk.upload([world.blob], folder / "source", base_url=registry.url, repository=SOURCE)
        yield world
        faults.set()


def test_the_table_of_the_page_is_what_is_tested() -> None:
    section = PAGE.read_text().partition("can do without\n")[2].partition("that a job needs")[0]
    assert list(QUESTIONS) == re.findall(r"^   \* - (?!request)(.+)$", section, re.MULTILINE)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_job_does_without_the_answer(world: World, tmp_path: Path, name: str, fault: Any) -> None:
    question = QUESTIONS[name]
    target = tmp_path / "target"
    if name == "rest":
        shutil.copytree(world.partial, target)
    rules = [rule() for rule in question.rules]
    asked = FaultRule(fault, **question.match)
    if question.upload:
        blob = tk.Blob(world.blob.digest, SIZE, source=SOURCE if name == "mount" else None)
        repository = f"pushed/{name.replace(' ', '-')}-{abs(hash(tmp_path))}"
        world.faults.set(asked, *rules)
        options = {
            "options": tk.TransferOptions(
                part_size=question.part_size, retry=world.options.retry, transport=world.options.transport
            )
        }
        blobs = world.small if name == "at once" else [blob]
        try:
            tk.upload(blobs, world.folder / "source", repository=repository, **world.where, **options)
        except tk.IncompleteError as error:
            (failure,) = error.failures.values()
            assert question.error == getattr(failure, "status", None), failure
        world.faults.set()
        blobs = world.small if name == "at once" else [world.blob]
        tk.download(blobs, target, repository=repository, **world.where)
    else:
        others = [FaultRule(respond(404), **LISTS)] if name != "list" else []
        world.faults.set(asked, *others)
        options = {"options": world.options}
        if name == "rest":
            options = {
                "options": tk.TransferOptions(
                    resume_threshold=MIB, retry=world.options.retry, transport=world.options.transport
                )
            }
        world.download(target, **options)
        world.faults.set()
        blobs = [world.blob]
    assert asked.hits > 0
    for path in map(tk.digest_to_path, (each.digest for each in blobs)):
        assert (world.folder / "source" / path).read_bytes() == (target / path).read_bytes()
