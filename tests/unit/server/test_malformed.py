"""Requests that nobody planned, to every part of a server: each is answered in its words, and the store is in order."""

from __future__ import annotations

import bisect
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import transferkit as tk
from tests.unit.server.hostile import ABSENT, HELLO, SESSION, Ask, Told, judge, manifest_with, tell
from tests.unit.server.hostile_values import asks
from transferkit.server import OCIRegistry
from transferkit.server.app import Application
from transferkit.server.limits import Limits
from transferkit.server.passwords import Passwords

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

USER = {"ann": "secret"}
BASIC = ("Authorization", "Basic YW5uOnNlY3JldA==")
BLOB = re.compile(r"sha256-[0-9a-f]{64}(\.chunks-[0-9]+)?|sha512-[0-9a-f]{128}")
KINDS = ("all", "mirror", "passwords", "read-only", "tokens", "registry")


@dataclass
class Part:
    """An application that lives on from request to request, and what it needs to get further than the first judge."""

    application: WSGIApplication
    store: Path | None = None
    more: tuple[tuple[str, str], ...] = ()
    is_registry: bool = False
    upload: tuple[str, str] = field(default=("", ""), init=False)

    def begin(self) -> Part:
        """Begin an upload, where there may be one."""
        told = self.tell(Ask("POST", "/v2/a/blobs/uploads/"))
        path, _, query = told.headers.get("location", "").partition("?")
        self.upload = path.rpartition("/")[2], unquote(query.removeprefix("_state="))
        return self

    def tell(self, ask: Ask) -> Told:
        missing = [each for each in self.more if each[0] not in dict(ask.headers)]
        return tell(self.application, replace(ask.filled(*self.upload), headers=(*ask.headers, *missing)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Part]]:
    folder = tmp_path_factory.mktemp("parts")
    with tk.Registry(cache=folder / "cache", offline=True) as registry:
        registry.cache.put(b"hello")
        # What a registry that is malformed itself, or means harm, has brought into the cache.
        annotations = {
            "smol": "{}",
            "odd:deep": 900 * "[" + 900 * "]",
            "odd:lone": r'{"a":"\ud800"}',
            "odd:large": 4000 * "9",
        }
        for name, text in annotations.items():
            registry.cache.link(name, manifest_with(text).encode())
        loose = {"durable": False, "patience": 0, "sparse": True, "limits": Limits(uploads=500)}
        made = {
            "all": Part(Application(registry=registry, store=folder / "1"), folder / "1"),
            "mirror": Part(Application(registry=registry, mirror=registry.cache)),
            "passwords": Part(
                Application(registry=registry, store=folder / "2", passwords=Passwords.plain(USER)),
                folder / "2",
                (BASIC,),
            ),
            "read-only": Part(Application(registry=registry, store=folder / "1", read_only=True)),
            "tokens": Part(OCIRegistry(folder / "3", auth=USER, tokens=True, **loose), folder / "3", (BASIC,), True),
            "registry": Part(OCIRegistry(folder / "4", **loose), folder / "4", (), True),
        }
        for part in made.values():
            part.tell(Ask("POST", "/v2/a/blobs/uploads/", f"digest={HELLO}", (), b"hello"))
            part.begin()
        yield made
        for part in made.values():
            getattr(part.application, "close", lambda: None)()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), ask=asks)
def test_no_request_is_the_servers_fault(
    parts: dict[str, Part], caplog: pytest.LogCaptureFixture, kind: str, ask: Ask
) -> None:
    part = parts[kind]
    caplog.set_level(logging.ERROR)

    judge(ask, part.tell(ask), is_registry=part.is_registry)

    assert [] == caplog.records
    if SESSION in ask.path:
        part.begin()
    if part.store is not None:
        assert {"blobs", "repositories", "uploads"} == {each.name for each in part.store.iterdir()}
        assert [] == [each.name for each in (part.store / "blobs").iterdir() if not BLOB.fullmatch(each.name)]


def test_annotations_as_deep_as_they_are_taken_are_no_error_of_the_referrers(parts):
    """Python counts levels and calls together: a manifest that could just be read cannot, where more has called us."""
    part = parts["registry"]

    def is_taken(levels: int) -> bool:
        raw = manifest_with("[" * levels + "]" * levels).replace(ABSENT, f"sha256:{levels:064}")
        return 201 == part.tell(Ask("PUT", "/v2/deep/manifests/v1", body=raw.encode())).status

    def list_it(levels: int, calls: int) -> Told:
        ask = Ask("GET", f"/v2/deep/referrers/sha256:{levels:064}")
        return list_it(levels, calls - 1) if calls else part.tell(ask)

    most = bisect.bisect_left(range(2000), True, key=lambda levels: not is_taken(levels)) - 1
    assert most > 100
    told = list_it(most, 30)
    assert (200, 1) == (told.status, len(json.loads(told.body)["manifests"]))


def test_of_annotations_the_texts_are_told(parts):
    part, subject = parts["registry"], "sha256:" + 64 * "e"
    raw = (
        manifest_with('{"a": "b", "c": 1, "d": ["e"]}')
        .replace(ABSENT, subject)
        .replace('"layers"', '"artifactType":1,"layers"')
    )
    assert 201 == part.tell(Ask("PUT", "/v2/texts/manifests/v1", body=raw.encode())).status
    (entry,) = json.loads(part.tell(Ask("GET", f"/v2/texts/referrers/{subject}")).body)["manifests"]
    assert ({"a": "b"}, None) == (entry["annotations"], entry.get("artifactType"))


@pytest.mark.parametrize("number", ["1e999", "-1e999", '{"a":1e400}', "NaN", "Infinity", "9" * 5000])
def test_a_number_that_cannot_be_written_as_json_is_none(parts, number):
    told = parts["registry"].tell(Ask("PUT", "/v2/a/manifests/v1", body=manifest_with(number).encode()))
    assert (400, "MANIFEST_INVALID") == (told.status, json.loads(told.body)["errors"][0]["code"])


@pytest.mark.parametrize(("digits", "status"), [(7, 404), (8, 413), (19, 413), (20, 413), (5000, 413)])
def test_a_length_of_any_number_of_digits_is_judged(parts, digits, status):
    ask = Ask("GET", "/unknown", headers=(("Content-Length", "1" + "0" * (digits - 1)),))
    assert status == parts["all"].tell(ask).status


@pytest.mark.parametrize("etag", ['"other"', "*", f'W/"{HELLO}"'])
def test_a_mirror_sends_no_blob_with_its_412(parts, etag):
    told = parts["mirror"].tell(Ask("GET", f"/v2/library/smol/blobs/{HELLO}", headers=(("If-Match", etag),)))
    if told.status == 200:
        assert (b"hello", "*") == (told.body, etag)
    else:
        assert (412, "BLOB_UNKNOWN") == (told.status, json.loads(told.body)["errors"][0]["code"])
