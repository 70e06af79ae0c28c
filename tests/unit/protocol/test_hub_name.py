"""Names on the Hugging Face hub, by the examples of its own documents ("HF URIs", ``validate_repo_id``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.errors import InvalidNameError
from transferkit.protocol.hub_name import HubName, is_hub_name

COMMIT = "bcf51b2ec6fb5bc8215f4b365a0e48532e26abb8"


@pytest.mark.parametrize(
    ("text", "kind", "repository", "revision"),
    [
        ("hf://my-org/my-model", "models", "my-org/my-model", "main"),
        ("hf://models/my-org/my-model", "models", "my-org/my-model", "main"),
        ("hf://gpt2", "models", "gpt2", "main"),
        ("hf://datasets/squad@v1", "datasets", "squad", "v1"),
        ("hf://datasets/my-org/my-dataset@refs/pr/3", "datasets", "my-org/my-dataset", "refs/pr/3"),
        ("hf://datasets/o/d@refs/convert/parquet-v2", "datasets", "o/d", "refs/convert/parquet-v2"),
        ("hf://spaces/o/s@refs%2Fpr%2F3", "spaces", "o/s", "refs/pr/3"),
        ("hf://Foo-BAR_foo.bar123/x@feature%2Fx", "models", "Foo-BAR_foo.bar123/x", "feature/x"),
        (f"hf://o/m@{COMMIT}", "models", "o/m", COMMIT),
        ("hf://o/m@v1.0+b%20x", "", "", ""),
        ("hf://o/" + 94 * "m", "models", "o/" + 94 * "m", "main"),
        ("hf://o/m@versi%C3%B3n", "models", "o/m", "versi\u00f3n"),
    ],
)
def test_what_a_name_says(text, kind, repository, revision):
    if not kind:
        with pytest.raises(InvalidNameError):
            HubName.parse(text)
        return
    name = HubName.parse(text)
    assert (kind, repository, revision) == (name.kind, name.repository, name.revision)
    assert name == HubName.parse(str(name))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf://",
        "hf:/o/m",
        "HF://o/m",
        "o/m",
        None,
        7,
        "hf://models",
        "hf://models/",
        "hf://datasets",
        "hf://model/o/m",
        "hf://dataset/o/m",
        "hf://space/o/m",
        "hf://o/m/config.json",
        "hf://datasets/o/d/train.csv",
        "hf:///m",
        "hf://o/",
        "hf://o//m",
        "hf://./m",
        "hf://../m",
        "hf://o/..",
        "hf://.o/m",
        "hf://o/-m",
        "hf://o/m.",
        "hf://other..repo..id",
        "hf://o/a--b",
        "hf://o/m.git",
        "hf://caf\u00e9/m",
        "hf://o/m\n",
        "hf://o/m x",
        "hf://o/m?x=1",
        "hf://o/m#x",
        "hf://user:password@host/m",
        "hf://o/" + 95 * "m",
        "hf://o/m@",
        "hf://o/m@main/config.json",
        "hf://o/m@refs/pr/3/train.json",
        "hf://o/m@refs/pr/x",
        "hf://o/m@..",
        "hf://o/m@a%2F..%2Fb",
        "hf://o/m@%2Fa",
        "hf://o/m@a%2F",
        "hf://o/m@.hidden",
        "hf://o/m@a%00b",
        "hf://o/m@a%0Ab",
        "hf://o/m@a b",
        "hf://o/m@a?b",
        "hf://o/m@a*",
        "hf://o/m@a~1",
        "hf://o/m@a^",
        "hf://o/m@a@{1}",
        "hf://o/m@%ff",
        "hf://o/m@\ud800",
        "hf://o/m@" + 256 * "a",
    ],
)
def test_what_is_none(text):
    with pytest.raises(InvalidNameError):
        HubName.parse(text)


def test_the_paths_of_the_api():
    name = HubName.parse("hf://org/model@feature%2Fx")
    assert "/api/models/org/model/revision/feature%2Fx" == name.info
    assert f"/api/models/org/model/tree/{COMMIT}?recursive=true&expand=false" == name.tree(COMMIT)
    assert f"/org/model/resolve/{COMMIT}/a/b%20%23%3F%25.txt" == name.file(COMMIT, "a/b #?%.txt")
    data = HubName.parse("hf://datasets/squad")
    assert "/api/datasets/squad/revision/main" == data.info
    assert f"/datasets/squad/resolve/{COMMIT}/%C3%A9" == data.file(COMMIT, "\u00e9")


def test_only_a_text_with_the_scheme_means_to_be_one():
    assert [True, False, False] == [is_hub_name(text) for text in ("hf://", "oci://a/b", None)]


@given(st.text(max_size=40))
def test_whatever_it_is_it_is_a_name_or_the_error(text):
    try:
        name = HubName.parse(f"hf://{text}")
    except InvalidNameError:
        return
    assert name.info.isascii()
    assert " " not in name.info
    assert "/.." not in name.info
    assert name == HubName.parse(str(name))
