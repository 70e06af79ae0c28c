"""How to test code of one's own without a registry: ``responses`` answers in its place.

For a conversation with uploads, retries or a broken network there is
``transferkit.testing``: examples/test_pipeline.py.
"""

import hashlib
import json

import pytest
import responses

import transferkit as tk

URL = "https://registry.example.com/v2/team/model"
WEIGHTS = b"weights"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest_of(files: dict[str, bytes]) -> bytes:
    """Write a manifest as ORAS does: a layer for each file, titled with its name."""
    described = [
        {
            "mediaType": "application/octet-stream",
            "digest": digest_of(content),
            "size": len(content),
            "annotations": {"org.opencontainers.image.title": title},
        }
        for title, content in files.items()
    ]
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "layers": described}
    ).encode()


@responses.activate
def test_a_model_is_pulled(tmp_path):
    media_type = "application/vnd.oci.image.manifest.v1+json"
    responses.get(
        f"{URL}/manifests/v1",
        manifest_of({"model.bin": WEIGHTS}),
        content_type=media_type,
    )
    responses.get(f"{URL}/blobs/{digest_of(WEIGHTS)}", WEIGHTS)

    with tk.Registry(cache=tmp_path / "cache") as registry:
        report = registry.pull(
            "registry.example.com/team/model:v1", to=tmp_path / "model"
        )

    assert report.written == ("model.bin",)
    assert (tmp_path / "model" / "model.bin").read_bytes() == WEIGHTS
    assert [call.request.method for call in responses.calls] == ["GET", "GET"]


@responses.activate
def test_what_my_code_does_without_permission(tmp_path):
    responses.get(
        f"{URL}/manifests/v1",
        status=403,
        json={"errors": [{"code": "DENIED", "message": "no"}]},
    )

    with (
        tk.Registry(cache=tmp_path / "cache") as registry,
        pytest.raises(tk.DeniedError) as caught,
    ):
        registry.pull("registry.example.com/team/model:v1", to=tmp_path / "model")

    assert (caught.value.code, caught.value.exit_code) == ("DENIED", 4)
