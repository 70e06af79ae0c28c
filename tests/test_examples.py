"""The examples work as a reader would run them, and refuse files that lie."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import transferkit as tk
from transferkit.testing import RunningRegistry

SCRIPT = Path(__file__).parents[1] / "examples" / "tensors.py"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
WHERE = "library/model"


@pytest.fixture(scope="module")
def tensors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensors_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def safetensors(header: object, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file as nobody writes it: names out of order, equal tensors, empty ones, spaces behind the header."""
    header = {
        "last": entry(3000, 3017),
        "__metadata__": {"format": "pt"},
        "twin.b": entry(1000, 2000),
        "none.b": entry(2000, 2000),
        "twin.a": entry(0, 1000),
        "none.a": entry(0, 0),
        "größe": entry(2000, 3000),
        "none.c": entry(3017, 3017),
    }
    path = tmp_path / "small.safetensors"
    data = b"\xab" * 2000 + bytes(range(250)) * 4 + b"seventeen bytes!!"
    path.write_bytes(safetensors(json.dumps(header, ensure_ascii=False).encode() + b"   ", data))
    return path


def test_a_file_comes_back_byte_for_byte(
    tensors: ModuleType, registry: RunningRegistry, model: Path, tmp_path: Path
) -> None:
    pushed = tensors.push(model, registry.url, WHERE, tag="v1")
    path, digest, pulled = tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")

    assert path == tmp_path / "new" / "model.safetensors"
    assert path.read_bytes() == model.read_bytes()
    assert digest == hashlib.sha256(model.read_bytes()).hexdigest()
    # The header, the twins as one, the empty ones as one, and two others.
    assert (pushed.blobs, pulled.blobs) == (5, 5)
    assert sorted(os.listdir(tmp_path / "new")) == ["blobs", "model.safetensors"]


def test_the_manifest_has_one_layer_for_each_tensor_in_the_order_of_the_file(
    tensors: ModuleType, registry: RunningRegistry, model: Path
) -> None:
    tensors.push(model, registry.url, WHERE, tag="v1")
    manifest = tk.fetch_manifest("v1", base_url=registry.url, repository=WHERE).json()

    named = [layer["annotations"]["com.example.tensor.name"] for layer in manifest["layers"]]
    assert named == ["none.a", "twin.a", "twin.b", "none.b", "größe", "last", "none.c"]
    assert [layer["size"] for layer in manifest["layers"]] == [0, 1000, 1000, 0, 1000, 17, 0]
    assert manifest["layers"][0]["digest"] == EMPTY
    assert manifest["layers"][1]["digest"] == manifest["layers"][2]["digest"]
    assert manifest["layers"][5]["digest"] == f"sha256:{hashlib.sha256(b'seventeen bytes!!').hexdigest()}"
    assert manifest["layers"][5]["annotations"]["com.example.tensor.dtype"] == "U8"
    assert manifest["layers"][5]["annotations"]["com.example.tensor.shape"] == "[17]"
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.example.safetensors"
    assert manifest["config"]["mediaType"] == "application/vnd.example.safetensors.header"


def test_only_a_changed_tensor_is_sent_again(tensors: ModuleType, registry: RunningRegistry, model: Path) -> None:
    tensors.push(model, registry.url, WHERE, tag="v1")
    model.write_bytes(model.read_bytes()[:-17] + b"SEVENTEEN BYTES!!")
    report = tensors.push(model, registry.url, WHERE, tag="v2")
    assert (report.bytes, report.skipped) == (17, 4)


def test_a_second_pull_fetches_nothing(
    tensors: ModuleType, registry: RunningRegistry, model: Path, tmp_path: Path
) -> None:
    tensors.push(model, registry.url, WHERE, tag="v1")
    tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")
    _, digest, report = tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")
    assert (report.bytes, report.skipped) == (0, 5)
    assert digest == hashlib.sha256(model.read_bytes()).hexdigest()


def test_as_a_user_would_run_it(registry: RunningRegistry, model: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, SCRIPT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    pushed = run("push", model, registry.url, WHERE, "--tag", "v2")
    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert "blobs 5" in pushed.stdout

    pulled = run("pull", registry.url, WHERE, tmp_path / "new", "--tag", "v2")
    rebuilt = tmp_path / "new" / "model.safetensors"
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert pulled.stdout.splitlines()[1] == f"{hashlib.sha256(model.read_bytes()).hexdigest()}  {rebuilt}"
    assert rebuilt.read_bytes() == model.read_bytes()

    missing = run("pull", registry.url, WHERE, tmp_path / "other", "--tag", "v3")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ")
    assert "v3" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert not (tmp_path / "other" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a header of 0 bytes does not fit into 0 bytes"),
        (b"\x01\x00\x00", "a header of 1 bytes does not fit into 3 bytes"),
        (b"\x09" + bytes(7) + b"{}", "a header of 9 bytes does not fit into 10 bytes"),
        (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes does not fit into 10 bytes"),
        (safetensors(b"not JSON", b""), "the header is not JSON: JSONDecodeError"),
        (safetensors(b"\xff\xfe{}", b""), "the header is not JSON: UnicodeDecodeError"),
        (safetensors(b"[" * 200_000, b""), "the header is not JSON: RecursionError"),
        (safetensors([], b""), "the header is not a JSON object but list"),
        (safetensors({"a": 1}, b""), "does not say properly what and where 'a' is"),
        (safetensors({"a": {"dtype": "U8", "shape": [1]}}, b"1"), "does not say properly what and where 'a' is"),
        (safetensors({"a": entry(-1, 1)}, b"1"), "does not say properly what and where 'a' is"),
        (safetensors({"a": entry(1, 0)}, b"1"), "does not say properly what and where 'a' is"),
        (safetensors({"a": {**entry(0, 1), "data_offsets": [0, 1.0]}}, b"1"), "does not say properly"),
        (safetensors({"a": {**entry(0, 1), "shape": [True]}}, b"1"), "does not say properly"),
        (safetensors({"a": entry(0, 5)}, b"1234"), "'a' ends at 5, outside the 4 bytes of data"),
        (safetensors({"a": entry(0, 10**30)}, b"1234"), "outside the 4 bytes of data"),
        (safetensors({"a": entry(0, 3), "b": entry(2, 4)}, b"1234"), "'b' begins at 2 and overlaps one that ends at 3"),
        (safetensors({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"), "'b' begins at 0 and overlaps one that ends at 4"),
        (safetensors({"a": entry(0, 1), "b": entry(3, 4)}, b"1234"), "2 bytes in front of 'b' belong to no tensor"),
        (safetensors({"a": entry(0, 1)}, b"1234"), "the last 3 bytes belong to no tensor"),
        (safetensors({}, b"1"), "the last 1 bytes belong to no tensor"),
    ],
)
def test_a_file_that_lies_is_refused_before_any_request(
    tensors: ModuleType, registry: RunningRegistry, tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(tensors.FormatError) as caught:
        tensors.push(path, registry.url, WHERE, tag="v1")
    assert complaint in str(caught.value)
    assert len(registry.log) == 0


def test_a_header_of_more_than_100_mb_is_refused_unread(tensors: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)  # a hole: it takes no room
    with pytest.raises(tensors.FormatError, match="the header has 100000001 bytes, more than the 100000000 that"):
        tensors.push(path, "http://127.0.0.1:9", WHERE, tag="v1")


def test_an_artifact_of_somebody_else_is_refused_before_its_blobs_are_fetched(
    tensors: ModuleType, registry: RunningRegistry, tmp_path: Path
) -> None:
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 0},
            "layers": [],
        }
    ).encode()
    (tmp_path / tk.digest_to_path(EMPTY)).write_bytes(b"")
    tk.upload(
        [tk.Blob(EMPTY, 0)], tmp_path, base_url=registry.url, repository=WHERE, manifest=manifest, manifest_ref="v1"
    )
    with pytest.raises(tensors.FormatError, match="library/model:v1 is not a safetensors file pushed by this program"):
        tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")
    assert not (tmp_path / "new").exists()


def test_layers_that_are_not_the_tensors_of_the_header_are_refused(
    tensors: ModuleType, registry: RunningRegistry, model: Path, tmp_path: Path
) -> None:
    blobs, manifest = tensors.split(model, tmp_path)
    shuffled = json.loads(manifest)
    shuffled["layers"].reverse()
    tk.upload(
        blobs,
        tmp_path,
        base_url=registry.url,
        repository=WHERE,
        manifest=json.dumps(shuffled).encode(),
        manifest_ref="v1",
    )
    with pytest.raises(tensors.FormatError, match="the blobs are not the tensors that the header lists"):
        tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")
    assert os.listdir(tmp_path / "new") == ["blobs"]


def test_the_progress_line_goes_away_at_the_end(tensors: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tensors.show_progress(1_500_000, 20_000_000)
    tensors.show_progress(20_000_000, 20_000_000)
    assert capsys.readouterr().err == "1.5 of 20.0 MB\r\x1b[K\r"


def test_a_flask_app_takes_the_local_api_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    app = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "flask_app.py"))["app"]
    client = app.test_client()
    assert (b"hello", {"models": []}) == (client.get("/").data, client.get("/api/tags").json)
    assert 404 == client.get("/nothing").status_code
