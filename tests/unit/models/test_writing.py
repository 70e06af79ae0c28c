"""Manifests and configs of folders, against literals, the schema of model-spec, and each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.build import model_file
from transferkit.content.digest import Digest
from transferkit.errors import InvalidModelError, InvalidNameError
from transferkit.models.facts import Facts
from transferkit.models.reading import files_of
from transferkit.models.values import ModelFile
from transferkit.models.writing import FORMATS, draft, ollama_draft

SCHEMA = json.loads((Path(__file__).parents[2] / "vectors" / "modelpack_config_schema.json").read_text())
A, B = "sha256:" + 64 * "a", "sha256:" + 64 * "b"
WEIGHTS = ModelFile(path="model.safetensors", digest=Digest(A), size=90)
CONFIG = ModelFile(path="config.json", digest=Digest(B), size=7)
KNOWN = Facts("safetensors", "bert", "22.7M", "fp32", None)


def test_a_modelpack_manifest_to_the_byte() -> None:
    drafted = draft([WEIGHTS, CONFIG], facts=KNOWN)
    config = (
        '{"descriptor":{"family":"bert"},"config":{"architecture":"bert","format":"safetensors","paramSize":"22.7M",'
        '"precision":"fp32"},"modelfs":{"type":"layers","diffIds":["DIGEST-B","DIGEST-A"]}}'
    )
    config = config.replace("DIGEST-A", A).replace("DIGEST-B", B)
    manifest = (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        '"artifactType":"application/vnd.cncf.model.manifest.v1+json",'
        '"config":{"mediaType":"application/vnd.cncf.model.config.v1+json","digest":"sha256:CONFIG","size":SIZE},'
        '"layers":[{"mediaType":"application/vnd.cncf.model.weight.config.v1.raw","digest":"DIGEST-B","size":7,'
        '"annotations":{"org.cncf.model.filepath":"config.json","org.opencontainers.image.title":"config.json"}},'
        '{"mediaType":"application/vnd.cncf.model.weight.v1.raw","digest":"DIGEST-A","size":90,'
        '"annotations":{"org.cncf.model.filepath":"model.safetensors",'
        '"org.opencontainers.image.title":"model.safetensors"}}]}'
    )
    manifest = manifest.replace("DIGEST-A", A).replace("DIGEST-B", B).replace("SIZE", str(len(config)))
    manifest = manifest.replace("CONFIG", hashlib.sha256(config.encode()).hexdigest())

    assert config == drafted.config.decode()
    assert manifest == drafted.manifest.raw.decode()
    assert "application/vnd.oci.image.manifest.v1+json" == drafted.manifest.media_type


def test_a_kind_that_was_guessed_is_marked() -> None:
    layers = draft([model_file("odd.xyz"), model_file("README.md")]).manifest.layers

    assert [None, "true"] == [dict(layer.annotations).get("org.cncf.model.file.mediatype.untested") for layer in layers]


def test_what_annotations_say_stands_in_the_config_too() -> None:
    notes = {
        "org.opencontainers.image.version": "1.2",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.authors": "A <a@example.com>",
        "org.opencontainers.image.title": "Small",
        "team": "search",
    }
    drafted = draft([WEIGHTS], annotations=notes, created="2026-11-26T00:00:00Z")

    assert notes == drafted.manifest.annotations
    assert {
        "createdAt": "2026-11-26T00:00:00Z",
        "title": "Small",
        "version": "1.2",
        "authors": ["A <a@example.com>"],
        "licenses": ["Apache-2.0"],
    } == json.loads(drafted.config)["descriptor"]


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"facts": KNOWN},
        {"facts": Facts("gguf", "llama", "8B", None, "Q4_K_M"), "created": "2026-11-26T01:02:03.5+01:00"},
        {"annotations": {"org.opencontainers.image.vendor": "", "org.opencontainers.image.authors": "me"}},
    ],
)
def test_the_config_is_what_model_spec_allows(keywords: Mapping[str, Any]) -> None:
    jsonschema.validate(json.loads(draft([WEIGHTS, CONFIG], **keywords).config), SCHEMA)


def test_the_schema_refuses_what_model_spec_refuses() -> None:
    config = json.loads(draft([WEIGHTS]).config)
    for broken in (
        {**config, "more": 1},
        {"config": {}, "modelfs": config["modelfs"]},
        {**config, "config": {"arch": ""}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_an_artifact_as_oras_writes_it() -> None:
    drafted = draft([WEIGHTS], format="oras", annotations={"team": "search"}, created="2026-11-26T00:00:00Z")
    document = drafted.manifest.json()

    assert b"{}" == drafted.config
    assert "application/vnd.unknown.artifact.v1" == document["artifactType"]
    assert {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    } == document["config"]
    assert [{"org.opencontainers.image.title": "model.safetensors"}] == [
        one["annotations"] for one in document["layers"]
    ]
    assert {"org.opencontainers.image.created": "2026-11-26T00:00:00Z", "team": "search"} == document["annotations"]


def test_a_model_as_docker_writes_it() -> None:
    names = ["a.gguf", "chat.jinja", "config.json", "LICENSE", "mmproj-a.gguf", "z.jinja"]
    drafted = draft(
        [model_file(name) for name in names],
        format="docker",
        facts=Facts("gguf", "llama", "8B", None, "Q4_K_M"),
        created="2026-11-26T00:00:00Z",
    )
    document = drafted.manifest.json()

    assert "artifactType" not in document
    assert "application/vnd.docker.ai.model.config.v0.2+json" == document["config"]["mediaType"]
    assert {
        "LICENSE": "application/vnd.docker.ai.license",
        "a.gguf": "application/vnd.docker.ai.gguf.v3",
        "chat.jinja": "application/vnd.docker.ai.chat.template.jinja",
        "config.json": "application/vnd.docker.ai.model.file",
        "mmproj-a.gguf": "application/vnd.docker.ai.mmproj",
        "z.jinja": "application/vnd.docker.ai.model.file",
    } == {one["annotations"]["org.cncf.model.filepath"]: one["mediaType"] for one in document["layers"]}
    config = json.loads(drafted.config)
    assert {"created": "2026-11-26T00:00:00Z"} == config["descriptor"]
    assert {"type": "rootfs", "diff_ids": [one["digest"] for one in document["layers"]]} == config["rootfs"]
    assert {
        "format": "gguf",
        "quantization": "Q4_K_M",
        "parameters": "8B",
        "architecture": "llama",
        "size": "0.00MB",
    } == config["config"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_files_give_the_same_bytes_in_any_order(format: str) -> None:
    files = [model_file(name) for name in ("b/c.gguf", "a.json", "b.txt", "B2")]
    notes = {"b": "1", "a": "2"}

    assert draft(files, format=format, annotations=notes) == draft(
        files[::-1], format=format, annotations=dict(reversed(notes.items()))
    )


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read(format: str) -> None:
    files = sorted((model_file(name) for name in ("a/model.gguf", "config.json", "x", "LICENSE")), key=lambda f: f.path)
    contents = files_of(draft(files, format=format).manifest)

    assert format == contents.format
    assert [(file.path, file.digest, file.size) for file in files] == [
        (entry.path, entry.descriptor.digest, entry.descriptor.size) for entry in contents.entries
    ]


def test_a_model_for_ollama() -> None:
    names = ["model.gguf", "mmproj-model.gguf", "LICENSE", "sub/LICENSE.txt", "template", "params", "README.md"]
    files = {name: model_file(name) for name in names}
    drafted = ollama_draft(list(files.values()), Facts("gguf", "gemma3", "268.1M", None, "Q4_K_M"))
    document = drafted.manifest.json()
    prefix = "application/vnd.ollama.image."
    expected = [
        ("model", "model.gguf"),
        ("license", "LICENSE"),
        ("projector", "mmproj-model.gguf"),
        ("params", "params"),
        ("license", "sub/LICENSE.txt"),
        ("template", "template"),
    ]

    assert "application/vnd.docker.distribution.manifest.v2+json" == document["mediaType"]
    assert drafted.manifest.media_type == document["mediaType"]
    assert "application/vnd.docker.container.image.v1+json" == document["config"]["mediaType"]
    assert f"sha256:{hashlib.sha256(drafted.config).hexdigest()}" == document["config"]["digest"]
    assert [
        {"mediaType": prefix + kind, "digest": files[name].digest, "size": files[name].size} for kind, name in expected
    ] == document["layers"]
    assert {
        "model_format": "gguf",
        "model_family": "gemma3",
        "model_families": ["gemma3"],
        "model_type": "268.1M",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [files[name].digest for _, name in expected]},
    } == json.loads(drafted.config)


def test_shards_for_ollama_need_a_version_that_reads_them() -> None:
    shards = [model_file(f"m-0000{number}-of-00002.gguf") for number in (1, 2)]
    drafted = ollama_draft(shards[::-1])

    assert [shard.digest for shard in shards] == [layer.digest for layer in drafted.manifest.layers]
    assert "0.35.0" == json.loads(drafted.config)["requires"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["model.safetensors"], "there is no GGUF file"),
        (["mmproj-a.gguf"], "there is no GGUF file"),
        (["q4.gguf", "q8.gguf"], "not q4.gguf, q8.gguf; choose one with only="),
        (["m-00001-of-00002.gguf"], "all shards of one"),
        (["m-00001-of-00002.gguf", "n-00002-of-00002.gguf"], "all shards of one"),
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], "all shards of one"),
    ],
)
def test_files_that_are_no_model_for_ollama(names: list[str], reason: str) -> None:
    with pytest.raises(InvalidModelError, match=reason):
        ollama_draft([model_file(name) for name in names])


def test_no_files_make_no_manifest() -> None:
    for write in (draft, ollama_draft):
        with pytest.raises(InvalidModelError, match="there are no files"):
            write([])


def test_more_files_than_a_manifest_has_room_for() -> None:
    folder = "/".join(4 * [200 * "d"])
    files = [ModelFile(path=f"{folder}/{number}.json", digest=Digest(A), size=1) for number in range(2_500)]

    with pytest.raises(
        InvalidModelError, match=r"the manifest of 2500 files has \d+ bytes, and registries take 4194304"
    ):
        draft(files)


@pytest.mark.parametrize(
    "paths", [["../a"], ["a", "A"], ["a", "a/b"], ["con.txt"], ["\udcff.json"], ["e\u0301", "\u00e9"]]
)
def test_paths_that_not_every_system_can_have(paths: Sequence[str]) -> None:
    files = [ModelFile(path=path, digest=Digest(f"sha256:{number:064x}"), size=1) for number, path in enumerate(paths)]

    for write in (draft, ollama_draft):
        with pytest.raises(InvalidNameError):
            write(files)


@pytest.mark.parametrize("keywords", [{"format": "kitops"}, {"created": "yesterday"}, {"created": "2026-11-26"}])
def test_arguments_that_are_none(keywords: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the formats are|created is a moment"):
        draft([WEIGHTS], **keywords)


parts = st.text(st.sampled_from("aB.1-é/ \\:\udc80"), min_size=1, max_size=8)


@given(
    st.lists(st.builds(model_file, parts.filter(lambda part: "\udc80" not in part)), max_size=4),
    st.sampled_from(FORMATS),
)
@settings(max_examples=150)
def test_any_files_are_read_as_they_were_written_or_refused(files: list[ModelFile], format: str) -> None:
    try:
        drafted = draft(files, format=format)
    except (InvalidModelError, InvalidNameError):
        return
    assert {file.path for file in files} == {entry.path for entry in files_of(drafted.manifest).entries}
