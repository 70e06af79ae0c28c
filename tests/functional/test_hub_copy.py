"""From the Hugging Face hub into a registry: file by file, nothing on disk, pinned to one commit."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import struct
import time
import traceback
from pathlib import Path

import pytest
import requests

import transferkit as tk
from tests.functional.hub import COMMIT, TOKEN, ScriptedHub, refusal, sha256, use
from tests.functional.models import IMPATIENT, ask, client, digest_of, get, host
from transferkit.storage.layout import OCILayout
from transferkit.testing import RawRequest, answer, truncated
from transferkit.testing.wire import Close

TITLE = "org.opencontainers.image.title"


def safetensors(size: int, seed: int = 1) -> bytes:
    """A file with one tensor of ``size`` bytes in BF16."""
    header = {"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + random.Random(seed).randbytes(size)


WEIGHTS = safetensors(300_000)
FILES = {
    "README.md": b"# A model\n",
    "config.json": b'{"model_type": "llama", "torch_dtype": "bfloat16"}',
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"onnx" * 5000,
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with ScriptedHub(dict(FILES), lfs=["model.safetensors", "onnx/model.onnx"]) as running:
        use(running, monkeypatch, tmp_path / "hf", TOKEN)
        yield running


def target(registry, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/team/model:{tag}"


def files_in(registry, reference: str = "v1") -> dict[str, bytes]:
    """The files of a manifest in a registry, asked for with nothing of the library."""
    status, raw = get(registry.url, "team/model", reference)
    assert status == 200, raw
    layers = json.loads(raw)["layers"]
    found = {
        layer["annotations"][TITLE]: ask(registry.url, "GET", f"/v2/team/model/blobs/{layer['digest']}")[2]
        for layer in layers
    }
    assert [digest_of(content) for content in found.values()] == [layer["digest"] for layer in layers]
    return found


def test_the_files_of_a_repository_become_an_artifact_and_nothing_is_stored(hub, registry, tmp_path):
    with client(tmp_path / "c") as registries:
        manifest = registries.copy("hf://org/model", target(registry))
    assert FILES == files_in(registry)
    document = json.loads(get(registry.url, "team/model", "v1")[1])
    assert "application/vnd.cncf.model.manifest.v1+json" == document["artifactType"]
    assert {
        "org.opencontainers.image.source": f"{hub.url}/org/model",
        "org.opencontainers.image.revision": COMMIT,
    }.items() <= document["annotations"].items()
    config = json.loads(ask(registry.url, "GET", f"/v2/team/model/blobs/{document['config']['digest']}")[2])
    assert ("safetensors", "llama", "bf16", None) == tuple(
        config["config"].get(key) for key in ("format", "architecture", "precision", "paramSize")
    )
    assert (manifest.raw, False) == (get(registry.url, "team/model", "v1")[1], (tmp_path / "c").exists())


def test_every_request_names_the_commit_and_the_token_stays_at_the_hub(hub, registry, tmp_path):
    with client(tmp_path / "c", token="of-the-registry") as registries:
        registries.copy("hf://org/model", target(registry))
    assert 1 == len(hub.asked("/revision/main"))
    assert [] == [path for path in hub.asked() if COMMIT not in path and "/revision/" not in path]
    assert {f"Bearer {TOKEN}"} == {request.headers.get("authorization") for request in hub.front.requests}
    assert hub.cdn.requests
    assert not any("authorization" in request.headers for request in hub.cdn.requests)
    assert {"Bearer of-the-registry"} == {request.headers.get("authorization") for request in registry.log}


def test_what_is_in_place_is_not_moved_again(hub, registry, tmp_path):
    with client(tmp_path / "c") as registries:
        first = registries.copy("hf://org/model", target(registry))
        registry.log.clear()
        asked = len(hub.cdn.requests)
        second = registries.copy("hf://org/model", target(registry, "v2"))
    assert first.raw == second.raw
    assert 0 == sum(request.received for request in registry.log if "/blobs/" in request.path)
    assert asked == len(hub.cdn.requests)


def test_a_copy_that_was_interrupted_goes_on_with_the_files_that_are_missing(hub, registry, tmp_path):
    path = f"/xet-bridge-us/{sha256(WEIGHTS)}"

    def refuse(request: RawRequest) -> bytes | None:
        return answer(500) if request.target.startswith(path) and "range" not in request.headers else None

    hub.before_cdn = refuse
    with client(tmp_path / "c") as registries:
        with pytest.raises(tk.IncompleteError):
            registries.copy("hf://org/model", target(registry))
        assert 404 == get(registry.url, "team/model", "v1")[0]
        hub.before_cdn = lambda request: None
        registry.log.clear()
        registries.copy("hf://org/model", target(registry))
    received = sorted(request.received for request in registry.log if "/blobs/" in request.path and request.received)
    assert [len(WEIGHTS)] == received
    assert FILES == files_in(registry)


def test_a_cdn_that_breaks_off_is_asked_for_the_rest(hub, registry, tmp_path):
    cuts = [200_000, 100_000]

    def cut(request: RawRequest) -> object | None:
        wanted = request.headers.get("range", "bytes=0-")
        if not request.target.startswith(f"/xet-bridge-us/{sha256(WEIGHTS)}") or not wanted.endswith("-") or not cuts:
            return None
        start, end = int(wanted.removeprefix("bytes=").rstrip("-")), cuts.pop()
        if not start:
            return truncated(WEIGHTS[:end], len(WEIGHTS))
        fields = {"Content-Range": f"bytes {start}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"}
        return truncated(WEIGHTS[start:end], len(WEIGHTS) - start, status=206, headers=fields)

    hub.before_cdn = cut
    with client(tmp_path / "c") as registries:
        registries.copy("hf://org/model", target(registry))
    asked = [request.headers.get("range") for request in hub.cdn.requests if sha256(WEIGHTS) in request.target]
    assert [None, "bytes=100000-", "bytes=200000-"] == asked
    assert FILES == files_in(registry)
    assert len(WEIGHTS) == max(request.received for request in registry.log)


def test_a_signed_url_that_has_expired_is_resolved_again(hub, registry, tmp_path):
    expired = [answer(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")]
    hub.before_cdn = lambda request: expired.pop() if expired else None
    with client(tmp_path / "c") as registries:
        registries.copy("hf://org/model", target(registry))
    assert FILES == files_in(registry)


def test_files_are_chosen_and_the_others_are_not_asked_for(hub, registry, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.copy("hf://org/model", target(registry), exclude="*.onnx", only=["*.json", "*.onnx"])
    assert {"config.json"} == set(files_in(registry))
    assert [] == hub.asked("README") + hub.asked("model.safetensors")
    with (
        client(tmp_path / "c") as registries,
        pytest.raises(tk.NotFoundError, match=r"no file .* is wanted; it has .*README"),
    ):
        registries.copy("hf://org/model", target(registry), only="*.gguf")
    with client(tmp_path / "c") as registries, pytest.raises(TypeError, match="for a repository of the hub"):
        registries.copy(target(registry), target(registry, "v2"), only="*.json")


def test_a_copy_into_an_image_layout(hub, tmp_path):
    layout = OCILayout(tmp_path / "layout")
    with client(tmp_path / "c") as registries:
        manifest = registries.copy("hf://org/model", layout.at("v1"))
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "layout/blobs/sha256").glob("*")}
    assert {sha256(content) for content in FILES.values()} <= found
    assert manifest.raw == layout.document("v1").raw


@pytest.mark.parametrize(
    ("name", "kind", "repository", "revision"),
    [
        ("hf://datasets/org/texts@refs/convert/parquet", "datasets", "org/texts", "refs/convert/parquet"),
        ("hf://spaces/org/app", "spaces", "org/app", "main"),
        ("hf://org/model@feature%2Fx", "models", "org/model", "feature/x"),
        (f"hf://org/model@{COMMIT}", "models", "org/model", "main"),
    ],
)
def test_datasets_spaces_and_revisions(registry, monkeypatch, tmp_path, name, kind, repository, revision):
    with ScriptedHub({"a.txt": b"a"}, kind=kind, repository=repository, revision=revision) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries:
            registries.copy(name, target(registry))
        assert {"a.txt": b"a"} == files_in(registry)
        (asked,) = hub.asked("/revision/")
        assert asked.endswith(
            f"/api/{kind}/{repository}/revision/{name.partition('@')[2].replace('/', '%2F') or 'main'}"
        )


def test_a_name_of_one_part_leads_to_what_it_is_called_now(registry, monkeypatch, tmp_path):
    with ScriptedHub({"a.txt": b"a"}, repository="openai-community/gpt2") as hub:
        use(hub, monkeypatch, tmp_path)

        def renamed(request: RawRequest) -> bytes | None:
            for old, new in (("/api/models/gpt2/", f"{hub.api}/"), ("/gpt2/", "/openai-community/gpt2/")):
                if request.target.startswith(old):
                    return answer(307, b"", {"Location": new + request.target.removeprefix(old)})
            return None

        hub.before = renamed
        with client(tmp_path / "c") as registries:
            registries.copy("hf://gpt2", target(registry))
    assert {"a.txt": b"a"} == files_in(registry)


def test_a_list_comes_in_pages_also_from_who_repeats_the_links_of_the_hub(registry, monkeypatch, tmp_path):
    files = {f"part-{number:02}.txt": b"%d" % number for number in range(25)}
    with ScriptedHub(files, page=10) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries:
            registries.copy("hf://org/model", target(registry))
            hub.known_as = "https://huggingface.co"
            registries.copy("hf://org/model", target(registry, "v2"))
        assert 6 == len(hub.asked("/tree/"))
    assert files == files_in(registry) == files_in(registry, "v2")


def test_more_small_files_than_memory_is_spent_on_are_read_again(registry, monkeypatch, tmp_path):
    files = {"a.txt": b"a" * 10, "b.txt": b"b" * 50, "c.txt": b"c" * 20}
    monkeypatch.setattr("transferkit.registry.hub_files._ALL_KEPT", 40)
    with ScriptedHub(files) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries:
            registries.copy("hf://org/model", target(registry))
        assert [1, 2, 1] == [len(hub.asked(f"/org/model/resolve/{COMMIT}/{path}")) for path in files]
    assert files == files_in(registry)


def test_progress_ends_at_all_bytes_and_the_trace_hears_of_each_file(hub, registry, tmp_path):
    told, announced = [], []

    class Heard(tk.Trace):
        def announced(self, descriptors):
            announced.extend(descriptor.digest for descriptor in descriptors)

    with client(tmp_path / "c") as registries:
        manifest = registries.copy(
            "hf://org/model", target(registry), progress=lambda *figures: told.append(figures), trace=Heard()
        )
    assert (manifest.size, manifest.size) == told[-1]
    assert all(0 <= completed <= total for completed, total in told)
    assert {digest_of(content) for content in FILES.values()} <= set(announced)


def test_a_cancel_ends_it_and_no_tag_is_there(hub, registry, tmp_path):
    cancel = tk.Cancellation()

    def pull_the_plug(request: RawRequest) -> bytes | None:
        cancel.cancel("enough")
        return None

    hub.before_cdn = pull_the_plug
    with client(tmp_path / "c") as registries, pytest.raises(tk.CancelledError, match="enough"):
        registries.copy("hf://org/model", target(registry), cancel=cancel)
    assert 404 == get(registry.url, "team/model", "v1")[0]


def test_a_limit_of_requests_is_waited_for_as_the_hub_says(hub, registry, tmp_path):
    limits = [answer(429, b"", {"RateLimit": '"api";r=0;t=0', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'})]
    hub.before = lambda request: limits.pop() if limits else None
    with client(tmp_path / "c") as registries:
        registries.copy("hf://org/model", target(registry))
    assert FILES == files_in(registry)
    hub.before = lambda request: answer(429, b"", {"RateLimit": '"api";r=0;t=301'})
    with client(tmp_path / "c") as registries, pytest.raises(tk.RateLimitedError, match="301 s, more than"):
        registries.copy("hf://org/model", target(registry))


def test_offline_nobody_is_asked(hub, registry, monkeypatch, tmp_path):
    with client(tmp_path / "c", offline=True) as registries, pytest.raises(tk.ConnectError, match="offline"):
        registries.copy("hf://org/model", target(registry))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with client(tmp_path / "c") as registries, pytest.raises(tk.ConnectError, match="HF_HUB_OFFLINE"):
        registries.copy("hf://org/model", target(registry))
    assert [] == hub.front.requests


def test_known_limits_of_the_registry_are_told_before_the_first_byte(hub, registry, tmp_path, monkeypatch, caplog):
    def limits(where, layers):
        assert (host(registry.url), sorted(map(len, FILES.values()))) == (where, sorted(each.size for each in layers))
        assert 0 == sum(request.received for request in registry.log)
        return ["it takes no more than 1 GB"]

    monkeypatch.setattr("transferkit.registry.hub.broken_limits", limits)
    with client(tmp_path / "c") as registries, caplog.at_level(logging.WARNING):
        registries.copy("hf://org/model", target(registry))
    assert ["it takes no more than 1 GB"] == [record.getMessage() for record in caplog.records]


def test_empty_files_and_other_formats(registry, monkeypatch, tmp_path):
    files = {"__init__.py": b"", "empty.bin": b"", "deep/er/a.txt": b"a"}
    with ScriptedHub(files, lfs=["empty.bin"]) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries:
            manifest = registries.copy("hf://org/model", target(registry), format="oras")
            assert files == files_in(registry)
            assert manifest.config is not None
            assert "application/vnd.oci.empty.v1+json" == manifest.config.media_type
            report = registries.pull("hf://org/model", to=tmp_path / "here")
        assert files == {path: Path(where).read_bytes() for path, where in report.paths.items()}
        asked = len(hub.front.requests)
        with client(tmp_path / "c") as registries, pytest.raises(ValueError, match="format is one of"):
            registries.copy("hf://org/model", target(registry), format="zip")
        assert asked == len(hub.front.requests)


# -- refusals


@pytest.mark.parametrize(
    ("token", "said", "error", "match"),
    [
        (None, refusal(401, "RepoNotFound", "Repository not found"), tk.NotFoundError, "it is private.*"),
        (TOKEN, refusal(404, "RepoNotFound", "Repository not found"), tk.NotFoundError, "Repository not found"),
        (TOKEN, refusal(404, "RevisionNotFound", "Invalid rev id: main"), tk.NotFoundError, "Invalid rev id"),
        (None, refusal(401, "GatedRepo", "Access is restricted"), tk.UnauthorizedError, r"set HF_TOKEN.*/org/model"),
        (TOKEN, refusal(403, "GatedRepo", "Access is restricted"), tk.DeniedError, "gives access at http.*/org/model"),
        (TOKEN, refusal(401, "", "Invalid username or password."), tk.UnauthorizedError, "the token of HF_TOKEN"),
        (None, refusal(401, "", "Invalid username or password."), tk.UnauthorizedError, "hf auth login"),
    ],
)
def test_a_refusal_says_what_the_user_can_do(registry, monkeypatch, tmp_path, token, said, error, match):
    with ScriptedHub(FILES) as hub:
        use(hub, monkeypatch, tmp_path, token)
        hub.before = lambda request: said
        with client(tmp_path / "c") as registries, pytest.raises(error, match=match) as caught:
            registries.copy("hf://org/model", target(registry))
    assert TOKEN not in repr(caught.value) + str(caught.value)
    assert 1 == len(hub.front.requests)


def test_a_gated_file_ends_the_copy_at_once(registry, monkeypatch, tmp_path):
    files = {f"model-{number}.bin": b"%d" % number for number in range(40)}
    with ScriptedHub(files, lfs=files) as hub:
        use(hub, monkeypatch, tmp_path, TOKEN)
        denied = refusal(403, "GatedRepo", "Access to model org/model is restricted")
        hub.before = lambda request: denied if "/resolve/" in request.target else None
        with client(tmp_path / "c") as registries, pytest.raises(tk.DeniedError, match="gives access at"):
            registries.copy("hf://org/model", target(registry))


def test_a_hub_that_repeats_the_token_and_the_signature_does_not_get_them_into_an_error(hub, registry, tmp_path):
    hub.before = lambda request: answer(403, json.dumps({"error": f"no: {request.headers['authorization']}"}).encode())
    with client(tmp_path / "c") as registries, pytest.raises(tk.DeniedError) as caught:
        registries.copy("hf://org/model", target(registry))
    assert TOKEN not in str(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize("path", [f"../{TOKEN}", f"con.{TOKEN}"])
def test_a_hub_that_lists_the_token_does_not_get_it_into_an_error(hub, registry, tmp_path, path):
    listed = [*hub.entries(), entry(path)]
    hub.entries = lambda: listed
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError) as caught:
        registries.copy("hf://org/model", target(registry))
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_what_a_cdn_adds_to_the_weights_is_not_in_the_manifest(hub, registry, tmp_path):
    """A range of a file is held to no digest: the same commit has the same manifest, whatever comes as its header."""
    other = WEIGHTS.replace(b'"BF16"', b'"U8"  ').replace(b"150000", b"300000")

    def lie(request: RawRequest) -> bytes | None:
        start, _, end = request.headers.get("range", "").removeprefix("bytes=").partition("-")
        if sha256(WEIGHTS) not in request.target or not end:
            return None
        part = other[int(start) : int(end) + 1]
        said = f"bytes {start}-{int(start) + len(part) - 1}/{len(WEIGHTS)}"
        return answer(206, part, {"Content-Range": said})

    with client(tmp_path / "c") as registries:
        honest = registries.copy("hf://org/model", target(registry))
        hub.before_cdn = lie
        assert honest.raw == registries.copy("hf://org/model", target(registry, "v2")).raw
    assert FILES == files_in(registry, "v2")


def test_what_a_push_leaves_out_a_copy_does(registry, monkeypatch, tmp_path):
    own = {".transferkit/state.json": b"{}", "a/.git/config": b"", ".cache/huggingface/x": b"1"}
    with ScriptedHub({"config.json": b"{}", ".gitattributes": b"", **own}) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries:
            registries.copy("hf://org/model", target(registry))
        assert ["config.json", ".gitattributes"] == sorted(files_in(registry), reverse=True)
        with client(tmp_path / "c") as registries:
            registries.pull("hf://org/model", to=tmp_path / "here")
    assert {"config.json", ".gitattributes", ".transferkit"} == {path.name for path in (tmp_path / "here").iterdir()}


def test_a_cancel_is_heard_while_names_are_checked(hub, registry, tmp_path, monkeypatch):
    cancel, checked = tk.Cancellation(), []

    def check(path: str) -> str:
        checked.append(path)
        cancel.cancel("enough")
        time.sleep(0.01)
        return path

    listed = [entry(f"{number}") for number in range(900)]
    hub.entries = lambda: listed
    monkeypatch.setattr("transferkit.registry.hub_files.check_title", check)
    with client(tmp_path / "c") as registries, pytest.raises(tk.CancelledError, match="enough"):
        registries.copy("hf://org/model", target(registry), cancel=cancel)
    assert len(checked) < 100


# -- other content than was listed


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("config.json", b'{"model_type": "other", "torch_dtype": "bfloat1"}', tk.SizeMismatchError),
        ("config.json", b'{"model_type": "llamb", "torch_dtype": "bfloat16"}', tk.DigestMismatchError),
        ("model.safetensors", WEIGHTS[:-1], tk.SizeMismatchError),
        ("model.safetensors", WEIGHTS[:-1] + b"?", tk.DigestMismatchError),
    ],
)
def test_other_content_than_was_listed_gets_no_tag(hub, registry, tmp_path, failure, path, content, kind):
    listed = hub.entries()
    hub.entries = lambda: listed
    original, hub.files[path] = hub.files[path], content

    def swapped(request: RawRequest) -> bytes | None:
        if sha256(original) not in request.target:
            return None
        fields = {"ETag": '"other"'}
        if "range" not in request.headers:
            return answer(200, content, fields)
        start, _, end = request.headers["range"].removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end or len(content)) + 1]
        return answer(
            206, part, {**fields, "Content-Range": f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"}
        )

    hub.before_cdn = swapped
    if path in hub.lfs:  # the redirect still names the content that was listed
        hub.files = {**hub.files, path: original}
    with client(tmp_path / "c") as registries:
        error = failure(lambda: registries.copy("hf://org/model", target(registry)))
    assert isinstance(error, kind), error
    assert 404 == get(registry.url, "team/model", "v1")[0]


# -- a hostile hub


def entry(path: object, **more: object) -> dict[str, object]:
    return {"type": "file", "path": path, "size": 1, "oid": 40 * "a", **more}


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ([entry("../evil")], tk.InvalidNameError),
        ([entry("/etc/passwd")], tk.InvalidNameError),
        ([entry("a/../../evil")], tk.InvalidNameError),
        ([entry("C:evil")], tk.InvalidNameError),
        ([entry("nul.txt")], tk.InvalidNameError),
        ([entry("a\0b")], tk.InvalidNameError),
        ([entry("a" * 1025)], tk.ProtocolError),
        ([entry("\ud800")], tk.ProtocolError),
        ([entry(None)], tk.ProtocolError),
        ([entry("a"), entry("a", oid=40 * "b")], tk.ProtocolError),
        ([entry("a", size=-1)], tk.ProtocolError),
        ([entry("a", size=2**63)], tk.ProtocolError),
        ([entry("a", size=True)], tk.ProtocolError),
        ([entry("a", size="1")], tk.ProtocolError),
        ([entry("a", oid="../../x")], tk.ProtocolError),
        ([entry("a", lfs={"oid": 63 * "a", "size": 1})], tk.ProtocolError),
        ([entry("a", lfs={"oid": 64 * "a", "size": -1})], tk.ProtocolError),
        ([entry("a", lfs=[1])], tk.ProtocolError),
        ([entry("a", type="symlink")], tk.ProtocolError),
        (["a"], tk.ProtocolError),
        ({"a": 1}, tk.ProtocolError),
    ],
)
def test_a_hostile_list_is_refused_before_anything_is_fetched(hub, registry, tmp_path, page, kind):
    raw = json.dumps(page).encode()
    hub.before = lambda request: answer(200, raw) if "/tree/" in request.target else None
    with client(tmp_path / "c") as registries, pytest.raises(kind):
        registries.copy("hf://org/model", target(registry))
    assert ([], [], []) == (hub.asked("/resolve/"), hub.cdn.requests, list(registry.log))


@pytest.mark.parametrize("raw", [b"", b"not json", b"[" * 100_000, b"\xff", b'[{"size": ' + b"9" * 5000 + b"}]"])
def test_what_is_no_list_is_refused(hub, registry, tmp_path, raw):
    hub.before = lambda request: answer(200, raw) if "/tree/" in request.target else None
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError):
        registries.copy("hf://org/model", target(registry))


@pytest.mark.parametrize("sha", [None, "", "main", 40 * "g", "../" + 37 * "a", 41 * "a", 7])
def test_a_commit_that_is_none_is_refused(hub, registry, tmp_path, sha):
    hub.before = lambda request: answer(200, json.dumps({"sha": sha}).encode())
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError, match="which commit"):
        registries.copy("hf://org/model", target(registry))


def test_a_list_without_end_is_left(hub, registry, tmp_path, monkeypatch):
    monkeypatch.setattr("transferkit.protocol.hub.MAX_ENTRIES", 50)
    told = iter(range(10**9))

    def more(request: RawRequest) -> bytes | None:
        if "/tree/" not in request.target:
            return None
        number = next(told)
        page = [entry(f"{number}-{each}") for each in range(10)]
        link = f'<{hub.url}{hub.api}/tree/{COMMIT}?cursor={number}>; rel="next"'
        return answer(200, json.dumps(page).encode(), {"Link": link})

    hub.before = more
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError, match="more than 50 files"):
        registries.copy("hf://org/model", target(registry))
    assert 6 == len(hub.front.requests) - 1


def test_a_page_that_is_too_large_is_left(hub, registry, tmp_path):
    page = b"[" + b" " * (4 * 1024 * 1024) + b"]"
    hub.before = lambda request: answer(200, page) if "/tree/" in request.target else None
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError, match="more than the 4194304 bytes"):
        registries.copy("hf://org/model", target(registry))


def test_pages_that_lead_back_are_left(hub, registry, tmp_path):
    link = f'<{hub.url}{hub.api}/tree/{COMMIT}?cursor=1>; rel="next"'
    hub.before = lambda request: answer(200, b"[]", {"Link": link}) if "/tree/" in request.target else None
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError, match="begins again and again"):
        registries.copy("hf://org/model", target(registry))


def test_a_page_at_another_host_is_not_asked_for(hub, registry, tmp_path, serve):
    thief = serve(lambda request: answer(200, b"[]"))
    hub.before = lambda request: (
        answer(200, b"[]", {"Link": f'<{thief.url}{hub.api}/tree/x>; rel="next"'})
        if "/tree/" in request.target
        else None
    )
    with client(tmp_path / "c") as registries, pytest.raises(tk.ProtocolError, match="elsewhere; refused"):
        registries.copy("hf://org/model", target(registry))
    assert [] == thief.requests


def test_a_redirect_to_another_host_is_followed_without_the_token(hub, registry, tmp_path, serve):
    thief = serve(lambda request: answer(200, FILES["config.json"]))

    def away(request: RawRequest) -> bytes | None:
        is_config = "/resolve/" in request.target and request.target.endswith("config.json")
        return answer(302, b"", {"Location": f"{thief.url}/config.json"}) if is_config else None

    hub.before = away
    with client(tmp_path / "c") as registries:
        registries.copy("hf://org/model", target(registry))
    assert [None] == [request.headers.get("authorization") for request in thief.requests]
    assert FILES == files_in(registry)


def test_files_that_are_one_on_some_system_are_refused_before_anything_is_sent(registry, monkeypatch, tmp_path):
    with ScriptedHub({"Config.json": b"1", "config.json": b"2"}) as hub:
        use(hub, monkeypatch, tmp_path)
        with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="one file"):
            registries.copy("hf://org/model", target(registry))
        assert [] == hub.asked("/resolve/")
    assert [] == list(registry.log)


def test_a_connection_that_closes_while_a_small_file_comes_is_tried_again(hub, registry, tmp_path):
    cuts = [[answer(200, FILES["config.json"])[:-10], Close()]]
    hub.before = lambda request: (
        cuts.pop() if "resolve-cache" in request.target and "config.json" in request.target and cuts else None
    )
    with client(tmp_path / "c", options=IMPATIENT) as registries:
        registries.copy("hf://org/model", target(registry))
    assert FILES == files_in(registry)


def test_the_hub_sees_nothing_of_a_session_but_what_is_for_its_host(hub, registry, tmp_path):
    session = requests.Session()
    session.auth = ("me", "of-the-registry")
    session.headers["X-Own"] = "of-the-registry"
    session.cookies.set("own", "of-the-registry")
    hosts = {host(hub.url): tk.HostOptions(headers={"X-Tenant": "ours"})}
    with client(tmp_path / "c", session=session, hosts=hosts) as registries:
        registries.copy("hf://org/model", target(registry))
    assert "of-the-registry" not in repr([hub.front.requests, hub.cdn.requests])
    assert {"ours"} == {request.headers.get("x-tenant") for request in hub.front.requests}
    assert {None} == {request.headers.get("x-tenant") for request in hub.cdn.requests}
    assert "of-the-registry" in repr([request.headers for request in registry.log])
