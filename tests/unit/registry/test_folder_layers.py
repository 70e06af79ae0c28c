"""Members of layers: what they are called, and which one counts."""

from __future__ import annotations

import time

import pytest

import transferkit as tk
from tests.unit.registry.folder_rig import Source, contents_of
from transferkit.registry.folder_layers import key_of, merged, named

SOURCE = Source()


@pytest.mark.parametrize(
    ("member", "inside", "path", "kind", "expected"),
    [
        ("a", "", "", "kitops", "a"),
        ("./a/b", "", "", "kitops", "a/b"),
        (".//a", "", "", "kitops", "a"),
        ("a", "", "to", "kitops", "to/a"),
        ("models/a", "models", "", "image", "a"),
        ("/models/a", "models", "", "image", "a"),
        ("modelsa", "models", "", "image", None),
        ("etc/passwd", "models", "", "image", None),
        ("../../etc", "models", "", "image", None),
        ("tok/a", "tok", "tok", "oras", "tok/a"),
    ],
)
def test_a_member_has_a_path_or_is_none_that_is_meant(member, inside, path, kind, expected) -> None:
    entry = SOURCE.packed({}, path=path, inside=inside)
    found = named(entry, contents_of(entry, kind=kind), lambda path: True)(member)
    assert (None if expected is None else (expected, True)) == (found and found[:2])


@pytest.mark.parametrize(
    "member", ["../a", "/a", "a/../../b", "", "a//b", "models/../../x", ".transferkit/a", "con", "a\0"]
)
def test_a_member_that_leads_elsewhere_is_refused(member) -> None:
    entry = SOURCE.packed({})
    with pytest.raises(tk.InvalidNameError):
        named(entry, contents_of(entry, kind="kitops"), lambda path: True)(member)


def test_what_is_wanted_is_asked_by_path() -> None:
    entry = SOURCE.packed({}, path="to")
    tell = named(entry, contents_of(entry, kind="kitops"), lambda path: path == "to/a")
    assert (("to/a", True, None), ("to/b", False, None)) == (tell("a"), tell("b"))


OPAQUE = ".wh..wh..opq"


@pytest.mark.parametrize(
    ("member", "inside", "expected"),
    [
        (".wh.models", "models", OPAQUE),
        ("./.wh.models", "models", OPAQUE),
        ("/.wh.models", "models", OPAQUE),
        (OPAQUE, "models", OPAQUE),
        ("models", "models", OPAQUE),  # a file or a link in the place of the folder
        ("models/.wh..wh..opq", "models", OPAQUE),
        (".wh.srv", "srv/models", OPAQUE),
        ("srv/.wh.models", "srv/models", OPAQUE),
        ("srv/.wh..wh..opq", "srv/models", OPAQUE),
        ("srv", "srv/models", OPAQUE),
        (".wh.model", "models", None),
        (".wh.models2", "models", None),
        ("etc/.wh..wh..opq", "models", None),
        ("etc/.wh.models", "models", None),
        ("mode", "models", None),
        ("./", "models", None),
    ],
)
def test_what_takes_away_the_folder_of_an_image_empties_it(member, inside, expected) -> None:
    entry = SOURCE.packed({}, inside=inside)
    found = named(entry, contents_of(entry, kind="image"), lambda path: True)(member)
    assert (expected and (expected, False, expected)) == found
    assert None is named(entry, contents_of(entry, kind="oras"), lambda path: True)(".wh.models")


def test_a_link_in_an_image_removes_what_had_its_name() -> None:
    entry = SOURCE.packed({}, inside="models")
    tell = named(entry, contents_of(entry, kind="image"), lambda path: True)
    assert (("a/b", True, "a/.wh.b"), ("c", True, ".wh.c")) == (tell("models/a/b"), tell("models/c"))


def test_layers_of_an_image_replace_and_remove_what_is_below() -> None:
    one, two, three = (SOURCE.packed({str(n): b""}) for n in range(3))
    below = {"a": 1, "b": 1, "d/x": 1, "d/y": 1, "e/f/z": 1, "keep": 1}
    above = {"a": 2, ".wh.b": 2, "d/.wh.x": 2, ".wh.e": 2, "new": 2}
    opaque = {"d/.wh..wh..opq": 3, "d/only": 3}
    found = merged(contents_of(kind="image"), [(one, below), (two, above), (three, opaque)])
    assert {"a": 2, "d/only": 3, "keep": 1, "new": 2} == {path: value for path, (_, value) in found.items()}
    assert two == found["a"][0]


def test_in_an_image_a_file_becomes_a_folder_and_a_folder_a_file() -> None:
    one, two = (SOURCE.packed({str(n): b""}) for n in range(2))
    below = {"a": 1, "b/c": 1, "b/d/e": 1, "b2": 1, "f": 1, "g": 1, "h/i": 1}
    above = {"a/x/y": 2, "b": 2, "f/.wh.old": 2, "g/.wh..wh..opq": 2}
    found = merged(contents_of(kind="image"), [(one, below), (two, above)])
    assert {"a/x/y": 2, "b": 2, "b2": 1, "h/i": 1} == {path: value for path, (_, value) in found.items()}
    assert {} == merged(contents_of(kind="image"), [(one, below), (two, {OPAQUE: 2})])


def test_many_whiteouts_over_many_files_take_no_time() -> None:
    one, two = (SOURCE.packed({str(n): b""}) for n in range(2))
    count = 30_000  # each with each would be a minute
    below, above = {f"d{n}/x": 1 for n in range(count)}, {f".wh.d{n}": 2 for n in range(count)}
    began = time.process_time()
    assert {} == merged(contents_of(kind="image"), [(one, below), (two, above)])
    assert time.process_time() - began < 5


def test_other_layers_have_nothing_in_common() -> None:
    one, two = SOURCE.packed({"1": b""}), SOURCE.packed({"2": b""})
    assert {"a", ".wh.b"} == merged(contents_of(kind="kitops"), [(one, {"a": 1}), (two, {".wh.b": 1})]).keys()
    with pytest.raises(tk.InvalidNameError, match="two layers have the file 'a'"):
        merged(contents_of(kind="kitops"), [(one, {"a": 1}), (two, {"a": 1})])


def test_a_layer_is_remembered_by_what_becomes_of_it() -> None:
    entries = [SOURCE.packed({}), SOURCE.packed({}, path="a"), SOURCE.packed({}, inside="a")]
    assert 3 == len({key_of(entry) for entry in entries})
