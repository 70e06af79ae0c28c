"""The command ``serve`` as a process: pulls through its API, a registry at /v2/, passwords, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

import transferkit as tk
from tests.functional.held import Held
from tests.functional.models import Model, ask, client, digest_of, links, stored
from transferkit.cli import main
from transferkit.testing import FaultRule, respond, running_registry, with_faults

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
WEIGHTS = random.Random(14).randbytes(24 * MIB)  # more than what is continued from 16 MiB on
HELD_AFTER = 8 * MIB


class Serving:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = process.stdout.readline()
        self.url = self.said.rpartition(" on ")[2].strip()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@contextmanager
def serve(folder: Path, *arguments: str):
    command = [sys.executable, "-m", "transferkit", "serve", "--port", "0", "--cache", str(folder), *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


@pytest.fixture
def upstream():
    """A registry with a model; of the weights it sends 8 MiB, and waits until it is released."""
    held = Held(digest_of(WEIGHTS), HELD_AFTER)
    no_list = FaultRule(respond(404), path="/chunksums/")  # a chunk of a list is in place when it is whole
    with running_registry(middleware=lambda app: held(with_faults(app, no_list))) as registry:
        Model([WEIGHTS, b"do as you like"]).put(registry.url, "library/smol", "latest")
        try:
            yield registry.url, held
        finally:
            held.release()


def pull(url: str, model: str, **fields):
    """Begin a pull, and return the answer, whose lines come as they are read."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/api/pull", json.dumps({"model": model, **fields}))
    return connection, connection.getresponse()


def partials(folder: Path) -> int:
    """Return how many bytes are on the disk of what is unfinished."""
    found = (folder / "blobs" / ".partial").glob(f"{digest_of(WEIGHTS).replace(':', '-')}*")
    return sum(path.stat().st_blocks * 512 for path in found)


def test_a_stop_in_the_middle_of_a_pull_keeps_what_has_come(upstream, tmp_path):
    registry, held = upstream
    with serve(tmp_path, "--api") as server:
        assert server.said.startswith(f"serving models of {tmp_path} on http://127.0.0.1:")
        connection, response = pull(server.url, f"{registry}/library/smol")
        with closing(connection):
            for line in response:
                if held.sent >= HELD_AFTER and json.loads(line).get("completed", 0) >= HELD_AFTER // 2:
                    break
            began = time.monotonic()
            code, out, err = server.end()
            last = [json.loads(line) for line in response]
    assert (0, "ending: running pulls keep what they have\n", "") == (code, out, err)
    assert time.monotonic() - began < 5
    assert "error" in last[-1], "the client was not told"
    assert partials(tmp_path) >= HELD_AFTER // 2
    assert ([], {}) == (links(tmp_path), {k: v for k, v in stored(tmp_path).items() if digest_of(WEIGHTS)[7:] in k})

    held.release()
    with serve(tmp_path) as server:
        connection, response = pull(server.url, f"{registry}/library/smol", stream=False)
        with closing(connection):
            assert {"status": "success"} == json.loads(response.read())
        assert [0, "ending: running pulls keep what they have\n"] == list(server.end())[:2]
    assert held.sent <= len(WEIGHTS) - HELD_AFTER // 2, "what had come was fetched again"
    name = digest_of(WEIGHTS).replace(":", "-")
    assert name == stored(tmp_path)[name]


def test_a_registry_and_the_api_under_one_address(tmp_path):
    with serve(tmp_path / "cache", "--api", "--registry", str(tmp_path / "store")) as server:
        assert f"and a registry over {tmp_path / 'store'} on" in server.said
        model = Model([b"weights"]).put(server.url, "library/own", "v1")
        own = server.url.removeprefix("http://")
        with client(tmp_path / "mine") as registry:
            assert model.digest == str(registry.pull(f"http://{own}/library/own:v1").digest)
        # Through the API it pulls from itself.
        connection, response = pull(server.url, f"{server.url}/library/own:v1")
        with closing(connection):
            assert {"status": "success"} == [json.loads(line) for line in response][-1]
        status, _, body = ask(server.url, "GET", "/api/tags")
        assert (200, [f"{own}/library/own:v1"]) == (status, [each["name"] for each in json.loads(body)["models"]])
        assert 403 == ask(server.url, "GET", "/api/tags", Host="attacker.example")[0]
        assert 403 == ask(server.url, "DELETE", "/api/delete", b"{}", Origin="http://attacker.example")[0]
        assert 130 == server.end(signal.SIGINT)[0]


def test_a_mirror_of_the_cache(tmp_path):
    cache = tk.DiskCache(tmp_path)
    digest = cache.put(b"weights").digest
    with serve(tmp_path, "--mirror") as server:
        assert server.said.startswith(f"serving a mirror of {tmp_path} on ")
        assert (200, b"weights") == ask(server.url, "GET", f"/v2/library/smol/blobs/{digest}?ns=docker.io")[::2]
        assert 404 == ask(server.url, "GET", "/api/tags")[0]
        assert 0 == server.end()[0]


def test_a_mirror_with_a_registry_upstream_keeps_what_has_come_when_it_ends(upstream, tmp_path):
    registry, held = upstream
    with serve(tmp_path, "--upstream", registry, "--api") as server:
        assert server.said.startswith(f"serving models of {tmp_path} and a mirror of {registry} on ")
        path = f"/v2/library/smol/blobs/{digest_of(WEIGHTS)}"
        assert 200 == ask(server.url, "GET", "/v2/library/smol/manifests/latest")[0]
        with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)) as connection:
            connection.request("GET", path)
            with connection.getresponse() as response:
                first = response.read(MIB)
                assert WEIGHTS.startswith(first)
                (running,) = json.loads(ask(server.url, "GET", "/api/ps")[2])["models"]
                assert running["name"].endswith("/library/smol:latest")
                deadline = time.monotonic() + 20
                while partials(tmp_path) < HELD_AFTER // 2 and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert 0 == server.end()[0]
    assert partials(tmp_path) >= HELD_AFTER // 2
    held.release()
    with serve(tmp_path, "--upstream", registry) as server:
        assert 200 == ask(server.url, "GET", "/v2/library/smol/manifests/latest")[0]
        assert WEIGHTS == ask(server.url, "GET", path)[2]
        assert 0 == server.end()[0]
    assert held.sent <= len(WEIGHTS) - HELD_AFTER // 2, "what had come was fetched again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--upstream", "http://h", "--read-only"], "--upstream pulls into the cache, and --read-only forbids it"),
        (["--upstream", "http://h", "--registry", "."], "--registry is at /v2/, and so is --mirror or --upstream"),
        (["--mirror", "--registry", "."], "--registry is at /v2/, and so is --mirror or --upstream"),
        (["--upstream", "ftp://h"], "an upstream is [NAME=]URL"),
        (["--upstream", "http://127.0.0.1:5000", "--port", "5000"], "is this server itself"),
        (["--upstream", "localhost:5000", "--port", "5000"], "is this server itself"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, arguments, said):
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--cache", str(tmp_path), *arguments])
    assert (2, True) == (result.exit_code, said in " ".join(result.output.split()))


def test_a_password_and_a_read_only_registry(tmp_path):
    (tmp_path / "password").write_text("secret\n")
    arguments = ["--registry", str(tmp_path / "store"), "--auth", f"ann:{tmp_path / 'password'}"]
    with serve(tmp_path / "cache", *arguments) as server:
        with client(tmp_path / "mine", auth=("ann", "secret")) as registry:
            registry.push(f"{server.url}/library/own:v1", files={"hello": _hello(tmp_path)})
        with client(tmp_path / "other", auth=("ann", "wrong")) as registry, pytest.raises(tk.UnauthorizedError):
            registry.pull(f"{server.url}/library/own:v1")
        server.end()
    with serve(tmp_path / "cache", *arguments, "--read-only") as server:
        assert "read-only" in server.said
        with client(tmp_path / "mine", auth=("ann", "secret")) as registry:
            registry.pull(f"{server.url}/library/own:v1", to=tmp_path / "here")
            assert "hello" == (tmp_path / "here" / "hello").read_text()
            with pytest.raises(tk.TransferKitError, match="read-only"):
                registry.push(f"{server.url}/library/own:v2", files={"second": _hello(tmp_path, "second")})
        assert 401 == ask(server.url, "GET", "/v2/")[0]
        server.end()


def _hello(folder: Path, text: str = "hello") -> Path:
    (folder / text).write_text(text)
    return folder / text


def test_an_address_of_other_machines_with_a_word_more(tmp_path):
    with serve(tmp_path, "--host", "0.0.0.0", "--insecure-public") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert 200 == ask(url, "GET", "/api/tags")[0]
        assert 200 == ask(url, "GET", "/api/tags", Host="10.1.2.3:80")[0]
        assert 403 == ask(url, "GET", "/api/tags", Host="attacker.example")[0]
        assert "warning: everybody who reaches this address may pull, push and delete" in server.end()[2]


def test_https_with_a_certificate(tmp_path):
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    with serve(tmp_path / "cache", "--tls", str(tmp_path / "server.pem"), str(tmp_path / "server.key")) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with closing(http.client.HTTPSConnection(server.url[8:], context=context, timeout=10)) as connection:
            connection.request("DELETE", "/api/delete", b'{"model": "none"}', {"Origin": server.url})
            assert 404 == connection.getresponse().status
        assert 0 == server.end()[0]
