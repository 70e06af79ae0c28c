"""Titles that may become names on a disk."""

from __future__ import annotations

import time

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.content.title import TITLE, check_paths, check_title, check_titles, collisions
from transferkit.errors import InvalidNameError

A, B = "sha256:" + 64 * "a", "sha256:" + 64 * "b"


def layer(title: str | None, digest: str = A) -> Descriptor:
    return Descriptor(digest, 1, annotations=() if title is None else ((TITLE, title),))


@pytest.mark.parametrize(
    "title", ["a", "a/b.json", "model-00001-of-00002.safetensors", "é/模型", ".gitattributes", "console.txt", "a b"]
)
def test_a_relative_path_is_taken(title: str) -> None:
    assert check_title(title) == title


@pytest.mark.parametrize(
    "title",
    [
        "",
        "/abs",
        "../x",
        "a/../x",
        "a//b",
        "./a",
        "a/",
        "C:\\x",
        "C:x",
        "\\\\host\\share",
        "//host/share",
        "a\\b",
        "CON",
        "con.txt",
        "a/NUL",
        "com1.json",
        "LPT\u00b9",
        "aux ",
        "a.",
        "a ",
        "a/b./c",
        "a\x00b",
        "a\nb",
        "a?b",
        "a*",
        'a"b',
        "a|b",
        "a:stream",
        256 * "a",
        400 * "ab/" + "c",
        100 * "模",
    ],
)
def test_what_leads_elsewhere_on_any_system_is_refused(title: str) -> None:
    with pytest.raises(InvalidNameError, match="refused as the name of a file"):
        check_title(title)


def test_layers_by_title() -> None:
    layers = (layer("a/b"), layer(None), layer("a/c", B))
    assert check_titles(layers) == {"a/b": layers[0], "a/c": layers[2]}


@pytest.mark.parametrize("titles", [("a", "A"), ("a", "a/b"), ("x/Y", "x/y"), ("a", "a")])
def test_titles_that_would_be_one_file(titles: tuple[str, str]) -> None:
    with pytest.raises(InvalidNameError):
        check_titles((layer(titles[0]), layer(titles[1], B)))


@pytest.mark.parametrize("title", ["a\udcff.json", "\ud800"])
def test_a_title_that_is_not_utf_8_is_refused(title: str) -> None:
    with pytest.raises(InvalidNameError, match="it is not UTF-8"):
        check_title(title)


def test_titles_that_differ_in_how_accents_are_written_would_be_one_file() -> None:
    with pytest.raises(InvalidNameError, match="would be one file"):
        check_titles((layer("caf\u00e9"), layer("cafe\u0301", B)))


def test_titles_that_differ_in_the_order_of_accents_would_be_one_file() -> None:
    """To macOS both are one name; to fold the case first makes an iota of U+0345, which holds the acute back."""
    with pytest.raises(InvalidNameError, match="would be one file"):
        check_titles((layer("\u03b1\u0345\u0301"), layer("\u03b1\u0301\u0345", B)))


def test_paths_are_checked_as_titles_are() -> None:
    one, other = layer(None), layer(None, B)
    assert check_paths([("a/b", one), ("a/c", other)]) == {"a/b": one, "a/c": other}
    with pytest.raises(InvalidNameError, match="is a file and a folder"):
        check_paths([("a", one), ("a/c", other)])


def test_all_collisions_are_told() -> None:
    titles = ["a", "A", "b/c", "B", "Z/y/x", "z/Y", "caf\u00e9", "cafe\u0301", "plain", "plain-2/x"]
    assert [
        "two files have the titles 'a' and 'A'; they would be one file",
        "two files have the titles 'caf\u00e9' and 'cafe\u0301'; they would be one file",
        "the title 'B' is a file and a folder",
        "the title 'z/Y' is a file and a folder",
    ] == list(collisions(titles))


def test_deep_paths_are_compared_in_linear_time() -> None:
    titles = [f"{number:06x}/" + "a/" * 508 + "a" for number in range(4000)]
    began = time.process_time()
    assert [] == list(collisions(titles))
    assert time.process_time() - began < 1


def test_a_folder_that_is_a_file_is_told_whatever_sorts_between_them() -> None:
    titles = ["a", "a!", "a-b", "a.b", "a/b/c", "a0", "é", "é/x", "b/c/d", "b/c"]
    assert ["a", "b/c", "é"] == sorted(problem.split("'")[1] for problem in collisions(titles))
