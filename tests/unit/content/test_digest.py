"""The one gate between a text and a path or a URL."""

from __future__ import annotations

import copy
import enum
import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transferkit.content.digest import Digest, digest_to_path
from transferkit.errors import InvalidDigestError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "digests.json").read_text())

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
HELLO_512 = (
    "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
    "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"
)
A = 64 * "a"

# Where this library differs on purpose: tests/vectors/README.md.
STRICTER = {f"sha256:{64 * 'A'}", f"sha256-{A}"}
WIDER = {f"sha512:{128 * 'a'}"}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: repr(vector["input"][:20]))
def test_the_known_answers_hold_but_for_three_deviations(vector: dict[str, Any]) -> None:
    text = vector["input"]
    if (vector["valid"] and text not in STRICTER) or text in WIDER:
        assert str(Digest(text)) == vector.get("string", text)
    else:
        with pytest.raises(InvalidDigestError):
            Digest(text)


def test_the_deviations_are_all_among_the_known_answers() -> None:
    assert {vector["input"] for vector in VECTORS} > STRICTER | WIDER
    assert all(vector["valid"] for vector in VECTORS if vector["input"] in STRICTER)
    assert not any(vector["valid"] for vector in VECTORS if vector["input"] in WIDER)


@pytest.mark.parametrize(
    "text",
    [
        "sha256:../../../etc/passwd",
        "sha256:" + "../" * 21 + "a",
        f"sha256:{A[:-1]}\x00",
        f"sha256:{A}\x00",
        f"sha256:{A}\n",
        f"sha256:{A}\r\n",
        f"\nsha256:{A}",
        f"sha256:{A[:-1]}\n",
        "sha256:" + 64 * "\u0661",
        "sha256:" + 64 * "\uff41",
        f"sha256:{A}:",
        f"sha256:{A}?x",
        f"sha256::{A[1:]}",
        f"sha1:{40 * 'a'}",
        f"sha384:{96 * 'a'}",
        f"blake3:{A}",
        f"sha256:{128 * 'a'}",
        f"sha512:{A}",
        f"sha512:{128 * 'A'}",
        f"sha512:{127 * 'a'}",
        f"sha512:{129 * 'a'}",
        f"Sha256:{A}",
        f"sha256+b64:{A}",
        "sha256",
        ":",
        A,
    ],
)
def test_a_text_that_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigestError, match="is not a digest"):
        Digest(text)


@pytest.mark.parametrize("value", [None, 5, b"sha256:" + 64 * b"a", ["sha256:" + A], object()])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidDigestError, match=r"a digest is a text such as sha256:<64 hex digits>, not \w+$"):
        Digest(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latest", "'latest' is not a digest: it should start with sha256: or sha512:"),
        ("md5:aa", "'md5:aa' is not a digest: it should start with sha256: or sha512:"),
        ("sha256:aa", "'sha256:aa' is not a digest: sha256 takes 64 hex digits, this has 2 characters"),
        ("sha512:", "'sha512:' is not a digest: sha512 takes 128 hex digits, this has 0 characters"),
        (
            f"sha256:{64 * 'G'}",
            f"'sha256:{64 * 'G'}' is not a digest: only the lower-case hex digits 0-9 a-f may follow sha256:",
        ),
        (81 * "x", f"'{80 * 'x'}'... is not a digest: it should start with sha256: or sha512:"),
        ("\x1b[2J", r"'\x1b[2J' is not a digest: it should start with sha256: or sha512:"),
    ],
)
def test_the_refusal_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest(text)
    assert str(caught.value) == message


NEAR_MISSES = st.builds(
    lambda before, algorithm, separator, hexdigits, after: before + algorithm + separator + hexdigits + after,
    st.sampled_from(["", "", "", " ", "\n"]),
    st.sampled_from(["sha256", "sha512", "sha256", "sha512", "SHA256", "sha1", "sha256:sha256", ""]),
    st.sampled_from([":", ":", ":", "-", "::", ""]),
    st.one_of(
        *(
            st.text(alphabet, min_size=size + least, max_size=size + most)
            for alphabet in ("0123456789abcdef", "0123456789abcdefABCDEFg./\n\u0661")
            for size in (64, 128)
            for least, most in ((0, 0), (-1, 1))
        )
    ),
    st.sampled_from(["", "", "", "\n", "\x00", " "]),
)


@given(st.one_of(NEAR_MISSES, st.text()))
@example(HELLO)
@example(HELLO_512)
@settings(deadline=None, max_examples=150)
def test_the_grammar_is_the_one_that_the_specification_has(text: str) -> None:
    allowed = re.fullmatch("(sha256|sha512):([0-9abcdef]+)", text)
    if allowed is not None and (allowed[1], len(allowed[2])) in (("sha256", 64), ("sha512", 128)):
        assert Digest(text) == text
    else:
        with pytest.raises(InvalidDigestError):
            Digest(text)


def test_a_digest_has_parts() -> None:
    digest = Digest(HELLO)
    assert digest.algorithm == "sha256"
    assert digest.hex == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert digest.file_name == "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert digest.short == "sha256:2cf24dba5fb0"


def test_a_long_digest_has_parts() -> None:
    digest = Digest(HELLO_512)
    assert digest.algorithm == "sha512"
    assert len(digest.hex) == 128
    assert digest.file_name.startswith("sha512-9b71d224")
    assert digest.short == "sha512:9b71d224bd62"


def test_a_digest_is_a_text() -> None:
    digest = Digest(HELLO)
    assert digest == HELLO
    assert hash(digest) == hash(HELLO)
    assert {digest: 1}[HELLO] == 1  # type: ignore[index]  # that it works is the point
    assert f"{digest}" == HELLO
    assert repr(digest) == f"Digest({HELLO!r})"


def test_a_digest_is_not_checked_twice() -> None:
    digest = Digest(HELLO)
    assert Digest(digest) is digest


def test_a_text_that_prints_as_something_else_is_taken_by_its_content() -> None:
    class Kind(str, enum.Enum):
        HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

    assert str.__str__(Digest(Kind.HELLO)) == HELLO
    assert Digest(Kind.HELLO).file_name == "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_a_text_that_lies_when_it_is_printed_gets_nowhere() -> None:
    class Liar(str):
        def __str__(self) -> str:
            return "../../etc/passwd"

    assert str.__str__(Digest(Liar(HELLO))) == HELLO


@pytest.mark.parametrize("text", [HELLO, HELLO_512])
def test_a_digest_survives_pickle_and_copy(text: str) -> None:
    digest = Digest(text)
    for again in (*(pickle.loads(pickle.dumps(digest, p)) for p in range(6)), copy.copy(digest), copy.deepcopy(digest)):
        assert type(again) is Digest
        assert again == text


@pytest.mark.parametrize("data", [b"hello", bytearray(b"hello"), memoryview(b"hello")])
def test_the_digest_of_data_is_the_known_one(data: bytes | bytearray | memoryview) -> None:
    assert Digest.of(data) == HELLO
    assert Digest.of(data, "sha512") == HELLO_512


def test_the_digest_of_nothing_is_the_known_one() -> None:
    assert Digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_other_algorithms_make_no_digest() -> None:
    with pytest.raises(InvalidDigestError):
        Digest.of(b"hello", "md5")


@pytest.mark.parametrize(("text", "size"), [(HELLO, 32), (HELLO_512, 64)])
def test_a_hasher_is_of_the_algorithm_of_its_digest(text: str, size: int) -> None:
    digest = Digest(text)
    hasher = digest.hasher()
    hasher.update(b"hel")
    assert not digest.matches(hasher)
    hasher.update(b"lo")
    assert digest.matches(hasher)
    assert digest.matches(hasher.copy())
    assert len(hasher.hexdigest()) == 2 * size


def test_a_hasher_of_another_algorithm_never_matches() -> None:
    assert not Digest(HELLO).matches(hashlib.sha512(b"hello"))


@pytest.mark.parametrize("text", [HELLO, HELLO_512])
def test_a_file_name_leads_back_to_its_digest(text: str) -> None:
    assert Digest.from_file_name(text.replace(":", "-")) == text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sha256",
        HELLO,
        f"sha256-{A}.json",
        f"sha256-{A[1:]}",
        f"sha256-{64 * 'A'}",
        f"sha1-{40 * 'a'}",
        f"sha256-{A}\n",
        f"sha256--{A[1:]}",
        "sha256-../../../etc/passwd",
        f"./sha256-{A}",
    ],
)
def test_a_file_name_of_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidDigestError):
        Digest.from_file_name(name)


def test_the_refusal_of_a_file_name_says_how_one_looks() -> None:
    with pytest.raises(
        InvalidDigestError, match=r"^'model\.bin' is not the file name of a blob; it should look like sha256-<hex>$"
    ):
        Digest.from_file_name("model.bin")


def test_the_file_name_of_a_blob() -> None:
    assert digest_to_path(f"sha512:{128 * 'b'}") == f"sha512-{128 * 'b'}"
    with pytest.raises(InvalidDigestError):
        digest_to_path("../etc/passwd")
