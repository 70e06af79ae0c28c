"""Folders that are pushed to a registry that nobody here wrote, and read by the clients of others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oras.client
import pytest

from tests.integration.conftest import missing, sha256
from transferkit.registry import Registry

pytestmark = pytest.mark.integration

WHERE = "team/model"
CONTENTS = {
    "README.md": b"# A model\n",
    "config.json": b'{"model_type": "llama"}',
    "tokenizer/vocab.txt": b"a\nb\n",
    "weights.bin": bytes(range(256)) * 4000,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    for path, content in CONTENTS.items():
        (folder / path).write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["modelpack", "oras", "docker"])
def test_a_folder_that_was_pushed_is_pulled_by_oras_and_copied_unchanged_by_skopeo(
    docker_registry: Any, skopeo: Callable[..., str], folder: Path, tmp_path: Path, form: str
) -> None:
    client = oras.client.OrasClient(insecure=True)
    name = f"{docker_registry.authority}/{WHERE}:v1"
    with Registry(cache=tmp_path / "cache") as registry:
        raw = registry.push(name, folder=folder, format=form).raw
    client.pull(target=name, outdir=str(tmp_path / "out"))
    assert CONTENTS == files_in(tmp_path / "out")
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path / 'copy'}")
    assert raw == (tmp_path / "copy" / "manifest.json").read_bytes()
    for layer in json.loads(raw)["layers"]:
        assert layer["digest"] == f"sha256:{sha256(tmp_path / 'copy' / layer['digest'][7:])}"


def test_a_manifest_for_ollama_is_there_as_its_client_asks_for_it(
    docker_registry: Any, skopeo: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    """skopeo itself copies no layers of Ollama's types: it only shows what the registry has."""
    (folder / "model.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    name = f"{docker_registry.authority}/{WHERE}:v1"
    with Registry(cache=tmp_path / "cache") as registry:
        pushed = registry.push(name, folder=folder, ollama=True)
    shown = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}-ollama"))
    assert "application/vnd.docker.distribution.manifest.v2+json" == shown["mediaType"]
    (model,) = [each for each in shown["layers"] if each["mediaType"] == "application/vnd.ollama.image.model"]
    assert f"sha256:{sha256(folder / 'model.gguf')}" == model["digest"]
    assert model["digest"] in {layer.digest for layer in pushed.layers}


def test_ramalama_takes_what_it_fetches_for_a_model(docker_registry: Any, folder: Path, tmp_path: Path) -> None:
    try:
        from ramalama.transports.oci.oci_artifact import OCIRegistryClient
        from ramalama.transports.oci.spec import Manifest
    except ImportError:
        missing("ramalama is missing", "install the extra test")
    with Registry(cache=tmp_path / "cache") as registry:
        pushed = registry.push(f"{docker_registry.authority}/{WHERE}:v1", folder=folder)
    client = OCIRegistryClient(docker_registry.authority, WHERE, "v1")
    client.base_url = f"{docker_registry.url}/v2/{WHERE}"  # it speaks TLS to all of them
    document, digest = client.get_manifest()
    assert (pushed.digest, sorted(CONTENTS)) == (
        digest,
        [layer.filepath() for layer in Manifest.from_dict(document).layers],
    )


def test_a_signature_is_found_where_there_is_no_list_of_referrers(
    docker_registry: Any, skopeo: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    """docker-registry 2.8 says nothing of the subject, and has the tag that we write."""
    name = f"{docker_registry.authority}/{WHERE}:v1"
    with Registry(cache=tmp_path / "cache") as registry:
        pushed = registry.push(name, folder=folder, sign=lambda manifest: b'{"signed": true}')
        (found,) = registry.referrers(name)
        again = registry.push(name, folder=folder, sign=lambda manifest: b'{"signed": "again"}')
        both = registry.referrers(name)
    tag = pushed.digest.replace(":", "-")
    listed = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{docker_registry.authority}/{WHERE}:{tag}")
    entries = json.loads(listed)["manifests"]
    assert pushed.raw == again.raw
    assert [each.digest for each in both] == [entry["digest"] for entry in entries]
    assert (2, found.digest) == (len(entries), entries[0]["digest"])
    assert {"application/vnd.dev.sigstore.bundle.v0.3+json"} == {entry["artifactType"] for entry in entries}


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_is_pushed_from_where_it_lies(docker_registry: Any, minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    folder.mkdir()
    try:
        os.link(minilm, folder / "model.safetensors")
    except OSError:  # another file system
        (folder / "model.safetensors").write_bytes(minilm.read_bytes())
    (folder / "config.json").write_bytes(b'{"model_type": "bert"}')
    name = f"{docker_registry.authority}/{WHERE}:22m"
    with Registry(cache=tmp_path / "cache") as registry:
        pushed = registry.push(name, folder=folder)
        plan = registry.plan_push(name, folder=folder)
    config = json.loads(docker_registry.blobs()[pushed.config.digest].read_bytes())
    # 22,713,216 parameters, says the card of all-MiniLM-L6-v2; the file has 512 position ids beside them, as integers.
    assert ("safetensors", "bert", "22.7M", "fp32") == tuple(
        config["config"][key] for key in ("format", "architecture", "paramSize", "precision")
    )
    assert (3, 0) == (plan.present, plan.bytes)
    assert sha256(docker_registry.blobs()[pushed.layers[1].digest]) == pushed.layers[1].digest[7:] == sha256(minilm)
    assert not list((tmp_path / "cache" / "blobs").glob("sha256-*"))
