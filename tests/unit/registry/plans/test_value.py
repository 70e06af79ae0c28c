"""A plan as a value: its way through JSON and pickle, and what is refused of one that somebody has edited."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import MAX_SIZE
from transferkit.registry.plans import checks

A, B = ("sha256:" + 64 * digit for digit in "ab")
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
BLOBS = st.dictionaries(st.builds("sha256:{}".format, HEX), st.integers(0, MAX_SIZE), max_size=20)


def download(*blobs: tk.Blob, **keywords: Any) -> tk.TransferPlan:
    return tk.plan_download(blobs, base_url="https://registry.example.com", repository="library/model", **keywords)


@pytest.fixture
def pull(one_manifest: bytes) -> tk.TransferPlan:
    return tk.TransferPlan(
        kind="pull",
        source=f"https://registry.example.com/library/model:v1@sha256:{hashlib.sha256(one_manifest).hexdigest()}",
        blobs=(tk.Descriptor(B, 7),),
        documents=(one_manifest,),
    )


# -- round trips


@given(BLOBS)
def test_a_plan_comes_back_from_json_and_from_a_pickle(blobs: dict[str, int]) -> None:
    plan = download(*(tk.Blob(digest, size) for digest, size in blobs.items()))

    for each in (plan, *plan.split(3, ranges=True), plan.last()):
        assert each == tk.TransferPlan.from_json(each.to_json())
        assert each.to_json() == pickle.loads(pickle.dumps(each)).to_json()
        assert each.digest == copy.deepcopy(each).digest


def test_the_json_of_a_plan_is_known(pull: tk.TransferPlan) -> None:
    raw, digest = pull.documents[0], pull.source.partition("@")[2]

    expected = {
        "schema": "transferkit-plan/1",
        "kind": "pull",
        "step": "whole",
        "source": f"https://registry.example.com/library/model:v1@{digest}",
        "blobs": [[B, 7]],
        "documents": [base64.b64encode(raw).decode()],
    }
    assert expected == json.loads(pull.to_json())
    assert f"sha256:{hashlib.sha256(pull.to_json().encode()).hexdigest()}" == pull.digest
    assert pull == tk.TransferPlan.from_json(json.dumps(expected, indent=3).encode("utf-16"))


def test_the_order_in_which_blobs_are_named_makes_no_other_plan() -> None:
    one, two, three = tk.Blob(A, 5), tk.Blob(B, 5), tk.Descriptor("sha256:" + 64 * "c", 9, media_type="text/plain")

    assert download(one, two, three).to_json() == download(three, two, one, two).to_json()
    assert [9, 5, 5] == [blob.size for blob in download(one, two, three).blobs]


def test_who_reads_a_plan_imports_nothing_that_it_names() -> None:
    plan = download(tk.Blob(A, 5), credentials="antigravity:nothing")

    assert "antigravity:nothing" == tk.TransferPlan.from_json(plan.to_json()).credentials
    assert "antigravity:nothing" == plan.last().credentials == plan.split(1)[0].credentials
    assert "antigravity" not in sys.modules


def test_ranges_come_back() -> None:
    (piece, *_) = download(tk.Blob(A, 2**30)).split(4, ranges=True)

    assert repr(piece).endswith("piece: 0 blobs, 4 ranges, 256.0 MiB>")
    assert piece.ranges == tk.TransferPlan.from_json(piece.to_json()).ranges != ()


def test_a_plan_says_what_it_is(pull: tk.TransferPlan) -> None:
    shown = f"<TransferPlan pull {pull.source}, whole: 1 blob, 7 B>"

    assert shown == repr(pull)
    assert 7 == pull.size


def test_a_base_url_is_written_in_one_way() -> None:
    plan = tk.plan_download([], base_url="https://registry.example.com/v2/", repository="library/model")

    assert download() == plan
    with pytest.raises(tk.InvalidNameError):
        tk.plan_download([], base_url="https://user:secret@registry.example.com", repository="library/model")
    with pytest.raises(tk.InvalidNameError):
        tk.plan_download([], base_url="https://registry.example.com", repository="../model")


# -- what is refused

Edit = Callable[[dict[str, Any]], object]
WRONG: list[tuple[str, Edit, str]] = [
    ("another version", lambda d: d.update(schema="transferkit-plan/2"), "this says 'transferkit-plan/2'"),
    ("no schema", lambda d: d.pop("schema"), "this says nothing of the kind"),
    ("another schema", lambda d: d.update(schema=1), "this says nothing of the kind"),
    ("an unknown field", lambda d: d.update(hooks=["rm"]), "the plan has 'hooks', which nobody here knows"),
    ("no kind", lambda d: d.pop("kind"), "the plan has no kind"),
    ("no blobs", lambda d: d.pop("blobs"), "the plan has no blobs"),
    ("an unknown kind", lambda d: d.update(kind="delete"), "kind is one of pull, copy, push, download, not 'delete'"),
    ("a kind that is a list", lambda d: d.update(kind=["pull"]), "kind is not a text"),
    ("an unknown step", lambda d: d.update(step="all"), "step is one of whole, piece, last, not 'all'"),
    ("a wrong digest", lambda d: d.update(blobs=[["sha256:beef", 7]]), "a blob of the plan is none: 'sha256:beef'"),
    ("a digest with dots", lambda d: d.update(blobs=[["../../etc/passwd", 7]]), "a blob of the plan is none"),
    ("a digest that is a number", lambda d: d.update(blobs=[[7, 7]]), "a blob of the plan is none"),
    ("a negative size", lambda d: d.update(blobs=[[B, -1]]), "it should be between 0 and 2.63-1 bytes"),
    ("a huge size", lambda d: d.update(blobs=[[B, 2**63]]), "it should be between 0 and 2.63-1 bytes"),
    ("a size that is a text", lambda d: d.update(blobs=[[B, "7"]]), "a number of bytes .int., not str"),
    ("a size that is true", lambda d: d.update(blobs=[[B, True]]), "a number of bytes .int., not bool"),
    ("half a size", lambda d: d.update(blobs=[[B, 7.5]]), "a number of bytes .int., not float"),
    ("a blob without a size", lambda d: d.update(blobs=[[B]]), "not a digest and a size"),
    ("a blob with more", lambda d: d.update(blobs=[[B, 7, "/etc"]]), "not a digest and a size"),
    ("a blob that is a number", lambda d: d.update(blobs=[7]), "not a digest and a size"),
    ("a blob twice", lambda d: d.update(blobs=[[B, 7], [B, 7]]), "the plan has a blob twice"),
    ("blobs that are a mapping", lambda d: d.update(blobs={B: 7}), "blobs are not a list"),
    ("a source that is a path", lambda d: d.update(source="/etc/passwd"), "source '/etc/passwd' is a path"),
    ("a source at home", lambda d: d.update(source="~/models"), "is a path; where files are is said where it runs"),
    ("a source on a drive", lambda d: d.update(source="C:\\models"), "is a path"),
    ("a source with dots", lambda d: d.update(source=f"https://a.example/../x:v1@{A}"), "names no place"),
    ("another scheme", lambda d: d.update(source=f"file:///etc/passwd@{A}"), "unsupported scheme"),
    ("a source with a user", lambda d: d.update(source=f"https://u:p@a.example/x/y:v1@{A}"), "no user name or pass"),
    ("a source without a digest", lambda d: d.update(source="https://a.example/x/y:v1"), "has no digest"),
    ("a short source", lambda d: d.update(source=f"y@{A}"), "has all of its fields"),
    ("a digest alone", lambda d: d.update(source=f"@{A}"), "has all of its fields"),
    ("a target of a pull", lambda d: d.update(target="/tmp"), "a plan of kind pull has no target"),
    ("a repository of a pull", lambda d: d.update(repository="x/y"), "has no repository but those of its names"),
    ("a copy to nowhere", lambda d: d.update(kind="copy"), "names no place"),
    ("a copy to a path", lambda d: d.update(kind="copy", target="../x"), "target '../x' is a path"),
    ("a copy to dots", lambda d: d.update(kind="copy", target="https://a.example/x/..:v1"), "names no place"),
    ("a platform that is a path", lambda d: d.update(platform="../../x"), "platform '../../x' is none"),
    ("a platform of many lines", lambda d: d.update(platform="linux\n"), "is none"),
    ("credentials that are a command", lambda d: d.update(credentials="rm -rf /"), "named as package.module:callable"),
    ("credentials without a module", lambda d: d.update(credentials=":exit"), "named as package.module:callable"),
    ("credentials that are a list", lambda d: d.update(credentials=["a:b"]), "credentials is not a text"),
    ("patterns that are numbers", lambda d: d.update(only=[7]), "only are not patterns of up to 1024 characters"),
    ("an empty pattern", lambda d: d.update(exclude=[""]), "exclude are not patterns"),
    ("a long pattern", lambda d: d.update(only=["x" * 1025]), "only are not patterns"),
    ("many patterns", lambda d: d.update(only=["x"] * 1001), "has 1001 only; at most 1000 are taken"),
    ("one pattern", lambda d: d.update(only="x"), "only are not a list"),
    ("no documents", lambda d: d.pop("documents"), "has 0 documents"),
    ("documents of a piece", lambda d: d.update(step="piece"), "has 1 documents"),
    ("a document that is no base64", lambda d: d.update(documents=["%"]), "a document of the plan is not base64"),
    ("a document that is a number", lambda d: d.update(documents=[7]), "a document of the plan is not base64"),
    ("an empty document", lambda d: d.update(documents=[""]), "is empty or longer than 4194304 bytes"),
    ("ranges of all of it", lambda d: d.update(ranges=[[A, 10, 0, 4]]), "are for a piece of a pull or download"),
]


@pytest.mark.parametrize(("edit", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_plan_that_was_edited_is_refused(pull: tk.TransferPlan, edit: Edit, said: str) -> None:
    document = json.loads(pull.to_json())
    edit(document)

    with pytest.raises(tk.InvalidPlanError, match=said) as caught:
        tk.TransferPlan.from_json(json.dumps(document))
    assert isinstance(caught.value, ValueError)
    assert 1 == caught.value.exit_code
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([[A, 10, 0, 10]], "goes beyond"),
        ([[A, 10, -1, 5]], "is no range of bytes"),
        ([[A, 10, 5, 4]], "is no range of bytes"),
        ([[A, 10, 0, 2**63]], "is no range of bytes"),
        ([[A, 10, 0, 5], [A, 10, 5, 9]], "is not behind the one before it"),
        ([[A, 10, 0, 5], [A, 11, 6, 9]], "twice, in two ways"),
        ([[B, 7, 0, 5]], "twice, in two ways"),
        ([[A, 10]], "a range of the plan is not"),
        (["0-5"], "a range of the plan is not"),
        ([[A[:-1], 10, 0, 5]], "a range of the plan is none"),
        (7, "ranges are not a list"),
    ],
)
def test_ranges_that_were_edited_are_refused(ranges: object, said: str) -> None:
    document = {**json.loads(download(tk.Blob(B, 7)).split(1)[0].to_json()), "ranges": ranges}

    with pytest.raises(tk.InvalidPlanError, match=said):
        tk.TransferPlan.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        ("[]", "is not a JSON object but list"),
        ('{"kind": NaN}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"kind": "pull", "kind": "push"}', "the plan has a field twice"),
        ('{"schema": "transferkit-plan/1", "kind": "pull", "source": "\\ud800", "blobs": []}', "names no place"),
    ],
)
def test_what_is_no_plan_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(tk.InvalidPlanError, match=said):
        tk.TransferPlan.from_json(text)


def test_a_plan_is_a_text() -> None:
    with pytest.raises(TypeError, match="a plan is a text, not dict"):
        tk.TransferPlan.from_json({})  # type: ignore[arg-type]  # that is the test


def test_too_many_of_anything_is_refused(monkeypatch: pytest.MonkeyPatch, pull: tk.TransferPlan) -> None:
    plan = download(tk.Blob(A, 2**30), tk.Blob(B, 1))
    pieces = plan.split(4, ranges=True)
    text, ranged = plan.to_json(), next(piece for piece in pieces if len(piece.ranges) > 1)
    monkeypatch.setattr(checks, "MOST", 1)

    with pytest.raises(tk.InvalidPlanError, match="the plan has 2 blobs; at most 1 are taken: make several plans"):
        tk.TransferPlan.from_json(text)
    with pytest.raises(tk.InvalidPlanError, match="the plan has 2 blobs; at most 1"):
        replace(plan, step="piece")
    with pytest.raises(tk.InvalidPlanError, match="ranges; at most 1 are taken"):
        replace(ranged, step="piece")
    monkeypatch.setattr(checks, "MOST_BYTES", len(pull.documents[0]) - 1)
    with pytest.raises(tk.InvalidPlanError, match="or they have more than"):
        replace(pull, step="last", blobs=())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "the plan is of version 2, and this transferkit knows version 1 alone"),
        ({"version": True}, "is of version True"),
        ({"blobs": [tk.Descriptor(A, 1)]}, "are not a tuple of descriptors"),
        ({"blobs": ("sha256:x",)}, "are not a tuple of descriptors"),
        ({"ranges": [1]}, "are not a tuple of ranges"),
        ({"documents": ["text"]}, "are not a tuple of bytes"),
        ({"only": ("x",)}, "only is for a pull into a folder, and this is a download"),
        ({"only": ("x",) * 1001}, "has 1001 patterns in only; at most 1000 are taken"),
        ({"documents": (b"{}",)}, "a whole plan of kind download has 1 documents"),
        ({"source": "registry.example.com"}, "names no place"),
        ({"source": "https://user:secret@registry.example.com"}, "names no place"),
        ({"source": "https://registry.example.com/?a=b"}, "names no place"),
        ({"repository": "../x"}, "names no place"),
        ({"target": "https://a.example/x/y:v1"}, "a plan of kind download has no target"),
    ],
)
def test_no_plan_is_made_that_contradicts_itself(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(tk.InvalidPlanError, match=said) as caught:
        replace(download(tk.Blob(A, 1)), **changed)
    assert "secret" not in str(caught.value)


def test_a_pickle_is_checked_as_json_is() -> None:
    plan = download(tk.Blob(A, 123_456))

    with pytest.raises(tk.InvalidPlanError):
        pickle.loads(pickle.dumps(plan, protocol=0).replace(b"123456", b"-23456"))


def test_a_range_has_to_be_of_another_blob() -> None:
    piece = BlobRange(tk.Descriptor(A, 9), Chunk(0, 8))

    with pytest.raises(tk.InvalidPlanError, match="twice, in two ways"):
        replace(download(tk.Blob(A, 9)), step="piece", ranges=(piece,))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([A, B, "..", "/"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
FIELDS = ["schema", "kind", "step", "source", "repository", "target", "platform", "credentials", "only", "exclude"]


@given(st.dictionaries(st.sampled_from([*FIELDS, "blobs", "ranges", "documents", "more"]), JSON, max_size=4))
def test_whatever_stands_in_a_field_it_is_a_plan_or_an_error_of_ours(edits: dict[str, Any]) -> None:
    document = {**json.loads(download(tk.Blob(A, 5)).to_json()), **edits}
    said = ""
    try:
        plan = tk.TransferPlan.from_json(json.dumps(document))
        assert plan == tk.TransferPlan.from_json(plan.to_json())
    except tk.InvalidPlanError as error:
        said = str(error)
    assert said.isprintable()
