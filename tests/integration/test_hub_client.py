"""The hub's own client beside us: what our tests take for the hub is one to it, and both get the same from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import oras.client
import pytest

import transferkit as tk
from tests.functional.hub import COMMIT, TOKEN, ScriptedHub, sha256, use

pytestmark = pytest.mark.integration

FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}",
    "deep/er/name with blanks #%.txt": b"a" * 1000,
    "model.safetensors": bytes(range(256)) * 1000,
}
# In a process of its own: it reads the environment when it is imported.
CLIENT = """
import json, sys
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
api = HfApi()
path = api.snapshot_download("org/model", local_dir=sys.argv[1])
said = {"commit": api.model_info("org/model").sha, "errors": []}
said["files"] = {
    file.path: [file.size, file.lfs.sha256 if file.lfs else None]
    for file in api.list_repo_tree("org/model", revision=said["commit"], recursive=True) if hasattr(file, "size")
}
asked = ("org/none", None, None), ("org/model", "none", None), ("org/model", None, "hf_wrong")
for repository, revision, token in asked:
    try:
        api.model_info(repository, revision=revision, token=token)
    except HfHubHTTPError as error:
        said["errors"].append([type(error).__name__, error.response.status_code])
print(json.dumps(said))
"""


def run(folder: Path, home: Path) -> Any:
    off = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
    environment = {**os.environ, **dict.fromkeys(off, "1"), "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_client_of_the_hub_and_ours_get_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ScriptedHub(dict(FILES), lfs=["model.safetensors"], token=TOKEN, page=2) as hub:
        use(hub, monkeypatch, tmp_path / "hf", TOKEN)
        said = run(tmp_path / "theirs", tmp_path / "hf")
        with tk.Registry(cache=tmp_path / "cache") as registries:
            report = registries.pull("hf://org/model", to=tmp_path / "ours")
    assert COMMIT == said["commit"] == report.digest
    for folder in ("theirs", "ours"):
        assert FILES == {path: (tmp_path / folder / path).read_bytes() for path in FILES}
    assert set(FILES) == set(report.written)
    listed: dict[str, list[Any]] = {path: [len(content), None] for path, content in FILES.items()}
    listed["model.safetensors"][1] = sha256(FILES["model.safetensors"])
    assert listed == said["files"]
    errors = [["RepositoryNotFoundError", 404], ["RevisionNotFoundError", 404]]
    assert errors == said["errors"][:2]
    assert 401 == said["errors"][2][1]


def test_a_copy_into_a_real_registry_is_what_the_python_oras_pulls(
    docker_registry: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = oras.client.OrasClient(insecure=True)
    name = f"{docker_registry.authority}/team/model:v1"
    with ScriptedHub(dict(FILES), lfs=["model.safetensors"], token=TOKEN) as hub:
        use(hub, monkeypatch, tmp_path / "hf", TOKEN)
        with tk.Registry(cache=tmp_path / "cache") as registries:
            registries.copy("hf://org/model", name)
    client.pull(target=name, outdir=str(tmp_path / "out"))
    assert FILES == {path: (tmp_path / "out" / path).read_bytes() for path in FILES}
