"""The commands over an embedded registry: what they do, what they print, and with which exit code they end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.commands import Commands, asking_registry, folder_of
from tests.functional.models import OCI_INDEX, Model, digest_of, index_of, put_manifest, small
from transferkit.storage.disk import Disk
from transferkit.testing import FaultRule, RunningRegistry, respond, running_registry, with_faults

WEIGHTS = b"weights " * 1000


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "cache")


@pytest.fixture
def model(registry: RunningRegistry) -> str:
    """The name of a model that the registry has."""
    small().put(registry.url, "team/model", "v1")
    return f"{registry.url.removeprefix('http://')}/team/model:v1"


def test_a_model_is_pulled_and_its_name_is_pinned(commands: Commands, model: str) -> None:
    done = commands("pull", model)
    assert [f"{model}@{small().digest}"] == done.lines
    assert "model: 7.8 KiB of 7.8 KiB (100 %)" in done.err

    again = commands("pull", "--json", "-q", done.lines[0])
    fields = {"name": done.lines[0], "digest": small().digest, "media_type": small().media_type}
    assert [{"type": "pulled", **fields}] == again.objects
    assert "" == again.err


def test_the_files_of_a_model_come_into_a_folder(commands: Commands, model: str, tmp_path: Path) -> None:
    name = model.replace("model:v1", "files:v1")
    source = folder_of(tmp_path / "source", config_json=b"{}", weights_bin=WEIGHTS)
    pushed = commands("push", name, "--folder", source, "--annotation", "org.example=1", "--exclude", "*.md", "--json")
    (said,) = pushed.objects
    assert ("pushed", name) == (said["type"], said["name"])

    done = commands("pull", name, "--to", tmp_path / "here", "--only", "*.bin", "--link", "copy")
    assert [str(tmp_path / "here")] == done.lines
    assert "1 file written, 0 kept" in done.err
    assert WEIGHTS == (tmp_path / "here" / "weights.bin").read_bytes()
    (said,) = commands("pull", name, "--to", tmp_path / "here", "--only", "*.bin", "--json").objects
    assert ("folder", [], ["weights.bin"], "modelpack") == tuple(
        said[key] for key in ("type", "written", "kept", "format")
    )

    (tmp_path / "here" / "weights.bin").write_bytes(b"mine")
    refused = commands("pull", name, "--to", tmp_path / "here", "--only", "*.bin", code=1)
    assert "weights.bin" in refused.err
    assert "--overwrite" in refused.err
    commands("pull", name, "--to", tmp_path / "here", "--only", "*.bin", "--overwrite")
    assert WEIGHTS == (tmp_path / "here" / "weights.bin").read_bytes()


def test_resolve_prints_a_path_and_nothing_else(commands: Commands, model: str, tmp_path: Path) -> None:
    name = model.replace("model:v1", "files:v1")
    source = folder_of(tmp_path / "source", config_json=b"{}", weights_bin=WEIGHTS)
    commands("push", name, "--folder", source)
    done = commands("resolve", name)
    (path,) = done.lines
    assert ["config.json", "weights.bin"] == sorted(os.listdir(path))
    assert [{"type": "path", "name": name, "path": path}] == commands("resolve", name, "--offline", "--json").objects


def test_files_are_pushed_as_an_artifact_and_a_model_of_the_cache_by_its_name(
    commands: Commands, model: str, registry: RunningRegistry, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    host = registry.url.removeprefix("http://")
    done = commands("push", f"{host}/team/data:v1", "--file", tmp_path / "a.bin", "--artifact-type", "application/x.y")
    (shown,) = commands("show", done.lines[0], "--json").objects
    assert ("registry", [(1, "a.bin")]) == (
        shown["source"],
        [(each["size"], each["title"]) for each in shown["layers"]],
    )
    commands("pull", model)
    assert [f"{host}/team/again:v2@{small().digest}"] == commands(
        "push", f"{host}/team/again:v2", "--from", model
    ).lines
    assert ["v2"] == commands("tags", f"{host}/team/again").lines


def test_what_is_pulled_by_its_digest_alone_gets_no_tag(commands: Commands, model: str) -> None:
    name = f"{model.removesuffix(':v1')}@{small().digest}"
    assert [name] == commands("pull", name).lines
    assert [name] == commands("pull", "-q", name).lines, "what was printed names it again"
    assert [] == commands("ls", "-q").lines
    wrong = name.replace(small().digest, f"sha256:{64 * 'a'}")
    assert f'"{wrong[:-52]}" not found' in commands("pull", wrong, code=3).err


def test_a_model_is_copied_between_registries(commands: Commands, model: str) -> None:
    with running_registry() as other:
        target = f"{other.url.removeprefix('http://')}/mirror/model:v1"
        done = commands("copy", model, target, "--json")
        assert [{"type": "copied", "name": target, "source": model, "digest": small().digest}] == [
            {key: value for key, value in each.items() if key != "media_type"} for each in done.objects
        ]
        assert [{"type": "tag", "tag": "v1"}] == commands("tags", target, "--json").objects


def test_a_cache_whose_models_cannot_be_read_is_not_an_empty_one(
    commands: Commands, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands("pull", "-q", model)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/manifests"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for words in (["ls"], ["show", model], ["pull", model], ["rm", model]):
        done = commands(*words, code=1)
        assert "" == done.out
        assert f"error: reading {commands.cache}/manifests failed: Permission denied" in done.err
    assert f"its models are not seen: reading {commands.cache}/manifests failed" in commands("doctor", code=1).out


def test_what_the_cache_has_is_listed_shown_and_removed(commands: Commands, model: str) -> None:
    empty = commands("ls")
    assert ("", f"no models in {commands.cache}; transferkit pull NAME brings one\n") == (empty.out, empty.err)
    commands("pull", "-q", model)
    head, line = commands("ls").lines
    assert ["NAME", "DIGEST", "SIZE", "PULLED"] == head.split()
    assert [model, small().digest[7:19], "8.5", "KiB", "less", "than", "a", "minute", "ago"] == line.split()
    (listed,) = commands("ls", "--json").objects
    # The blobs, and the manifest, which is one as well.
    size = sum(map(len, small().blobs)) + len(small().raw)
    assert ("model", model, small().digest, size, []) == tuple(
        listed[key] for key in ("type", "name", "digest", "size", "missing")
    )
    assert [model] == commands("ls", "-q", f"*{model[-8:]}").lines
    assert [] == commands("ls", "-q", "another*").lines

    shown = commands("show", model)
    assert f"digest   {small().digest}" in shown.out
    assert "(config)" in shown.out
    (fields,) = commands("show", "--json", model).objects
    assert ("manifest", "cache", 2) == (fields["type"], fields["source"], len(fields["layers"]))
    raw = commands("show", "--raw", model)
    assert small().raw == raw.out.encode()

    assert [model] == commands("rm", model).lines
    gone = commands("rm", model, code=3)
    assert f"error: not in {commands.cache}: {model}; transferkit ls lists what is\n" == gone.err


def test_a_name_of_ollamas_library_is_listed_as_it_is_typed(commands: Commands) -> None:
    with tk.DiskCache(commands.cache) as cache:
        cache.link("smollm:135m", small().raw)
    assert ["smollm:135m"] == commands("ls", "-q", "smol*").lines
    (listed,) = commands("ls", "--json").objects
    assert "registry.ollama.ai/library/smollm:135m" == listed["name"]
    assert sorted(map(digest_of, small().blobs)) == sorted(listed["missing"])
    assert "3 blobs missing" in commands("ls").out


def test_of_an_index_a_platform_is_shown_and_pulled(commands: Commands, registry: RunningRegistry) -> None:
    one, two = Model([b"one"]), Model([b"two"])
    for each in (one, two):
        each.put(registry.url, "team/index", "parts")
    put_manifest(registry.url, "team/index", "v1", index_of((one, "linux/amd64"), (two, "linux/arm64")), OCI_INDEX)
    name = f"{registry.url.removeprefix('http://')}/team/index:v1"
    shown = commands("show", name)
    assert [["linux/amd64", one.digest[7:19]], ["linux/arm64", two.digest[7:19]]] == [
        [line.split()[0], line.split()[3]] for line in shown.lines if line.startswith("linux/")
    ]
    (said,) = commands("show", name, "--platform", "linux/arm64", "--json").objects
    assert two.digest == said["digest"]
    assert commands("show", name, "--raw").out == commands("show", name, "--raw", "--platform", "all").out
    assert [f"{name}@{one.digest}"] == commands("pull", name, "--platform", "linux/amd64").lines
    missing = commands("pull", name, "--platform", "plan9/mips", code=1)
    assert "nothing for plan9/mips" in missing.err
    assert "--platform" in missing.err
    assert "platform=" not in missing.err


def test_plans_tell_what_would_move(
    commands: Commands, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = commands("plan", "pull", model, "--json").objects
    size = sum(map(len, small().blobs))
    assert ("pull-plan", 3, 0, size, True) == tuple(
        before[key] for key in ("type", "blobs", "present", "bytes", "fits")
    )
    commands("pull", "-q", model)
    assert commands("plan", "pull", model).out.startswith("3 blobs, 3 here; 0 B to fetch; 0 B of disk needed, ")

    source = folder_of(tmp_path / "source", weights_bin=WEIGHTS)
    name = model.replace("model:v1", "new:v1")
    (plan,) = commands("plan", "push", name, "--folder", source, "--json").objects
    assert ("push-plan", ["weights.bin"], 0) == (plan["type"], plan["files"], plan["present"])
    assert plan["bytes"] >= len(WEIGHTS)

    monkeypatch.setattr(Disk, "free", lambda *_: 10)
    full = Commands(tmp_path / "full")("plan", "pull", model, code=7)
    assert f"error: no room for {model} in {tmp_path / 'full'}: " in full.err


def test_wrong_and_missing_blobs_are_listed_and_mended(commands: Commands, model: str) -> None:
    commands("pull", "-q", model)
    good = commands("verify", model)
    assert ("", True) == (good.out, "8.5 KiB verified, and all of it is right" in good.err)
    weights, licence = (
        commands.cache / "blobs" / f"sha256-{hashlib.sha256(each).hexdigest()}" for each in small().layers
    )
    weights.chmod(0o644)
    weights.write_bytes(b"x" * len(WEIGHTS))
    licence.unlink()
    bad = commands("verify", "--json", code=6)
    states = {each["digest"]: each["state"] for each in bad.objects if each["type"] == "blob"}
    assert {digest_of(WEIGHTS): "wrong", digest_of(small().layers[1]): "missing"} == states
    assert bad.objects[-1]["type"] == "error"
    assert "1 wrong and 1 missing" in bad.err
    assert f"transferkit verify --repair --cache {commands.cache}" in bad.err

    mended = commands("verify", "--repair", model)
    assert sorted(f"{digest}   repaired" for digest in states) == sorted(mended.lines)
    assert WEIGHTS == weights.read_bytes()
    commands("verify")


def test_garbage_is_listed_and_then_removed(commands: Commands) -> None:
    with tk.DiskCache(commands.cache) as cache:
        digest = cache.put(b"nobody names it").digest
    kept = commands("gc")
    assert [] == kept.lines, "it is younger than an hour"
    assert "1 blob, 15 B of no model stay: they are new" in kept.err
    planned = commands("gc", "--dry-run", "--grace", "0", "--json").objects
    assert [("garbage", digest, 15, False)] == [
        tuple(each[key] for key in ("type", "digest", "size", "removed")) for each in planned
    ]
    done = commands("gc", "--grace", "0")
    assert [["15", "B", planned[0]["path"]]] == [line.split() for line in done.lines]
    assert "1 blob, 15 B freed" in done.err
    assert not os.path.exists(planned[0]["path"])


def test_what_interrupted_transfers_have_left_is_listed_and_discarded(commands: Commands) -> None:
    digest = digest_of(WEIGHTS)
    partial = commands.cache / "blobs" / ".partial"
    partial.mkdir(parents=True)
    (partial / digest.replace(":", "-")).write_bytes(b"half")
    (said,) = commands("partials", "--json").objects
    assert ("partial", digest, False) == (said["type"], said["digest"], said["removed"])
    for folder in (commands.cache / "blobs", commands.cache):
        assert digest in commands("partials", folder).out
    (commands.cache / "pulled").mkdir()
    (commands.cache / "blobs").rename(pulled := commands.cache / "pulled" / ".transferkit")
    assert digest in commands("partials", pulled.parent).out
    pulled.rename(commands.cache / "blobs")
    assert [] == commands("partials", "--older-than", "1h", "-q").lines
    assert [] == commands("partials", "--discard", "-q").lines, "nobody has removed what is younger than a day"
    (said,) = commands("partials", "--discard", "--older-than", "0", "--digest", digest, "--json").objects
    assert said["removed"]
    assert [] == os.listdir(partial) or digest.replace(":", "-") not in os.listdir(partial)
    assert 2 == commands("partials", "--digest", "sha256:no", code=2).code


# -- failures


def test_what_is_not_there_is_exit_code_3(commands: Commands, model: str) -> None:
    done = commands("pull", f"{model}x", "--json", code=3)
    (said,) = done.objects
    assert ("error", "ManifestNotFoundError", 3, False) == tuple(
        said[key] for key in ("type", "error", "exit_code", "retryable")
    )
    (line,) = done.err.splitlines()
    assert f'error: model "{model}x" not found: ' in line
    assert said["message"] == line.removeprefix("error: ")


def test_who_may_not_is_exit_code_4_and_told_how_to_log_in(commands: Commands) -> None:
    with asking_registry("ann", "secret") as registry:
        host = registry.url.removeprefix("http://")
        done = commands("pull", f"{host}/team/model:v1", code=4)
        assert f"transferkit login {host}" in done.err
        assert "auth=" not in done.err


def test_a_registry_that_is_down_is_exit_code_5(commands: Commands) -> None:
    (said,) = commands("pull", "127.0.0.1:1/team/model:v1", "--patience", "0", "--json", "-q", code=5).objects
    assert ("ConnectError", 5, True) == (said["error"], said["exit_code"], said["retryable"])
    assert said["attempts"] > 1


def test_content_that_is_not_what_was_pinned_is_exit_code_6(commands: Commands) -> None:
    raw = small().raw
    rule = FaultRule(respond(200, raw + b" "), method="GET", path="/manifests/")
    with running_registry(middleware=lambda app: with_faults(app, rule)) as registry:
        name = f"{registry.url.removeprefix('http://')}/team/model@{digest_of(raw)}"
        (said,) = commands("pull", name, "--patience", "0", "--json", code=6).objects
    assert "DigestMismatchError" == said["error"]


def test_some_blobs_that_fail_are_exit_code_8_each_with_its_reason(commands: Commands) -> None:
    rule = FaultRule(respond(404), method="GET", path=digest_of(WEIGHTS))
    with running_registry(middleware=lambda app: with_faults(app, rule)) as registry:
        small().put(registry.url, "team/model", "v1")
        name = f"{registry.url.removeprefix('http://')}/team/model:v1"
        (said,) = commands("pull", name, "--json", "--patience", "0", code=8).objects
    assert [(digest_of(WEIGHTS), "BlobNotFoundError")] == [(each["digest"], each["error"]) for each in said["failures"]]


def test_offline_what_the_cache_lacks_is_said_in_words_of_the_command_line(commands: Commands) -> None:
    done = commands("tags", "--offline", "smollm")
    assert ("", "") == (done.out, done.err)
    assert 3 == commands("show", "--offline", "smollm:135m", code=3).code
    copy = commands("pull", "--offline", "hf://org/model", "--to", commands.cache / "x", code=5)
    assert "--offline" in copy.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pull", "smollm", "--only", "*"), "--only is for the files of a folder: add --to DIR"),
        (("pull", "hf://org/model"), "a pull from the hub needs --to DIR"),
        (("pull", "a//b c"), "invalid or missing name"),
        (("push", "smollm", "--format", "oras"), "--format goes with --folder DIR"),
        (("push", "smollm", "--from", "a", "--folder", "."), "give one of them"),
        (("push", "smollm", "--annotation", "a=b"), "--annotation goes with --folder or --file"),
        (("push", "smollm", "--annotation", "ab", "--folder", "."), "'ab' is no KEY=VALUE"),
        (("push", "smollm", "--artifact-type", "a/b"), "--artifact-type goes with --file PATH"),
        (("copy", "a", "b", "--only", "*"), "--only is for a repository of the hub"),
        (("pull", "a", "--to", ""), "it is empty; write . for this folder"),
        (("--cache", "", "gc"), "it is empty; write . for this folder"),
        (("partials", "/none/there"), "'/none/there' does not exist"),
        (("pull", "a", "--bandwidth", "0"), "it is at least 1 byte"),
        (("pull", "a", "--bandwidth", 400 * "9"), "less than 8 EiB"),
        (("pull", "a", "--stall-timeout", "0"), "it is more than 0 seconds"),
        (("tags", "hf://org/model"), "hf:// is for pull --to DIR, plan pull, and the source of copy"),
        (("list",), "there is no command 'list'. Did you mean ls?"),
        (("images",), "Did you mean ls?"),
        (("download", "smollm"), "Did you mean pull?"),
        (("plan", "smollm"), "there is no command 'smollm'. transferkit plan has pull and push."),
        (("pull", "smollm", "--bandwidth", "fast"), "'fast' is no size"),
        (("gc", "--grace", "soon"), "'soon' is no time"),
        (("puhs", "smollm"), "there is no command 'puhs'. Did you mean push"),
        (("ls", "--jsn"), "No such option"),
        (("plan", "pul", "x"), "there is no command 'pul'. Did you mean pull"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(commands: Commands, arguments: tuple[str, ...], said: str) -> None:
    done = commands(*arguments, code=2)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert "" == done.out
    (fields,) = commands(*arguments, "--json", code=2).objects
    assert ("error", 2) == (fields["type"], fields["exit_code"])


def test_verbose_logs_and_quiet_does_not(commands: Commands, model: str) -> None:
    assert "DEBUG" in commands("pull", "-vv", model).err
    commands("rm", "-q", model)
    done = commands("pull", model, "-q")
    assert "" == done.err
    assert json.loads(commands("ls", "--json").out)["schema"] == "transferkit/1"


@pytest.mark.parametrize("title", ["../x", "C:x", "a/../../x"])
def test_a_title_that_leads_elsewhere_is_not_the_command_lines_fault(
    commands: Commands, registry: RunningRegistry, tmp_path: Path, title: str
) -> None:
    annotations = [{"org.opencontainers.image.title": "weights"}, {"org.opencontainers.image.title": title}]
    model = Model([b"weights", b"x"], types=[], annotations=annotations)
    model.put(registry.url, "team/hostile", "v1")
    name = f"{registry.url.removeprefix('http://')}/team/hostile:v1"

    refused = commands("pull", name, "--to", tmp_path / "here", code=1)

    assert f"the title {title!r} is refused" in refused.err
    assert not (tmp_path / "x").exists()
    commands("pull", "not a name", code=2)
