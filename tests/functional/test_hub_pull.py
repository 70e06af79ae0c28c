"""From the Hugging Face hub into a folder, by the engine of every download."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.hub import COMMIT, TOKEN, ScriptedHub, sha256, use
from tests.functional.models import IMPATIENT, client
from transferkit.testing import RawRequest, answer, truncated

MIB = 1024 * 1024
WEIGHTS = random.Random(7).randbytes(3 * MIB)
FILES = {
    "README.md": b"# A model\n",
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "sub/folder/vocab.txt": b"a\nb\n" * 1000,
}
CHUNKED = tk.TransferOptions(
    chunk_threshold=MIB // 2, chunk_size=MIB // 2, resume_threshold=MIB // 2, retry=IMPATIENT.retry
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with ScriptedHub(dict(FILES), lfs=["model.safetensors"]) as running:
        use(running, monkeypatch, tmp_path / "hf", TOKEN)
        yield running


def found_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for what the library keeps for itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


@pytest.mark.parametrize("cached", [True, False])
def test_a_repository_is_pulled_into_a_folder(hub, tmp_path, cached):
    with client(tmp_path / "c", options=CHUNKED) as registries:
        registries.pull("hf://org/model", to=tmp_path / "here", **({} if cached else {"cache": None}))
    assert FILES == found_in(tmp_path / "here")
    assert {f"Bearer {TOKEN}"} == {request.headers.get("authorization") for request in hub.front.requests}
    assert {None} == {request.headers.get("authorization") for request in hub.cdn.requests}
    ranges = sorted(request.headers["range"] for request in hub.cdn.requests)
    assert sorted(f"bytes={at}-{at + MIB // 2 - 1}" for at in range(0, 3 * MIB, MIB // 2)) == ranges
    assert cached == any((tmp_path / "c").rglob(f"sha256-{sha256(WEIGHTS)}"))


def test_a_second_pull_asks_two_questions_and_one_of_a_file_that_is_gone_brings_that(hub, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.pull("hf://org/model", to=tmp_path / "here")
        moved = len(hub.cdn.requests)
        asked = len(hub.front.requests)
        report = registries.pull("hf://org/model", to=tmp_path / "here")
        again = [request.target for request in hub.front.requests[asked:]]
        assert [f"{hub.api}/revision/main", f"{hub.api}/tree/{COMMIT}?recursive=true&expand=false"] == again
        assert ((), tuple(sorted(FILES)), COMMIT) == (report.written, report.kept, report.digest)
        (tmp_path / "here" / "README.md").unlink()
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert (1, moved) == (len(hub.asked(f"/org/model/resolve/{COMMIT}/README.md")) - 1, len(hub.cdn.requests))
    assert FILES == found_in(tmp_path / "here")


def test_a_large_file_that_is_not_in_lfs_is_recognised_as_well(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("transferkit.registry.hub_files._KEPT", 100)
    with client(tmp_path / "c") as registries:
        registries.pull("hf://org/model", to=tmp_path / "here")
        asked = len(hub.front.requests)
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert asked + 2 == len(hub.front.requests)


def test_files_are_chosen_and_the_others_are_not_asked_for(hub, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.pull("hf://org/model", to=tmp_path / "here", only=["*.json", "*.md"], exclude=("README*",))
    assert {"config.json": FILES["config.json"]} == found_in(tmp_path / "here")
    assert ([], []) == (hub.cdn.requests, hub.asked("README"))


def test_what_has_arrived_before_an_interruption_is_not_fetched_again(hub, tmp_path):
    half = MIB // 2

    def only_the_first_chunks(request: RawRequest) -> object | None:
        return None if request.headers["range"] in (f"bytes=0-{half - 1}", f"bytes={half}-{MIB - 1}") else answer(500)

    hub.before_cdn = only_the_first_chunks
    with client(tmp_path / "c", options=CHUNKED) as registries:
        with pytest.raises(tk.TransferKitError):
            registries.pull("hf://org/model", to=tmp_path / "here")
        assert {} == {
            path: content for path, content in found_in(tmp_path / "here").items() if path == "model.safetensors"
        }
        hub.before_cdn = lambda request: None
        asked = len(hub.cdn.requests)
        registries.pull("hf://org/model", to=tmp_path / "here")
    ranges = {request.headers["range"] for request in hub.cdn.requests[asked:]}
    assert ranges.isdisjoint({f"bytes=0-{half - 1}", f"bytes={half}-{MIB - 1}"})
    assert FILES == found_in(tmp_path / "here")


def test_a_chunk_that_is_cut_is_continued(hub, tmp_path):
    cuts = [1]

    def cut(request: RawRequest) -> object | None:
        if request.headers["range"] != f"bytes={MIB}-{MIB + MIB // 2 - 1}" or not cuts.pop():
            return None
        cuts.append(0)
        fields = {"Content-Range": f"bytes {MIB}-{MIB + MIB // 2 - 1}/{len(WEIGHTS)}"}
        return truncated(WEIGHTS[MIB : MIB + 100_000], MIB // 2, status=206, headers=fields)

    hub.before_cdn = cut
    with client(tmp_path / "c", options=CHUNKED) as registries:
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert f"bytes={MIB + 100_000}-{MIB + MIB // 2 - 1}" in [request.headers["range"] for request in hub.cdn.requests]
    assert FILES == found_in(tmp_path / "here")


def test_a_cdn_that_has_another_content_gets_no_file_its_name(hub, tmp_path):
    other = random.Random(8).randbytes(len(WEIGHTS))

    def swapped(request: RawRequest) -> bytes:
        start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        fields = {"Content-Range": f"bytes {start}-{end}/{len(other)}", "ETag": '"other"'}
        return answer(206, other[start : end + 1], fields)

    hub.before_cdn = swapped
    with client(tmp_path / "c", options=CHUNKED) as registries, pytest.raises(tk.IncompleteError) as caught:
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert [tk.DigestMismatchError] == [type(error) for error in caught.value.failures.values()]
    assert "model.safetensors" not in found_in(tmp_path / "here")


def test_a_cdn_that_changes_its_content_in_the_middle_is_found_out(hub, tmp_path):
    def changed(request: RawRequest) -> bytes | None:
        wanted = request.headers["range"]
        if request.headers.get("if-match") == '"old"':
            return answer(412)
        if wanted == f"bytes=0-{MIB // 2 - 1}" and len(hub.cdn.requests) == 1:
            fields = {"Content-Range": f"bytes 0-{MIB // 2 - 1}/{len(WEIGHTS)}", "ETag": '"old"'}
            return answer(206, bytes(MIB // 2), fields)
        return None

    hub.before_cdn = changed
    with client(tmp_path / "c", options=CHUNKED) as registries:
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert FILES == found_in(tmp_path / "here")


def test_hostile_names_write_nothing(hub, monkeypatch, tmp_path):
    hub.files = {"../evil": b"x", **FILES}
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="evil"):
        registries.pull("hf://org/model", to=tmp_path / "here" / "deep")
    assert [] == list(tmp_path.rglob("evil"))
    assert [] == hub.asked("/resolve/")


def test_a_pull_from_the_hub_goes_into_a_folder(hub, tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(TypeError, match="to="):
        registries.pull("hf://org/model")
    with client(tmp_path / "c", offline=True) as registries, pytest.raises(tk.ConnectError, match="offline"):
        registries.pull("hf://org/model", to=tmp_path / "here")
    assert [] == hub.front.requests


def test_what_a_version_does_not_have_is_reported_and_what_is_not_wanted_is_not(hub, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.pull("hf://org/model", to=tmp_path / "here")
        assert () == registries.pull("hf://org/model", to=tmp_path / "here", only="*.json").left
        del hub.files["README.md"]
        assert ("README.md",) == registries.pull("hf://org/model", to=tmp_path / "here").left
        assert ("README.md",) == registries.pull("hf://org/model", to=tmp_path / "here", only="*.json").left
    assert FILES == found_in(tmp_path / "here")


def test_a_file_that_the_user_has_changed_is_left(hub, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.pull("hf://org/model", to=tmp_path / "here", link="copy")
        (tmp_path / "here" / "config.json").write_bytes(b'{"model_type": "mine!"}')
        with pytest.raises(tk.StorageError, match=r"config\.json"):
            registries.pull("hf://org/model", to=tmp_path / "here")
        assert b'{"model_type": "mine!"}' == (tmp_path / "here" / "config.json").read_bytes()
        registries.pull("hf://org/model", to=tmp_path / "here", overwrite=True)
    assert FILES == found_in(tmp_path / "here")


def test_a_plan_tells_what_a_pull_moves(hub, tmp_path):
    hub.files["copy.json"] = FILES["config.json"]
    size = sum(len(content) for content in FILES.values())
    with client(tmp_path / "c") as registries:
        assert (4, 0, size) == tuple(
            getattr(registries.plan("hf://org/model"), name) for name in ("blobs", "present", "bytes")
        )
        assert [] == hub.cdn.requests
        registries.pull("hf://org/model", to=tmp_path / "here", only="*.safetensors")
        plan = registries.plan("hf://org/model")
    assert (1, size - len(WEIGHTS)) == (plan.present, plan.bytes)
