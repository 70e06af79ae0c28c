"""Each registry has names by its own grammar: Ollama's at its own hosts, the specification's elsewhere."""

from __future__ import annotations

import pytest

import transferkit as tk
from transferkit.testing import answer, scripted_server

DATA = b"hello"
# printf hello | sha256sum
HELLO = tk.Blob("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 5)
NAMES = ["library/_", "_n/_m", "library/m.", "library/0-"]


def options(server) -> tk.TransferOptions:
    hosts = frozenset({server.url.removeprefix("http://")})
    return tk.TransferOptions(transport=tk.TransportOptions(ollama_hosts=hosts))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_ollamas_is_downloaded_from_a_host_of_ollamas(name, tmp_path):
    with scripted_server([answer(200, DATA)]) as server:
        report = tk.download([HELLO], tmp_path, base_url=server.url, repository=name, options=options(server))
        assert [f"/v2/{name}/blobs/{HELLO.digest}"] == [request.target for request in server.requests]
    assert 5 == report.bytes


def test_a_name_of_ollamas_is_uploaded_to_a_host_of_ollamas(tmp_path):
    (tmp_path / tk.digest_to_path(HELLO.digest)).write_bytes(DATA)
    there = answer(202, headers={"Content-Length": "0"})  # without a Location: it has the blob
    blob = tk.Blob(HELLO.digest, 5, source="_n/_m")
    with scripted_server([answer(404), there]) as server:
        report = tk.upload([blob], tmp_path, base_url=server.url, repository="library/_", options=options(server))
        assert all(request.target.startswith("/v2/library/_/blobs/") for request in server.requests)
    assert 1 == report.skipped + report.mounted


@pytest.mark.parametrize("name", NAMES)
def test_elsewhere_it_is_no_name(name, tmp_path):
    with pytest.raises(tk.InvalidNameError, match="is not a repository name; it should look like library/model"):
        tk.download([HELLO], tmp_path, base_url="http://127.0.0.1:9", repository=name)


@pytest.mark.parametrize("base_url", ["https://registry.ollama.ai", "https://ollama.com"])
@pytest.mark.parametrize("name", ["smollm", "n.s/m", "a/b/c", "library/-m"])
def test_what_is_no_name_of_ollamas_is_refused_before_it_is_asked_for(name, base_url, tmp_path):
    with pytest.raises(tk.InvalidNameError, match="is not a repository name of Ollama's"):
        tk.download([HELLO], tmp_path, base_url=base_url, repository=name)


def test_a_tag_that_is_too_long_for_ollama_is_refused_before_it_is_asked_for():
    with pytest.raises(tk.InvalidNameError, match="is neither a tag of Ollama's nor a digest"):
        tk.fetch_manifest(81 * "t", base_url="https://registry.ollama.ai", repository="library/smollm")
