"""Models by name between real registries and real clients: docker-registry, skopeo and the Python oras.

What is expected is computed here with hashlib, or said by one of them: nothing of the library judges itself.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oras.client
import pytest

import transferkit as tk
from tests.integration import test_secured_registries as secured
from transferkit.options import HostOptions
from transferkit.registry import Registry
from transferkit.storage.layout import OCILayout

pytestmark = pytest.mark.integration

guarded_registry = secured.guarded_registry
run_token_registry = secured.run_token_registry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
TITLE = "org.opencontainers.image.title"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def is_stored(folder: Path) -> bool:
    """Tell whether each blob of a store is what its name says."""
    paths = list((folder / "blobs").glob("sha256-*"))
    return bool(paths) and all(sha256_of(path) == path.name.replace("-", ":") for path in paths)


# -- registries of all kinds


@dataclass
class Place:
    """A registry, and what it takes to speak to it."""

    authority: str
    keywords: dict[str, Any]
    stores_empty: bool
    """docker-registry 2 answers the end of an empty upload with 500 where its files are in an S3 store."""


@pytest.fixture(params=["plain", "htpasswd", "token", "tls", "s3"])
def place(request: pytest.FixtureRequest, certificate_authority: Any, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        keywords: dict[str, Any] = {}
        if request.param == "plain":
            running = request.getfixturevalue("docker_registry")
        elif request.param == "htpasswd":
            running, keywords = request.getfixturevalue("guarded_registry"), {"auth": secured.USER}
        elif request.param == "token":
            run = request.getfixturevalue("run_token_registry")
            (running, _), keywords = stack.enter_context(run()), {"auth": secured.USER}
        elif request.param == "tls":
            running = request.getfixturevalue("tls_registry")
            bundle = tmp_path / "bundle.pem"
            certificate_authority.cert_pem.write_to_path(str(bundle))
            keywords = {"hosts": {running.authority: HostOptions(ca_bundle=str(bundle))}}
        else:
            storage = request.getfixturevalue("s3_store").storage("client")
            run = request.getfixturevalue("run_docker_registry")
            running = stack.enter_context(run(tmp_path / "s3-server", storage=storage))
        yield Place(running.authority, keywords, request.param != "s3")


@pytest.mark.xdist_group("s3")
def test_files_go_by_name_and_come_back(place: Place, tmp_path: Path) -> None:
    contents = {"weights.bin": bytes(range(256)) * 80_000, "config.json": b"{}"}
    if place.stores_empty:
        contents["empty"] = b""
    for title, content in contents.items():
        (tmp_path / title).write_bytes(content)
    name = f"{place.authority}/library/model:v1"
    with Registry(cache=tmp_path / "cache", **place.keywords) as registry:
        pushed = registry.push(name, files=[tmp_path / title for title in contents])
        paths = registry.export(name, tmp_path / "out")
        copied = registry.copy(name, f"{place.authority}/library/copy:v2")
        tags = registry.tags(f"{place.authority}/library/copy")
        with Registry(cache=tmp_path / "other", **place.keywords) as another:
            pulled = another.pull(f"{place.authority}/library/copy:v2")
        with pytest.raises(tk.ManifestNotFoundError, match=r'model ".*/library/model:v2" not found'):
            registry.resolve(f"{place.authority}/library/model:v2")
    assert {title: Path(path).read_bytes() for title, path in paths.items()} == contents
    assert pushed.raw == copied.raw == pulled.raw
    assert (tags, is_stored(tmp_path / "cache"), is_stored(tmp_path / "other")) == (["v2"], True, True)


def test_a_registry_behind_another_one_is_pulled_from(
    docker_registry: Any, run_docker_registry: Any, tmp_path: Path
) -> None:
    """docker-registry as a pull-through cache, which stores what it is asked for."""
    (tmp_path / "file").write_bytes(b"content " * 10_000)
    with (
        Registry(cache=tmp_path / "cache") as registry,
        run_docker_registry(tmp_path / "proxy", proxy={"remoteurl": docker_registry.url}) as proxy,
    ):
        pushed = registry.push(f"{docker_registry.authority}/library/model:v1", files=[tmp_path / "file"])
        pulled = registry.pull(f"{proxy.authority}/library/model:v1")
    assert pulled.raw == pushed.raw
    assert is_stored(tmp_path / "cache")


# -- a real model


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_model_as_ollama_has_it_is_pulled_and_copied_between_registries(
    docker_registry: Any, run_docker_registry: Any, minilm: Path, tmp_path: Path
) -> None:
    config, licence = b'{"model_format":"safetensors","model_type":"22M"}', b"Apache License, Version 2.0\n" * 100
    size = minilm.stat().st_size
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": sha256_of(minilm), "size": size},
        described(licence, "application/vnd.ollama.image.license"),
    ]
    docker_config = described(config, "application/vnd.docker.container.image.v1+json")
    document = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": docker_config, "layers": layers}
    raw = json.dumps(document).encode()
    blobs = {docker_config["digest"], *(layer["digest"] for layer in layers)}
    name = f"{docker_registry.authority}/library/minilm:22m"
    with Registry(cache=tmp_path / "first") as registry:
        registry.cache.import_file(minilm)
        registry.cache.put(config)
        registry.cache.put(licence)
        registry.cache.link(name, raw)
        registry.push(name)
    assert {digest: sha256_of(path) for digest, path in docker_registry.blobs().items()} == {
        digest: digest for digest in {*blobs, digest_of(raw)}
    }
    with Registry(cache=tmp_path / "second") as registry, run_docker_registry(tmp_path / "server") as other:
        pulled = registry.pull(name)
        copied = registry.copy(name, f"{other.authority}/me/minilm:22m")
        assert pulled.raw == copied.raw == raw
        assert sha256_of(registry.cache.path(pulled.layers[0].digest)) == layers[0]["digest"]
        assert {digest: sha256_of(path) for digest, path in other.blobs().items()} == {
            digest: digest for digest in {*blobs, digest_of(raw)}
        }
        assert other.links("me/minilm") == blobs
    path = tmp_path / "second" / "manifests" / docker_registry.authority / "library" / "minilm" / "22m"
    assert (path.read_bytes(), is_stored(tmp_path / "second")) == (raw, True)


# -- skopeo


@dataclass
class Image:
    """An image that a program can take apart: its layer is a tar file with one file."""

    config: bytes
    layer: bytes

    @property
    def manifest(self) -> bytes:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(self.config, OCI_CONFIG),
            "layers": [described(self.layer, OCI_LAYER)],
        }
        return json.dumps(document).encode()


def image(content: bytes, architecture: str = "amd64") -> Image:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    plain = packed.getvalue()
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
    }
    return Image(json.dumps(document).encode(), gzip.compress(plain, mtime=0))


def layout(folder: Path, *images: Image, architectures: tuple[str, ...] = ()) -> Path:
    """Write an image layout, with nothing of the library; of several images it has an index, as ``v1``."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    contents = [content for each in images for content in (each.config, each.layer, each.manifest)]
    root = described(images[0].manifest, OCI_MANIFEST)
    if architectures:
        manifests = [
            described(each.manifest, OCI_MANIFEST, platform={"os": "linux", "architecture": architecture})
            for each, architecture in zip(images, architectures, strict=True)
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
        contents.append(index)
        root = described(index, OCI_INDEX)
    for content in contents:
        (blobs / digest_of(content)[7:]).write_bytes(content)
    root["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    return folder


INTO = ("copy", "-q", "--dest-tls-verify=false")
OUT_OF = ("copy", "-q", "--src-tls-verify=false")


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_that_skopeo_writes_is_pulled_and_pushed_for_skopeo(
    docker_registry: Any, skopeo: Callable[..., str], tmp_path: Path, form: str
) -> None:
    made = image(b"content " * 50_000)
    where = f"{docker_registry.authority}/library/image"
    skopeo(*INTO, "--format", form, f"oci:{layout(tmp_path / 'layout', made)}:v1", f"docker://{where}:v1")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{where}:v1").encode()
    with Registry(cache=tmp_path / "cache") as registry:
        pulled = registry.pull(f"{where}:v1")
        assert sha256_of(registry.cache.path(pulled.layers[0].digest)) == digest_of(made.layer)
        registry.push(f"{docker_registry.authority}/me/image:v2", source=f"{where}:v1")
        registry.copy(f"{where}:v1", f"{docker_registry.authority}/me/copy:v3")
    assert pulled.raw == raw
    assert pulled.media_type == (OCI_MANIFEST if form == "oci" else DOCKER_MANIFEST)
    for name in ("me/image:v2", "me/copy:v3"):
        target = tmp_path / name.replace("/", "-")
        skopeo(*OUT_OF, f"docker://{docker_registry.authority}/{name}", f"dir:{target}")
        assert (target / "manifest.json").read_bytes() == raw
        assert sha256_of(target / digest_of(made.layer)[7:]) == digest_of(made.layer)


def test_an_index_of_two_platforms_goes_both_ways(
    docker_registry: Any, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    images = image(b"amd64"), image(b"arm64", "arm64")
    made = layout(tmp_path / "layout", *images, architectures=("amd64", "arm64"))
    where = f"{docker_registry.authority}/library/image"
    skopeo(*INTO, "--all", f"oci:{made}:v1", f"docker://{where}:v1")
    with Registry(cache=tmp_path / "cache") as registry:
        one = registry.pull(f"{where}:v1", platform="linux/arm64")
        assert one.raw == images[1].manifest
        everything = registry.pull(f"{where}:v1", platform="all")
        assert [entry.digest for entry in everything.manifests] == [digest_of(each.manifest) for each in images]
        registry.push(f"{docker_registry.authority}/me/image:v1", source=f"{where}:v1")
        registry.copy(f"{where}:v1", f"{docker_registry.authority}/me/copy:v1")
    assert is_stored(tmp_path / "cache")
    for repository in ("me/image", "me/copy"):
        target = tmp_path / repository.replace("/", "-")
        skopeo(*OUT_OF, "--all", f"docker://{docker_registry.authority}/{repository}:v1", f"oci:{target}:v1")
        for each in images:
            for content in (each.manifest, each.config, each.layer):
                assert (target / "blobs" / "sha256" / digest_of(content)[7:]).read_bytes() == content


def test_a_layout_is_copied_into_a_registry_and_out_of_it(
    docker_registry: Any, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    made = image(b"content")
    where = f"{docker_registry.authority}/library/image"
    with Registry(cache=tmp_path / "cache") as registry:
        registry.copy(OCILayout(layout(tmp_path / "layout", made)).at("v1"), f"{where}:v1")
        registry.copy(f"{where}:v1", OCILayout(tmp_path / "ours").at("v2"))
    skopeo(*OUT_OF, f"docker://{where}:v1", f"oci-archive:{tmp_path / 'theirs.tar'}:v1")
    skopeo("copy", "-q", f"oci:{tmp_path / 'ours'}:v2", f"dir:{tmp_path / 'taken'}")
    assert (tmp_path / "taken" / "manifest.json").read_bytes() == made.manifest
    with Registry(cache=tmp_path / "cache") as registry:
        registry.copy(OCILayout(tmp_path / "theirs.tar").at("v1"), f"{docker_registry.authority}/me/image:v3")
    said = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{docker_registry.authority}/me/image:v3")
    assert said.encode() == made.manifest


def test_signatures_are_copied_to_a_registry_that_has_no_list_of_them(
    docker_registry: Any, run_docker_registry: Any, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    """docker-registry 2 answers referrers with 404: they are found by a tag."""
    model, signature = image(b"content"), image(b"signature")
    document = json.loads(signature.manifest)
    document["subject"] = described(model.manifest, OCI_MANIFEST)
    raw = json.dumps(document).encode()
    source = OCILayout(layout(tmp_path / "layout", model))
    for content in (signature.config, signature.layer, raw):
        source.put(content)
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    index["manifests"].append(described(raw, OCI_MANIFEST))
    (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
    name = f"{docker_registry.authority}/library/image:v1"
    with Registry(cache=tmp_path / "cache") as registry, run_docker_registry(tmp_path / "server") as other:
        registry.copy(source.at("v1"), name, referrers=True)
        registry.copy(name, f"{other.authority}/library/image:v1", referrers=True)
        found = registry.referrers(f"{other.authority}/library/image:v1")
        tag = digest_of(model.manifest).replace(":", "-")
        said = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{other.authority}/library/image:{tag}")
        assert digest_of(signature.layer) in other.blobs()
    assert [each.digest for each in found] == [digest_of(raw)]
    assert [entry["digest"] for entry in json.loads(said)["manifests"]] == [digest_of(raw)]


# -- the Python oras


def test_files_that_oras_pushes_are_exported(docker_registry: Any, tmp_path: Path, monkeypatch: Any) -> None:
    client = oras.client.OrasClient(insecure=True)
    contents = {"a.bin": bytes(range(256)) * 1000, "b.json": b"{}"}
    monkeypatch.chdir(tmp_path)
    for title, content in contents.items():
        (tmp_path / title).write_bytes(content)
    name = f"{docker_registry.authority}/library/files:v1"
    client.push(target=name, files=list(contents), quiet=True)
    with Registry(cache=tmp_path / "cache") as registry:
        paths = registry.export(name, tmp_path / "out")
    assert {title: Path(path).read_bytes() for title, path in paths.items()} == contents


def test_files_that_are_pushed_are_pulled_by_oras(docker_registry: Any, tmp_path: Path) -> None:
    client = oras.client.OrasClient(insecure=True)
    contents = {"a.bin": bytes(range(256)) * 1000, "b.json": b"{}"}
    for title, content in contents.items():
        (tmp_path / title).write_bytes(content)
    name = f"{docker_registry.authority}/library/files:v1"
    with Registry(cache=tmp_path / "cache") as registry:
        registry.push(name, files=[tmp_path / title for title in contents], artifact_type="application/vnd.example")
    pulled = client.pull(target=name, outdir=str(tmp_path / "out"))
    assert {Path(path).name: Path(path).read_bytes() for path in pulled} == contents
