"""The hub's answers, as they were recorded (see ``tests/functional/hub.py``), and what else may come."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.errors import DeniedError, NotFoundError, ProtocolError, RegistryError, UnauthorizedError
from transferkit.protocol import hub
from transferkit.protocol.hub import HubFile, Listing, explained, read_commit
from transferkit.protocol.hub_name import HubName

NAME = HubName.parse("hf://org/model")
# GET /api/models/wzshiming/test/tree/bcf51b2e...?recursive=true&expand=false, 2026-09-25
RECORDED = b"""[{"oid":"57fddbfaa4d48e0e641336a82a6ed99d1ab2da9b","path":"regression","size":0,"type":"directory"},
{"lfs":{"oid":"cd44947308b4b22228767cab8addd523d1de22abd9b23a10808e5fc295202e4f","pointerSize":132,"size":1048576},
"oid":"c9176dbf0ba8556845af9072b3dd39d06764e8ba","path":"regression/ref-lfs.bin","size":1048576,"type":"file",
"xetHash":"f857c20483a87a6737b06f718d340429fc080f73c00f6d46b2030b58734a61e4"},
{"oid":"e5698f9a721147f2090edf7da4892e23da00d5be","path":"regression/ref-regular.txt","size":186,"type":"file"}]"""


def test_the_list_that_was_recorded():
    listing = Listing()
    listing.add(RECORDED)
    assert [
        HubFile(
            "regression/ref-lfs.bin",
            1048576,
            "c9176dbf0ba8556845af9072b3dd39d06764e8ba",
            "sha256:cd44947308b4b22228767cab8addd523d1de22abd9b23a10808e5fc295202e4f",
        ),
        HubFile("regression/ref-regular.txt", 186, "e5698f9a721147f2090edf7da4892e23da00d5be"),
    ] == listing.files


def test_the_size_of_a_file_in_lfs_is_that_of_its_content():
    listing = Listing()
    lfs = {"oid": 64 * "b", "size": 2263625445, "pointerSize": 135}
    listing.add(json.dumps([{"type": "file", "path": "a", "oid": 40 * "1", "size": 135, "lfs": lfs}]).encode())
    assert [2263625445] == [file.size for file in listing.files]


def test_the_hash_of_a_git_blob():
    # printf 'hello\\n' | git hash-object --stdin
    hasher = HubFile("a", 6, "ce013625030ba8dba906f756967f9e9ca394464a").git_hasher()
    hasher.update(b"hello\n")
    assert "ce013625030ba8dba906f756967f9e9ca394464a" == hasher.hexdigest()
    # the same in a repository of SHA-256: git init --object-format=sha256
    hasher = HubFile("a", 6, "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4").git_hasher()
    hasher.update(b"hello\n")
    assert "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4" == hasher.hexdigest()


def test_entries_are_counted_over_all_pages(monkeypatch):
    monkeypatch.setattr(hub, "MAX_ENTRIES", 4)
    listing = Listing()
    listing.add(RECORDED)
    with pytest.raises(ProtocolError, match="more than 4 files and folders"):
        listing.add(RECORDED)


def test_a_path_comes_once_over_all_pages():
    listing = Listing()
    listing.add(RECORDED)
    with pytest.raises(ProtocolError, match="twice"):
        listing.add(RECORDED)


HASH = 40 * "1"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"type": "symlink", "path": "a"}, "lists 'a' as 'symlink', and not as a file or a folder"),
        ({"type": None, "path": "a"}, "lists 'a' as 'None'"),
        ({"type": "file", "path": "", "size": 1, "oid": HASH}, "without a path"),
        ({"type": "file", "path": "a\ud800", "size": 1, "oid": HASH}, "without a path"),
        ({"type": "file", "path": "a", "size": -1, "oid": HASH}, "without a size"),
        ({"type": "file", "path": "a", "size": True, "oid": HASH}, "without a size"),
        ({"type": "file", "path": "a", "size": 1.0, "oid": HASH}, "without a size"),
        ({"type": "file", "path": "a", "size": 1}, "without the hash of its git blob"),
        ({"type": "file", "path": "a", "size": 1, "oid": "x"}, "without the hash of its git blob"),
        ({"type": "file", "path": "a", "size": 1, "oid": HASH, "lfs": {"size": 1}}, "in LFS, and without its SHA-256"),
        ({"type": "file", "path": "a", "size": 1, "oid": HASH, "lfs": True}, "in LFS, and without its SHA-256"),
    ],
)
def test_an_entry_that_is_no_file_that_one_can_have(entry, said):
    with pytest.raises(ProtocolError, match=said):
        Listing().add(json.dumps([entry]).encode())


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'"x"', b"[1]", b"[null]", b'[{"type":"file"}]', b"[" * 10**5])
def test_what_is_no_list(raw):
    with pytest.raises(ProtocolError):
        Listing().add(raw)


def test_the_commit():
    assert 40 * "a" == read_commit(json.dumps({"sha": 40 * "a", "siblings": []}).encode())
    assert 64 * "a" == read_commit(json.dumps({"sha": 64 * "a"}).encode())


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"sha": null}', b'{"sha": "main"}', b'{"sha": "' + b"A" * 40 + b'"}']
)
def test_what_is_no_commit(raw):
    with pytest.raises(ProtocolError):
        read_commit(raw)


def test_what_refusals_mean():
    missing = explained(UnauthorizedError("no", code="RepoNotFound", status=401), NAME, "https://hub.example")
    assert NotFoundError is type(missing)
    assert "private" in str(missing)
    gated = DeniedError("no", code="GatedRepo", status=403)
    assert gated is explained(gated, NAME, "https://hub.example")
    assert "gives access at https://hub.example/org/model" in str(gated)
    other = RegistryError("no", code="X", status=400)
    assert other is explained(other, NAME, "https://hub.example")
    assert "no" == str(other)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_ENTRIES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("type", "path", "size", "oid", "lfs"), _VALUES) | {"type": st.just("file")}
)


@given(st.lists(_ENTRIES | _VALUES, max_size=4))
def test_whatever_is_listed_there_is_the_documented_error_alone(entries):
    listing = Listing()
    try:
        listing.add(json.dumps(entries).encode())
    except ProtocolError:
        return
    for file in listing.files:
        assert file.size >= 0
        assert file.path.encode()


@given(st.binary(max_size=60))
def test_whatever_bytes_come_there_is_the_documented_error_alone(raw):
    listing = Listing()
    for read in (read_commit, listing.add):
        try:
            read(raw)
        except ProtocolError:
            continue
        assert isinstance(json.loads(raw), list | dict), "what is no document was taken for one"
    assert [] == listing.files


def listed(path: str) -> bytes:
    return json.dumps([{"type": "file", "path": path, "oid": 40 * "a", "size": 0}]).encode()


def test_the_characters_of_all_paths_are_bounded(monkeypatch):
    monkeypatch.setattr(hub, "_ALL_PATHS", 25)
    listing = Listing()
    listing.add(listed("a" * 20))
    listing.add(listed("b" * 5))
    with pytest.raises(ProtocolError, match="paths of more than 25 characters together"):
        listing.add(listed("c"))


@pytest.mark.parametrize("read", [read_commit, lambda raw: Listing().add(raw)])
def test_an_answer_that_would_become_too_much_is_not_parsed(monkeypatch, read):
    monkeypatch.setattr(hub, "json", None)
    raw = b'{"sha":"' + b"a" * 40 + b'","siblings":[' + b"{}," * 500_000 + b"1]}"
    with pytest.raises(ProtocolError, match="more than 1000000 values"):
        read(raw)
