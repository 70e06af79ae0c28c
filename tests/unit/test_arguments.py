"""What a call takes for its keywords, and what it says to everything else before it does anything."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

import transferkit as tk
from transferkit.arguments import check, descriptors_of, shown

DIGEST, OTHER = "sha256:" + 64 * "a", "sha256:" + 64 * "b"
BLOB = tk.Blob(DIGEST, 5)
MANIFEST = {
    "schemaVersion": 2,
    "config": {"mediaType": "application/json", "digest": OTHER, "size": 7},
    "layers": [{"mediaType": "application/octet-stream", "digest": DIGEST, "size": 5}],
}


@pytest.mark.parametrize("name", ["dest_dir", "src_dir", "directory", "to", "folder"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [("", 'empty; the current folder is "."'), ("a\0b", "has a NUL"), ("a\ud800", "is not Unicode")],
)
def test_a_path_that_no_system_takes_is_refused(name: str, value: str, reason: str) -> None:
    with pytest.raises(tk.InvalidNameError, match=f"^{name} is .*{reason}"):
        check(**{name: value})
    check(**{name: Path()})  # the current folder
    check(**{name: "a\udcff"})  # a name on a disk that is not UTF-8


class MyTrace(tk.Trace):
    pass


class Vault:
    def for_(self, host: str, repository: str) -> None:
        return None


WRONG: list[tuple[str, Any, str]] = [
    ("dest_dir", None, "a path"),
    ("dest_dir", b"folder", "a path"),
    ("dest_dir", 3, "a path"),
    ("src_dir", None, "a path"),
    ("options", {}, r"a TransferOptions, such as TransferOptions\(concurrency=8\), not dict"),
    ("options", tk.RetryOptions(), "a TransferOptions.*, not RetryOptions"),
    ("options", tk.TransferOptions, "a TransferOptions.*, not the class TransferOptions"),
    ("concurrency", "8", "a number of blobs"),
    ("concurrency", True, "a number of blobs"),
    ("concurrency", 2.5, "a number of blobs"),
    ("stall_timeout", "10", "a number of seconds"),
    ("progress", 3, r"a function of \(completed, total\) in bytes, or True, not int"),
    ("progress", "bar", "a function"),
    ("auth", "user:hunter2", r"a pair of texts \(user, password\), or a function that returns one for a host, not str"),
    ("auth", ("user",), "a pair of texts"),
    ("auth", ("user", "hunter2", "x"), "a pair of texts"),
    ("auth", ("user", b"hunter2"), "a pair of texts"),
    ("auth", {"user": "hunter2"}, "a pair of texts"),
    ("token", b"hunter2", "the text of a token"),
    ("token", ("user", "hunter2"), "the text of a token"),
    ("get_token", "hunter2", "a function from an AuthChallenge"),
    ("annotations", {"a": 1}, "a mapping of texts to texts"),
    ("annotations", [("a", "b")], "a mapping of texts to texts, not list"),
    ("only", 3, "a pattern, such as .*, not int"),
    ("only", ["*.json", 3], "a pattern, such as .*, a list of patterns"),
    ("exclude", iter(["*.json"]), "a pattern, a list of patterns, or a function of a path, not list_iterator"),
    ("folder", 3, "a path"),
    ("folder", b"folder", "a path"),
    ("ollama", 1, "True or False, not int"),
    ("sign", b"key", "a function from a Manifest"),
    ("session", requests, "a requests.Session, not module"),
    ("session", requests.Session, "a requests.Session, not the class Session"),
    ("session", "session", "a requests.Session"),
    ("user_agent", b"mine", "a text"),
    ("logger", "mine", "a logging.Logger"),
    ("logger", logging.Logger, "a logging.Logger, not the class Logger"),
    ("cancel", True, "a Cancellation"),
    ("cancel", tk.Cancellation, "a Cancellation, not the class Cancellation"),
    ("trace", MyTrace, "an instance of a subclass of Trace, not the class MyTrace"),
    ("trace", print, "an instance"),
    ("manifest", {}, r"the bytes of a manifest; those of a Manifest are its \.raw, not dict"),
    ("manifest", "{}", "the bytes of a manifest"),
    ("manifest", tk.Manifest(json.dumps(MANIFEST).encode()), r".+ \.raw, not Manifest"),
    ("manifest_ref", 5, "a tag or a digest"),
    ("manifest_media_type", b"x/y", "a text"),
]


@pytest.mark.parametrize(("name", "value", "text"), WRONG)
def test_a_wrong_type_is_named_and_so_is_what_is_taken(name: str, value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is {text}") as caught:
        check(**{name: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dest_dir", "folder"),
        ("src_dir", Path("folder")),
        ("options", None),
        ("options", tk.TransferOptions()),
        ("concurrency", 8),
        ("stall_timeout", 2),
        ("stall_timeout", 0.5),
        ("progress", True),
        ("progress", False),
        ("progress", print),
        ("auth", ("user", "password")),
        ("auth", lambda host: None),
        ("auth", Vault()),
        ("token", "t"),
        ("get_token", str),
        ("session", requests.Session()),
        ("user_agent", "mine"),
        ("logger", logging.getLogger("mine")),
        ("logger", logging.LoggerAdapter(logging.getLogger("mine"))),
        ("cancel", tk.Cancellation()),
        ("trace", MyTrace()),
        ("manifest", b"{}"),
        ("manifest", bytearray(b"{}")),
        ("manifest_ref", "latest"),
        ("manifest_media_type", "application/json"),
    ],
)
def test_what_is_taken_is_taken(name: str, value: Any) -> None:
    check(**{name: value})


@pytest.mark.parametrize("blobs", [DIGEST, DIGEST.encode(), BLOB, tk.Descriptor(DIGEST, 5), {DIGEST: 5}, None, 5])
def test_what_is_no_list_of_blobs_is_a_type_error(blobs: Any) -> None:
    with pytest.raises(TypeError, match=r"^blobs is a list of Blob or Descriptor objects, or a Manifest, not "):
        descriptors_of(blobs)


def test_all_kinds_of_lists_are_taken() -> None:
    expected = [tk.Descriptor(DIGEST, 5)]
    assert expected == descriptors_of([BLOB])
    assert expected == descriptors_of((BLOB, BLOB))
    assert expected == descriptors_of(blob for blob in [BLOB])
    assert expected == descriptors_of({BLOB: 1}.keys())
    assert [] == descriptors_of(())


def test_of_a_manifest_all_that_it_names_is_taken() -> None:
    manifest = tk.Manifest(json.dumps(MANIFEST).encode())
    assert [(OTHER, 7), (DIGEST, 5)] == [(d.digest, d.size) for d in descriptors_of(manifest)]
    bare = tk.Manifest(json.dumps({**MANIFEST, "config": None}).encode())
    assert [(DIGEST, 5)] == [(d.digest, d.size) for d in descriptors_of(bare)]


def test_an_index_has_nothing_to_take_and_says_what_to_do() -> None:
    index = tk.Index(json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    with pytest.raises(tk.InvalidManifestError, match=r"^an index has no layers; fetch one of its 0 "):
        descriptors_of(index)


def test_true_draws_a_bar_of_all_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with shown(True, "library/model", [tk.Descriptor(DIGEST, 5)]) as (callback, trace):
        assert callback is None
        trace.status(tk.Status(completed=5, total=5))
    assert "library/model: 5 B of 5 B (100 %)\n" == stream.getvalue()


class Calls(list):  # type: ignore[type-arg]
    """A callback that is false as long as nobody has called it."""

    def __call__(self, completed: int, total: int) -> None:
        self.append((completed, total))


def test_false_and_none_show_nothing_and_a_function_is_itself() -> None:
    calls = Calls()
    check(progress=calls)
    for progress, expected in ((None, None), (False, None), (print, print), (calls, calls)):
        with shown(progress, "library/model", []) as (callback, _):
            assert expected is callback
