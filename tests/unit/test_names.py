"""Names of models, and references to them: what Ollama's own code answers, and where this library goes further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transferkit.errors import InvalidNameError
from transferkit.names import DEFAULT_MASK, Name, Reference, is_ollama_host

VECTORS = Path(__file__).parents[1] / "vectors"
NAMES = json.loads((VECTORS / "names.json").read_text())
REFERENCES = json.loads((VECTORS / "references.json").read_text())
A, ZERO = 64 * "a", 64 * "0"
# tests/vectors/README.md: where this library differs on purpose.
WIDER = {"[::1]:5000/n/m"}
DIGESTS_REFUSED = {
    f"h/n/m:t@sha256:{ZERO}": f'invalid digest: "sha256:{ZERO}"',
    f"m@sha256:{64 * 'A'}": f'invalid digest: "sha256:{64 * "A"}"',
    f"m@sha256-{A}": f'invalid digest: "sha256-{A}"',
}
SHA512 = f"m@sha512:{128 * 'a'}"


@pytest.mark.parametrize("row", [row for row in NAMES if row["input"] not in WIDER], ids=lambda row: row["input"][:40])
def test_names_as_the_original_reads_them(row: dict[str, Any]) -> None:
    if not row["valid"]:
        with pytest.raises(InvalidNameError, match=r"^invalid or missing name: "):
            Name.parse(row["input"])
        return
    name = Name.parse(row["input"])
    assert (name.host, name.namespace, name.model, name.tag) == (
        row["host"],
        row["namespace"],
        row["model"],
        row["tag"],
    )
    assert str(name) == row["string"]
    assert name.is_complete is row["fully_qualified"]
    assert str(name.merge(Name.parse("registry.ollama.ai/library/_:latest"))) == row["merged"]


@pytest.mark.parametrize("row", REFERENCES, ids=lambda row: row["input"][:40])
def test_references_as_the_original_reads_them(row: dict[str, Any]) -> None:
    text = row["input"]
    expected = DIGESTS_REFUSED.get(text) or row.get("error")
    if text == SHA512:
        assert Reference.parse(text).digest == SHA512[2:]
    elif expected:
        with pytest.raises(InvalidNameError) as caught:
            Reference.parse(text)
        assert str(caught.value) == expected
    else:
        reference = Reference.parse(text)
        assert (reference.scheme, str(reference.name), reference.digest or "") == (
            row["scheme"],
            row["name"],
            row["digest"],
        )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ghcr.io/org/team/model:v1", ("ghcr.io", "org/team", "model", "v1")),
        ("localhost/a/b/c/d", ("localhost", "a/b/c", "d", "")),
        ("[::1]:5000/n/m:t", ("[::1]:5000", "n", "m", "t")),
        ("[2001:db8::1]/n/m", ("[2001:db8::1]", "n", "m", "")),
        ("ghcr.io/o.rg/my.model:1.0+x".replace("+x", ""), ("ghcr.io", "o.rg", "my.model", "1.0")),
        (f"ghcr.io/org/model:{128 * 't'}", ("ghcr.io", "org", "model", 128 * "t")),
        ("localhost:5000/alpine:3", ("localhost:5000", None, "alpine", "3")),
        ("localhost/alpine", ("localhost", None, "alpine", "")),
    ],
)
def test_names_of_other_registries(text: str, fields: tuple[str, ...]) -> None:
    name = Name.parse(text)
    assert (name.host, name.namespace, name.model, name.tag) == fields
    assert str(name) == text
    assert Name.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "a/b/c/d",
        "ghcr.io/org//m",
        "ghcr.io/../m/x",
        "[::1/n/m",
        "[::g]/n/m",
        "registry.ollama.ai/o.rg/m",
        f"registry.ollama.ai/n/m:{81 * 't'}",
        f"ghcr.io/org/model:{129 * 't'}",
        594 * "a",
        "a\x00b",
        None,
        7,
        b"m",
    ],
)
def test_what_is_no_name(text: Any) -> None:
    with pytest.raises(InvalidNameError, match="invalid or missing name"):
        Name.parse(text)


def test_where_there_is_no_namespace_the_mask_gives_none() -> None:
    name = Name.parse("localhost:5000/alpine").merge(DEFAULT_MASK)
    assert (name.repository, str(name)) == ("alpine", "localhost:5000/alpine:latest")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("oci://user:s3cret@h:5000/n/m:t", '"h:5000/n/m:t"'),
        ("https://user:s3cret@h/n/m", '"h/n/m"'),
        ("user:s3cret@h/n/m", '"h/n/m"'),
        ("s3cret@h/n/m", '"h/n/m"'),
        ("user:s3cr@t/s3cret@h/n/m", '"h/n/m"'),
        (f"user:s3cret@h/n/m@sha256:{A}", f'"h/n/m@sha256:{A}"'),
    ],
)
def test_a_user_name_is_refused_and_a_password_never_shown(text: str, shown: str) -> None:
    with pytest.raises(InvalidNameError, match="has no user name or password") as caught:
        Reference.parse(text)
    assert "s3cret" not in str(caught.value)
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["user:s3cret@h", f"user:s3cret@h@sha256:{A}", "user:s3cret@h://n/m", "ftp://user:s3cret@h/n", "user:s3cret@@"],
)
def test_no_error_shows_a_password(text: str) -> None:
    for parse in (Reference.parse, Name.parse, Name.from_path):
        with pytest.raises(InvalidNameError) as caught:
            parse(text)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("digest", [f"sha256:{A}", f"sha512:{A}{A}"])
def test_what_has_a_digest_and_no_tag_is_pinned(digest: str) -> None:
    pinned = {text: Reference.parse(f"h/n/m{text}").is_pinned for text in ("", ":t", f"@{digest}", f":t@{digest}")}
    assert {"": False, ":t": False, f"@{digest}": True, f":t@{digest}": False} == pinned
    assert Reference.parse(f"m@{digest}", Name.parse("h/n/_:masked")).is_pinned


@pytest.mark.parametrize("prefix", ["oci://", "docker://"])
def test_what_other_tools_write_before_a_name_is_dropped(prefix: str) -> None:
    assert Reference.parse(f"{prefix}ghcr.io/org/m:v1") == Reference.parse("ghcr.io/org/m:v1")


def test_whether_a_scheme_was_given_is_known() -> None:
    assert [Reference.parse(text).has_scheme for text in ("h/n/m", "https://h/n/m", "://h/n/m")] == [False, True, False]
    assert str(Reference.parse(f"http://h/n/m:t@sha256:{A}")) == f"http://h/n/m:t@sha256:{A}"


def test_names_are_compared_without_case() -> None:
    assert Name.parse("H/N/M:T") == Name.parse("h/n/m:t")
    assert len({Name.parse("Smol"), Name.parse("smol")}) == 1
    assert Name.parse("smol") != "smol"


@pytest.mark.parametrize("text", ["h/n/m:t", "ghcr.io/a/b/c:t", "localhost:5000/m:t"])
def test_a_path_in_a_store_leads_back_to_its_name(text: str) -> None:
    name = Name.parse(text)
    assert name.path == text.replace(":t", "/t")
    assert str(Name.from_path(name.path)) == text


@pytest.mark.parametrize("path", ["", "h", "h/m", "h/../m/t", "h/n/m/", "/n/m/t", "h/n/m/t:u", "h/n/m/.t"])
def test_what_no_manifest_is_stored_under(path: str) -> None:
    with pytest.raises(InvalidNameError):
        Name.from_path(path)


@pytest.mark.parametrize(
    ("host", "is_theirs"),
    [
        ("registry.ollama.ai", True),
        ("OLLAMA.com:443", True),
        ("ollama.com.", True),
        ("notollama.com", False),
        ("ollama.com.evil.example", False),
        ("", False),
    ],
)
def test_hosts_of_ollama(host: str, is_theirs: bool) -> None:
    assert is_ollama_host(host) is is_theirs


parts = st.text("abZ09_.-:/@ é\n[]", max_size=40)


@given(st.one_of(parts, st.text(max_size=50), st.none(), st.binary(max_size=8)))
@example("https://@")
@example("docker://oci://m")
def test_nothing_but_invalid_name_is_ever_raised(text: Any) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidNameError:
        return
    again = Reference.parse(str(reference))
    assert (again.name, again.digest, again.scheme) == (reference.name, reference.digest, reference.scheme)


@given(parts, parts)
def test_merging_keeps_what_is_given(one: str, other: str) -> None:
    try:
        name, mask = Name.parse(one), Name.parse(other)
    except InvalidNameError:
        return
    merged = name.merge(mask)
    assert merged.merge(mask) == merged
    for part in ("host", "model", "tag"):
        assert getattr(merged, part) == (getattr(name, part) or getattr(mask, part))
