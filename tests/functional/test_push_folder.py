"""Folders of models, pushed: what is sent, what is refused before, and what a second push costs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional import models
from tests.functional.models import ask, client, digest_of, get, host
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.testing import FaultRule, HTTPFaults, respond, running_registry

WHERE = "team/model"
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class Counting(Disk):
    """Counts the bytes of files that are read."""

    read = 0

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        count = super().preadv(fd, buffer, offset)
        self.read += count
        return count


def safetensors(count: int) -> bytes:
    """A file as the format has it: ``count`` elements of float16."""
    header = {"weight": {"dtype": "F16", "shape": [count], "data_offsets": [0, 2 * count]}}
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + os.urandom(2 * count)


def gguf() -> bytes:
    """The smallest file of version 3: no tensors, no metadata."""
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors(500_000))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "float16"}))
    (folder / "tokenizer" / "vocab.txt").write_bytes(b"a\nb\n")
    (folder / "README.md").write_bytes(b"# A model\n")
    (folder / "empty").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"none of it")
    return folder


def contents(folder: Path, *leaving_out: str) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {path: data for path, data in sorted(files.items()) if path not in leaving_out}


def name_in(registry, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/{WHERE}:{tag}"


def blob(registry, digest: str) -> bytes:
    status, _, body = ask(registry.url, "GET", f"/v2/{WHERE}/blobs/{digest}")
    assert 200 == status
    return body


def files_of(registry, document: dict) -> dict[str, bytes]:
    """What the layers of a manifest are called, and contain."""
    return {layer["annotations"][TITLE]: blob(registry, layer["digest"]) for layer in document["layers"]}


def requests(registry) -> list[tuple[str, str]]:
    return [(request.method, request.path.partition(WHERE)[2].partition("/sha256")[0]) for request in registry.log]


# -- what is pushed


def test_a_folder_becomes_a_model(registry, folder, tmp_path):
    with client(tmp_path / "c") as registries:
        pushed = registries.push(name_in(registry), folder=folder, annotations={"org.example.about": "tests"})
    status, raw = get(registry.url, WHERE, "v1")
    document = json.loads(raw)
    assert (200, raw) == (status, pushed.raw)
    assert contents(folder) == files_of(registry, document)
    assert sorted(contents(folder)) == [layer["annotations"][FILEPATH] for layer in document["layers"]]
    assert "application/vnd.cncf.model.manifest.v1+json" == document["artifactType"]
    assert {"org.example.about": "tests"} == document["annotations"]
    weights = next(layer for layer in document["layers"] if layer["annotations"][TITLE] == "model.safetensors")
    assert "application/vnd.cncf.model.weight.v1.raw" == weights["mediaType"]
    config = json.loads(blob(registry, document["config"]["digest"]))
    expected = {"format": "safetensors", "architecture": "llama", "paramSize": "500K", "precision": "fp16"}
    assert expected == config["config"]
    assert [layer["digest"] for layer in document["layers"]] == config["modelfs"]["diffIds"]


def test_blobs_come_before_the_manifest_and_the_cache_gets_none(registry, folder, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=folder)
    assert ("PUT", f"/v2/{WHERE}/manifests/v1") == (registry.log[-1].method, registry.log[-1].path)
    assert [".partial"] == os.listdir(tmp_path / "c" / "blobs")


@pytest.mark.parametrize("form", ["oras", "docker"])
def test_other_formats(registry, folder, tmp_path, form):
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=folder, format=form, only=["*.safetensors", "config.json"])
    document = json.loads(get(registry.url, WHERE, "v1")[1])
    assert {"config.json", "model.safetensors"} == files_of(registry, document).keys()
    kind = "application/vnd.oci.empty.v1+json" if form == "oras" else "application/vnd.docker.ai.model.config."
    assert document["config"]["mediaType"].startswith(kind)


def test_a_format_that_is_none_is_refused_with_those_that_are(registry, folder, tmp_path):
    with client(tmp_path / "c") as registries:
        for method in (registries.push, registries.plan_push):
            with pytest.raises(ValueError, match="format is one of modelpack, oras, docker, not 'zip'"):
                method(name_in(registry), folder=folder, format="zip")
    assert 0 == len(registry.log)


def test_files_are_chosen_by_patterns_and_functions(registry, folder, tmp_path):
    with client(tmp_path / "c") as registries:
        for wanted, expected in (
            ({"only": "*.json"}, {"config.json"}),
            ({"only": ["*.md", "vocab.txt"]}, {"README.md", "tokenizer/vocab.txt"}),
            ({"exclude": ["*.safetensors", "tokenizer/*"]}, {"README.md", "config.json", "empty"}),
            ({"only": lambda path: "/" in path}, {"tokenizer/vocab.txt"}),
        ):
            assert expected == set(registries.plan_push(name_in(registry), folder=folder, **wanted).files)


def test_the_same_folder_gives_the_same_bytes_anywhere(registry, folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    for path, data in reversed(contents(folder).items()):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes(data)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with client(tmp_path / "c") as registries, client(tmp_path / "d") as others:
        one = registries.push(name_in(registry, "v1"), folder=folder)
        two = others.push(name_in(registry, "v2"), folder=str(other))
    assert one.raw == two.raw
    config = json.loads(blob(registry, json.loads(one.raw)["config"]["digest"]))
    assert "2023-11-14T22:13:20Z" == config["descriptor"]["createdAt"]  # date -u -d @1700000000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with client(tmp_path / "c") as registries, pytest.raises(ValueError, match="SOURCE_DATE_EPOCH is a number"):
        registries.push(name_in(registry), folder=folder)


def test_a_link_within_the_folder_is_a_file(registry, folder, tmp_path):
    (folder / "weights.safetensors").symlink_to("model.safetensors")
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=folder)
    document = json.loads(get(registry.url, WHERE, "v1")[1])
    assert contents(folder) == files_of(registry, document)
    assert 6 == len(document["layers"])


def test_ollama_has_a_manifest_of_its_own_over_the_same_blobs(registry, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "model.gguf").write_bytes(gguf())
    with client(tmp_path / "c") as registries:
        pushed = registries.push(name_in(registry), folder=folder, ollama=True)
    first, second = (json.loads(get(registry.url, WHERE, tag)[1]) for tag in ("v1", "v1-ollama"))
    assert json.loads(pushed.raw) == first
    assert "application/vnd.docker.distribution.manifest.v2+json" == second["mediaType"]
    digests = {layer["digest"] for layer in first["layers"]}
    assert {digest_of(gguf())} <= {layer["digest"] for layer in second["layers"]} <= digests
    sent = [r for r in registry.log if r.method == "PUT" and "/blobs/" in r.path]
    assert len(digests) + 2 == len(sent)  # and the two configs


def test_without_a_gguf_nothing_is_pushed_for_ollama(registry, folder, tmp_path):
    hashed = []
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidModelError, match="GGUF"):
        registries.push(name_in(registry), folder=folder, ollama=True, progress=lambda *bytes: hashed.append(bytes))
    assert (0, []) == (len(registry.log), hashed)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model.gguf", b"", "'model.gguf' is empty, and is no GGUF file"),
        ("model.gguf", b"hello", "'model.gguf' begins with b'hell', and is no GGUF file"),
        ("mmproj.gguf", b"GGU", "'mmproj.gguf' begins with b'GGU', and is no GGUF file"),
    ],
)
def test_what_is_only_called_gguf_is_refused_for_ollama(registry, folder, tmp_path, name, data, reason):
    (folder / "model.gguf").write_bytes(gguf())
    (folder / name).write_bytes(data)
    hashed = []
    with client(tmp_path / "c") as registries:
        with pytest.raises(tk.InvalidModelError, match=reason):
            registries.push(name_in(registry), folder=folder, ollama=True, progress=lambda *bytes: hashed.append(bytes))
        assert (0, []) == (len(registry.log), hashed)
        registries.push(name_in(registry), folder=folder)


# -- signatures


def without_referrers(app):
    """A registry that has no list of referrers, and does not say that it has taken note of a subject."""

    def middle(environ, start_response):
        if "/referrers/" in environ["PATH_INFO"]:
            return respond(404, b"")(app)(environ, start_response)

        def start(status, headers, *rest):
            return start_response(status, [h for h in headers if h[0].lower() != "oci-subject"], *rest)

        return app(environ, start)

    return middle


@pytest.mark.parametrize("middleware", [None, without_referrers], ids=["list", "tag"])
def test_a_signature_refers_to_the_manifest(folder, tmp_path, middleware):
    def sign(manifest: tk.Manifest) -> bytes:
        assert 0 == len(other.log)
        return b'{"signed":"%s"}' % manifest.digest.encode()

    with running_registry(middleware=middleware) as other, client(tmp_path / "c") as registries:
        pushed = registries.push(name_in(other), folder=folder, sign=sign)
        (found,) = registries.referrers(name_in(other))
        signature = registries.resolve(f"{name_in(other)}@{found.digest}").json()
        tag = get(other.url, WHERE, pushed.digest.replace(":", "-"))[0]
        puts = [request.path for request in other.log if request.method == "PUT" and "/manifests/" in request.path]
        assert b'{"signed":"%s"}' % pushed.digest.encode() == blob(other, signature["layers"][0]["digest"])
    assert (BUNDLE, BUNDLE) == (found.artifact_type, signature["layers"][0]["mediaType"])
    assert (pushed.digest, len(pushed.raw)) == (signature["subject"]["digest"], signature["subject"]["size"])
    assert (404 if middleware is None else 200) == tag
    assert f"/v2/{WHERE}/manifests/v1" == puts[0]
    assert f"/v2/{WHERE}/manifests/{found.digest}" == puts[1]


def test_a_signature_that_fails_sends_nothing(registry, folder, tmp_path):
    def sign(manifest):
        raise RuntimeError("no key")

    with client(tmp_path / "c") as registries, pytest.raises(RuntimeError, match="no key"):
        registries.push(name_in(registry), folder=folder, sign=sign)
    assert 0 == len(registry.log)


# -- what is remembered, and what is there


def test_a_second_push_hashes_and_sends_nothing(registry, folder, tmp_path):
    time.sleep(0.05)  # what was changed in the very moment in which it is hashed is not remembered
    size = sum(map(len, contents(folder).values()))
    disks = [Counting(), Counting()]
    counts = []
    for disk in disks:
        registry.log.clear()
        with tk.Registry(cache=DiskCache(tmp_path / "c", disk=disk)) as registries:
            registries.push(name_in(registry), folder=folder)
        counts.append(len(registry.log))
    assert disks[0].read >= size
    assert disks[1].read < 1000  # the header of the weights, and config.json
    # A question a blob: five files and the config. And the manifest.
    assert [*6 * [("HEAD", "/blobs")], ("PUT", "/manifests/v1")] == sorted(requests(registry))
    assert 0 == sum(request.received for request in registry.log if "/blobs/" in request.path)
    assert counts[1] == 7


def test_only_what_changed_is_hashed_and_sent(registry, folder, tmp_path):
    time.sleep(0.05)
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=folder)
    (folder / "README.md").write_bytes(b"# A better model\n")
    registry.log.clear()
    disk = Counting()
    with tk.Registry(cache=DiskCache(tmp_path / "c", disk=disk)) as registries:
        registries.push(name_in(registry), folder=folder)
    assert disk.read < 2000
    sent = sum(request.received for request in registry.log if "/blobs/" in request.path)
    config = json.loads(get(registry.url, WHERE, "v1")[1])["config"]["size"]
    assert len(b"# A better model\n") + config == sent


def test_with_rehash_existing_all_is_hashed(registry, folder, tmp_path):
    time.sleep(0.05)
    for options in (tk.TransferOptions(), tk.TransferOptions(rehash_existing=True)):
        disk = Counting()
        with tk.Registry(cache=DiskCache(tmp_path / "c", disk=disk), options=options) as registries:
            registries.plan_push(name_in(registry), folder=folder)
        assert disk.read > 1_000_000


def test_files_are_remembered_as_well(registry, folder, tmp_path):
    time.sleep(0.05)
    reads = []
    for _ in range(2):
        disk = Counting()
        with tk.Registry(cache=DiskCache(tmp_path / "c", disk=disk)) as registries:
            registries.push(name_in(registry), files=[folder / "model.safetensors"])
        reads.append(disk.read)
    assert (0, True) == (reads[1], reads[0] > 1_000_000)


def test_a_plan_tells_what_a_push_sends(registry, folder, tmp_path):
    size = sum(map(len, contents(folder).values()))
    with client(tmp_path / "c") as registries:
        before = registries.plan_push(name_in(registry), folder=folder)
        assert not any(request.method != "HEAD" for request in registry.log)
        registries.push(name_in(registry), folder=folder, exclude="*.safetensors")
        half = registries.plan_push(name_in(registry), folder=folder)
        registries.push(name_in(registry), folder=folder)
        after = registries.plan_push(name_in(registry), folder=folder)
    config = json.loads(get(registry.url, WHERE, "v1")[1])["config"]["size"]
    assert tuple(contents(folder)) == before.files
    assert (6, 0, size + config, ()) == (before.blobs, before.present, before.bytes, before.limits)
    weights = (folder / "model.safetensors").stat().st_size
    assert (6, 4, weights + config) == (half.blobs, half.present, half.bytes)
    assert (6, 6, 0) == (after.blobs, after.present, after.bytes)
    assert f"<PushPlan 5 files, 2 of 6 blobs to send, {tk.report.human_bytes(half.bytes)}>" == repr(half)


def test_a_registry_that_does_not_say_has_nothing(folder, tmp_path):
    shut = FaultRule(respond(403, b"{}"), method="HEAD", path="/blobs/")
    with running_registry(middleware=HTTPFaults(shut)) as other, client(tmp_path / "c") as registries:
        plan = registries.plan_push(name_in(other), folder=folder)
    assert (6, 0) == (plan.blobs, plan.present)


def test_known_limits_are_told_before_the_first_byte(registry, folder, tmp_path, monkeypatch, caplog):
    def limits(where, layers):
        assert (host(registry.url), 5) == (where, len(layers))
        return ["localhost takes no more than 1 GB"]

    monkeypatch.setattr("transferkit.registry.folder_push.broken_limits", limits)
    with client(tmp_path / "c") as registries, caplog.at_level(logging.WARNING):
        plan = registries.plan_push(name_in(registry), folder=folder)
        assert not caplog.records
        registries.push(name_in(registry), folder=folder)
    assert ("localhost takes no more than 1 GB",) == plan.limits
    assert "localhost takes no more than 1 GB" in repr(plan)
    assert ["localhost takes no more than 1 GB"] == [record.getMessage() for record in caplog.records]


def test_progress_counts_what_is_hashed_and_then_what_is_sent(registry, folder, tmp_path):
    time.sleep(0.05)
    size = sum(map(len, contents(folder).values()))
    told = []
    with client(tmp_path / "c") as registries:
        registries.plan_push(
            name_in(registry), folder=folder, only="*.md", progress=lambda *figures: told.append(figures)
        )
        assert ((0, 10), (10, 10)) == (told[0], told[-1])
        told.clear()
        registries.push(name_in(registry), folder=folder, progress=lambda *figures: told.append(figures))
        config = json.loads(get(registry.url, WHERE, "v1")[1])["config"]["size"]
        all_of_it = size - 10 + size + config
        assert ((0, 2 * size - 10), (all_of_it, all_of_it)) == (told[0], told[-1])
        assert [completed for completed, _ in told] == sorted(completed for completed, _ in told)
        assert (size - 10, all_of_it) in told
        told.clear()
        registries.push(name_in(registry), folder=folder, progress=lambda *figures: told.append(figures))
    assert ((0, size + config), (size + config, size + config)) == (told[0], told[-1])


# -- what is refused


def test_what_cannot_be_pushed_is_refused_with_the_list_of_all_of_it(registry, folder, tmp_path):
    (tmp_path / "secret").write_bytes(b"mine")
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "tokenizer" / "pipe")
    (folder / "con.txt").write_bytes(b"x")
    (folder / "what?").write_bytes(b"x")
    (folder / "readme.md").write_bytes(b"x")
    with client(tmp_path / "c") as registries:
        for method in (registries.push, registries.plan_push):
            with pytest.raises(
                tk.SourceError, match=r"5 entries of .* cannot be pushed, and nothing was sent"
            ) as caught:
                method(name_in(registry), folder=folder)
        problems = "\n".join(caught.value.problems)
        for part in ("'link': it is a link out of the folder", "'tokenizer/pipe': it is a named pipe", "'con.txt'"):
            assert part in problems
            assert part in str(caught.value)
        assert "'what?'" in problems
        assert "'README.md' and 'readme.md'; they would be one file" in problems
        assert 5 == len(caught.value.problems)
        assert 0 == len(registry.log)
        registries.push(name_in(registry), folder=folder, exclude=["link", "pipe", "con.*", "what?", "readme.md"])
    assert contents(folder, "link", "con.txt", "what?", "readme.md") == files_of(
        registry, json.loads(get(registry.url, WHERE, "v1")[1])
    )


def test_what_nobody_wants_is_not_refused_unless_it_may_have_more(registry, folder, tmp_path):
    os.mkfifo(folder / "pipe")
    with client(tmp_path / "c") as registries:
        assert ("config.json",) == registries.plan_push(name_in(registry), folder=folder, only="*.json").files
        (folder / "more").symlink_to(tmp_path)
        with pytest.raises(tk.SourceError, match="'more': it is a link out of the folder"):
            registries.plan_push(name_in(registry), folder=folder, only="*.json")
        plan = registries.plan_push(name_in(registry), folder=folder, only="*.json", exclude="more")
    assert ("config.json",) == plan.files


def test_a_folder_without_files_says_so(registry, folder, tmp_path):
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    (tmp_path / "empty" / ".git" / "config").write_bytes(b"x")
    with client(tmp_path / "c") as registries:
        for path, wanted, reason in (
            (tmp_path / "empty", {}, "has no files: there is nothing to push"),
            (folder, {"only": "*.gguf"}, "none of the 5 files in .* is wanted"),
            (folder / "empty", {}, "cannot be read: Not a directory"),
            (tmp_path / "nothing", {}, "cannot be read: No such file"),
        ):
            with pytest.raises(tk.SourceError, match=reason):
                registries.push(name_in(registry), folder=path, **wanted)
    assert 0 == len(registry.log)


def test_arguments_that_do_not_go_together(registry, folder, tmp_path):
    with client(tmp_path / "c") as registries:
        name = name_in(registry)
        for wanted in ({"files": [folder / "empty"]}, {"source": name}, {"artifact_type": "application/x"}):
            with pytest.raises(TypeError, match="folder is pushed alone"):
                registries.push(name, folder=folder, **wanted)
        for wanted in ({"ollama": True}, {"only": "*"}, {"sign": lambda manifest: b""}, {"format": "oras"}):
            with pytest.raises(TypeError, match="cannot be without folder"):
                registries.push(name, files=[folder / "empty"], **wanted)
        for wanted in ({"folder": 3}, {"folder": folder, "ollama": 1}, {"folder": folder, "sign": b""}):
            with pytest.raises(TypeError):
                registries.push(name, **wanted)
        with pytest.raises(TypeError, match=r"^push\(\) got an unexpected keyword argument 'wrong'$"):
            registries.push(name, wrong=1)
        with pytest.raises(TypeError, match=r"^plan_push\(\) got an unexpected keyword argument 'wrong'$"):
            registries.plan_push(name, folder=folder, wrong=1)
        with pytest.raises(TypeError, match="source and files are two things to push"):
            registries.push(name, source=name, files=[folder / "empty"])
        for wanted in ({"annotations": {"a": "b"}}, {"artifact_type": "application/x"}):
            with pytest.raises(TypeError, match="a model of the cache is pushed as it is"):
                registries.push(name, **wanted)
        with pytest.raises(ValueError, match="folder is empty"):
            registries.push(name, folder="")
        with pytest.raises(TypeError, match="only is a pattern"):
            registries.plan_push(name, folder=folder, only=3)
        with pytest.raises(tk.InvalidNameError, match="is pushed under a tag"):
            registries.plan_push(f"{name}@sha256:{64 * 'a'}", folder=folder)
        with pytest.raises(tk.InvalidNameError, match="neither a tag"):
            registries.push(name_in(registry, 128 * "v"), folder=folder, ollama=True)
    with client(tmp_path / "c", offline=True) as registries, pytest.raises(tk.ConnectError, match="cannot push"):
        registries.push(name, folder=folder)
    assert 0 == len(registry.log)


# -- what changes meanwhile


def while_sent(path, change):
    """Return faults of a registry: a file is changed when the upload of a large blob arrives."""

    def changing(app):
        def middle(environ, start_response):
            if int(environ.get("CONTENT_LENGTH") or 0) > 1_000_000:
                with path.open("r+b") as file:
                    change(file)
            return app(environ, start_response)

        return middle

    faults = HTTPFaults()
    faults.set(FaultRule(changing, method="PUT", path="/blobs/uploads/"))
    return faults


def test_a_file_that_changes_while_it_is_sent_leaves_no_manifest(folder, tmp_path):
    """It changes when the registry has begun to receive it, with its size as before; too large to be sent by then."""
    path = folder / "model.bin"
    path.touch()
    os.truncate(path, 32 * 2**20)
    faults = while_sent(path, lambda file: file.write(b"X"))
    with running_registry(middleware=faults) as other, client(tmp_path / "c") as registries:
        with pytest.raises(tk.SourceError, match=f"{path} (changed while it was read|does not match its digest)"):
            registries.push(name_in(other), folder=folder)
        assert 404 == get(other.url, WHERE, "v1")[0]


def test_a_file_that_changes_while_it_is_sent_and_gets_its_time_back_is_named(folder, tmp_path):
    path = folder / "model.bin"
    path.touch()
    os.truncate(path, 32 * 2**20)
    os.utime(path, (1, 1))

    def change(file):
        file.seek(31 * 2**20)
        file.write(b"X")
        file.flush()
        os.utime(path, (1, 1))

    faults = while_sent(path, change)
    with running_registry(middleware=faults) as other, client(tmp_path / "c") as registries:
        # Who looks between the write and the time that is put back sees that it changes.
        with pytest.raises(tk.SourceError, match=f"{path} (does not match its digest|changed while it was read)"):
            registries.push(name_in(other), folder=folder)
        assert 404 == get(other.url, WHERE, "v1")[0]


def test_a_file_that_changes_after_it_was_hashed_leaves_no_manifest(registry, folder, tmp_path):
    path = folder / "model.safetensors"

    class Changing(tk.Trace):
        def announced(self, descriptors):
            path.write_bytes(path.read_bytes()[::-1])

    with client(tmp_path / "c") as registries, pytest.raises(tk.SourceError, match=f"{path} does not match its digest"):
        registries.push(name_in(registry), folder=folder, trace=Changing())
    assert 404 == get(registry.url, WHERE, "v1")[0]
    assert 200 != ask(registry.url, "HEAD", f"/v2/{WHERE}/blobs/{digest_of(path.read_bytes())}")[0]


def test_a_push_that_was_interrupted_goes_on_and_hashes_nothing(registry, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    data = os.urandom(1024) * 4 * 1024
    (folder / "model.bin").write_bytes(data)
    time.sleep(0.05)
    keywords = {"resume_threshold": 2**20, "part_size": 2**20, "concurrency": 1}
    cancel = tk.Cancellation()

    def stop(completed, total):
        if completed > len(data) + 3 * 2**20:  # of what is sent
            cancel.cancel()

    slow = tk.TransferOptions(**keywords, max_bandwidth=20e6, progress_interval=0.001)
    with client(tmp_path / "c", options=slow) as registries, pytest.raises(tk.CancelledError):
        registries.push(name_in(registry), folder=folder, cancel=cancel, progress=stop)
    registry.log.clear()
    disk = Counting()
    cache = DiskCache(tmp_path / "c", disk=disk)
    with tk.Registry(cache=cache, options=tk.TransferOptions(**keywords)) as registries:
        registries.push(name_in(registry), folder=folder)
    sent = sum(r.received for r in registry.log if "/blobs/" in r.path)
    assert 0 < sent <= len(data) - 2 * 2**20
    assert disk.read < len(data)
    assert data == blob(registry, f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert models.OCI_MANIFEST == json.loads(get(registry.url, WHERE, "v1")[1])["mediaType"]


def test_what_is_pushed_can_be_exported(registry, folder, tmp_path):
    """By its titles, as any other artifact."""
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=folder)
        registries.export(name_in(registry), tmp_path / "out")
    assert contents(folder) == contents(tmp_path / "out")
