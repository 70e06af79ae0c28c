"""The grammars of repositories, tags and references."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.content.digest import Digest
from transferkit.errors import InvalidDigestError, InvalidNameError
from transferkit.grammar import OLLAMA, STRICT, WIDE, check_reference, check_repository

VECTORS = Path(__file__).parents[1] / "vectors" / "names.json"
A = Digest("sha256:" + 64 * "a")


@pytest.mark.parametrize(
    "name", ["a", "library/model", "ghcr.io/org/team/model", "a-b/c_d/e.f", "a__b", "a--b", "Mixed/Case", 255 * "a"]
)
def test_a_repository_name_is_taken(name: str) -> None:
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        ".a",
        "a.",
        "-a",
        "a-",
        "_a",
        "a b",
        "a\n",
        "a\x00",
        "a?b",
        "a#b",
        "a%2fb",
        "a:b",
        "a@b",
        "a\\b",
        "\u00fc",
        "\u0661",
        256 * "a",
        None,
        5,
        b"a",
    ],
)
def test_what_is_no_repository_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"is not a repository name; it should look like library/model$"):
        check_repository(name)


def test_a_repository_name_that_never_ends_is_refused_in_no_time_and_shown_in_part() -> None:
    with pytest.raises(InvalidNameError) as caught:
        check_repository("a-" * 100_000)
    assert len(str(caught.value)) < 300


@given(st.text(st.sampled_from("aZ0._-/:@ \n\u00fc"), max_size=12))
@settings(deadline=None, max_examples=150)
def test_repository_names_are_parts_that_begin_and_end_with_a_letter_or_digit(name: str) -> None:
    good = all(re.fullmatch("[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?", part) for part in name.split("/"))
    if good:
        assert check_repository(name) == name
    else:
        with pytest.raises(InvalidNameError):
            check_repository(name)


@pytest.mark.parametrize("reference", ["latest", "v1.2", "_", "A-b_c.d", "1", 128 * "a"])
def test_a_tag_is_a_reference(reference: str) -> None:
    assert check_reference(reference) == reference


def test_a_digest_is_a_reference_and_comes_back_as_one() -> None:
    result = check_reference("sha256:" + 64 * "a")
    assert type(result) is Digest
    assert result == A


@pytest.mark.parametrize(
    "reference", ["", ".a", "-a", "..", "a/b", "a b", "a\n", "a%", "a?b", "\u00fc", 129 * "a", None, 5, b"latest"]
)
def test_what_is_neither_tag_nor_digest_is_refused(reference: Any) -> None:
    with pytest.raises(InvalidNameError, match="is neither a tag nor a digest"):
        check_reference(reference)


@pytest.mark.parametrize("reference", ["sha256:aa", "sha256:" + 64 * "A", "latest:latest", ":", "md5:" + 32 * "a"])
def test_a_reference_with_a_colon_has_to_be_a_digest(reference: str) -> None:
    with pytest.raises(InvalidDigestError):
        check_reference(reference)


@pytest.mark.parametrize("name", ["a", "library/model", "ghcr.io/org/team/model", "a-b/c_d/e.f", "a__b", "a--b"])
def test_a_strict_name_is_one_of_the_specification(name: str) -> None:
    assert check_repository(name, STRICT) == name


@pytest.mark.parametrize("name", ["Mixed/Case", "a..b", "a___b", "a._b", "a.", "", "a\n", 256 * "a", None])
def test_what_the_specification_does_not_know_is_refused_by_who_is_strict(name: Any) -> None:
    with pytest.raises(InvalidNameError, match="is not a repository name"):
        check_repository(name, STRICT)


@pytest.mark.parametrize(
    "name",
    [
        "library/_",
        "_n/_m",
        "library/m.",
        "library/0-",
        "library/m..x",
        "n-s/m_1.2",
        "N-/M-",
        "__/__",
        f"{80 * 'n'}/{80 * 'm'}",
        "library/smollm",
    ],
)
def test_a_name_of_ollamas_is_taken_by_its_grammar(name: str) -> None:
    assert check_repository(name, OLLAMA) == name


@pytest.mark.parametrize("name", ["library/_", "_n/_m", "library/m.", "library/0-", "__/__"])
@pytest.mark.parametrize("grammar", [WIDE, STRICT], ids=["wide", "strict"])
def test_elsewhere_it_is_none(name: str, grammar: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"is not a repository name; it"):
        check_repository(name, grammar)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "m",
        "/m",
        "n/",
        "n//m",
        "a/b/c",
        "n.s/m",
        "-n/m",
        "n/-m",
        "n/.m",
        "n/..",
        "../m",
        "./m",
        "n/m\n",
        "n/m t",
        "n/m%2f",
        "n/m:t",
        "n/m@x",
        "n/\u00e9",
        f"{81 * 'n'}/m",
        f"n/{81 * 'm'}",
        None,
        b"n/m",
    ],
)
def test_what_is_no_name_of_ollamas_is_refused_by_its_grammar(name: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"is not a repository name of Ollama's; it should look like library/m"):
        check_repository(name, OLLAMA)


@pytest.mark.parametrize(
    "row",
    [row for row in json.loads(VECTORS.read_text()) if row["valid"] and row["merged"].count("/") == 2],
    ids=lambda row: row["input"][:40],
)
def test_the_names_that_ollamas_own_code_takes_are_taken(row: dict[str, Any]) -> None:
    repository, _, tag = row["merged"].split("/", 1)[1].rpartition(":")
    assert check_repository(repository, OLLAMA) == repository
    assert check_reference(tag, OLLAMA) == tag


@pytest.mark.parametrize("tag", ["latest", "_", "0-", "q4_K.", 80 * "t"])
def test_a_tag_of_ollamas_is_taken_by_its_grammar(tag: str) -> None:
    assert check_reference(tag, OLLAMA) == tag


@pytest.mark.parametrize("tag", [81 * "t", "-t", ".t", "t+1", ""])
def test_a_tag_that_is_none_of_ollamas_is_refused_by_its_grammar(tag: str) -> None:
    with pytest.raises(InvalidNameError, match=r"is neither a tag of Ollama's nor a digest"):
        check_reference(tag, OLLAMA)


def test_a_digest_is_a_reference_in_every_grammar() -> None:
    assert check_reference("sha256:" + 64 * "a", OLLAMA) == A
