"""A wrong type is refused at the call, before a request or a file; a manifest is taken as a whole."""

from __future__ import annotations

import hashlib
import json

import pytest

import transferkit as tk

REPOSITORY = "library/model"
BLOB = tk.Blob("sha256:" + 64 * "a", 5)
COMMON = {"auth": "user:hunter2", "options": {}, "cancel": "no", "session": 5, "get_token": "x", "user_agent": 5}
BOTH = {**COMMON, "progress": 3, "trace": print, "logger": 5, "concurrency": "8", "stall_timeout": "1"}


def refused(call, *arguments, **keywords):
    with pytest.raises(TypeError, match=r" is .*, not ") as caught:
        call(*arguments, base_url="http://127.0.0.1:9", repository=REPOSITORY, **keywords)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", BOTH)
def test_download_refuses_a_wrong_type_and_makes_nothing(name, tmp_path):
    refused(tk.download, [BLOB], tmp_path / "d", **{name: BOTH[name]})
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", [*BOTH, "manifest", "manifest_ref", "manifest_media_type"])
def test_upload_refuses_a_wrong_type(name, tmp_path):
    values = {**BOTH, "manifest": {}, "manifest_ref": 5, "manifest_media_type": 5}
    refused(tk.upload, [], tmp_path, **{name: values[name]})


@pytest.mark.parametrize("name", COMMON)
def test_fetch_manifest_refuses_a_wrong_type(name):
    refused(tk.fetch_manifest, "latest", **{name: COMMON[name]})


def test_plan_refuses_a_wrong_type(tmp_path):
    for keywords in ({"options": {}}, {"cancel": 5}):
        with pytest.raises(TypeError, match=r" is .*, not "):
            tk.plan([BLOB], tmp_path, **keywords)


def test_a_digest_in_the_place_of_a_list_is_a_type_error(tmp_path):
    refused(tk.download, BLOB.digest, tmp_path)
    refused(tk.upload, BLOB, tmp_path)


def test_a_manifest_is_mirrored_as_a_whole(registry, make_blobs, tmp_path, capsys):
    """What ``download(manifest)`` brings is all that a push of that manifest needs."""
    config, layer = make_blobs(tmp_path / "source", [30, 5_000])
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/json", "digest": config.digest, "size": config.size},
            "layers": [{"mediaType": "application/octet-stream", "digest": layer.digest, "size": layer.size}],
        }
    ).encode()
    where = {"base_url": registry.url, "repository": REPOSITORY}
    tk.upload([config, layer], tmp_path / "source", manifest=raw, manifest_ref="v1", **where)

    manifest = tk.fetch_manifest("v1", **where)
    plan = tk.plan(manifest, tmp_path / "d")
    report = tk.download(manifest, tmp_path / "d", progress=True, **where)
    mirror = {"base_url": registry.url, "repository": "mirror/model"}
    tk.upload(manifest, tmp_path / "d", manifest=manifest.raw, manifest_ref="v1", **mirror)

    assert 2 == plan.blobs == report.blobs
    assert {config.digest, layer.digest} == set(report.paths)
    assert "library/model: 4.9 KiB of 4.9 KiB (100 %)" in capsys.readouterr().err
    assert hashlib.sha256(raw).hexdigest() == tk.fetch_manifest("v1", **mirror).digest.hex
