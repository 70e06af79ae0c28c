"""Whoever watches ``requests`` sees each request of a call without ``session=``, and the results are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
import requests_mock
import responses

import transferkit as tk
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest

DIGEST = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
FILE = "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # "hello"
BLOB = tk.Blob(DIGEST, 5)
PATH = f"/v2/library/model/blobs/{DIGEST}"
URL = f"https://registry.example{PATH}"
STORED = "https://storage.example/blob?X-Signature=abc%2F"


def download(folder: Path, url: str = "https://registry.example", **keywords: Any) -> tuple[int, bytes]:
    report = tk.download([BLOB], folder, base_url=url, repository="library/model", **keywords)
    return report.bytes, (folder / FILE).read_bytes()


def test_responses_sees_a_download(tmp_path: Path) -> None:
    with responses.RequestsMock() as mock:
        mock.get(URL, status=307, body="moved", headers={"Location": STORED})
        mock.get(STORED, body=b"hello")
        assert (5, b"hello") == download(tmp_path)
        assert [URL, STORED] == [call.request.url for call in mock.calls]
        assert STORED == mock.calls[0].response.headers["Location"]


def test_requests_mock_sees_a_download(tmp_path: Path) -> None:
    with requests_mock.Mocker(case_sensitive=True) as mock:
        mock.get(URL, status_code=307, text="moved", headers={"Location": STORED})
        mock.get(STORED, content=b"hello")
        assert (5, b"hello") == download(tmp_path)
        assert [URL, STORED] == [request.url for request in mock.request_history]


def test_responses_sees_a_token_and_an_upload(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"hello")
    challenge = {"WWW-Authenticate": 'Bearer realm="https://registry.example/token",service="s"'}
    with responses.RequestsMock() as mock:
        mock.head(URL, status=401, headers=challenge)
        mock.get("https://registry.example/token", json={"token": "abc"})
        mock.head(URL, status=404)
        mock.post(
            "https://registry.example/v2/library/model/blobs/uploads/", status=202, headers={"Location": "/upload/1"}
        )
        mock.put("https://registry.example/upload/1", status=201)
        report = tk.upload([BLOB], tmp_path, base_url="https://registry.example", repository="library/model")
        assert (1, 0) == (report.blobs, report.skipped)
        assert ["HEAD", "GET", "HEAD", "POST", "PUT"] == [call.request.method for call in mock.calls]
        assert "Bearer abc" == mock.calls[2].request.headers["Authorization"]


def test_a_request_that_no_mock_knows_goes_nowhere(tmp_path: Path, impatient: tk.TransferOptions) -> None:
    with responses.RequestsMock(), pytest.raises(tk.IncompleteError, match="refused by Responses"):
        download(tmp_path, options=impatient)
    with requests_mock.Mocker(), pytest.raises(requests_mock.NoMockAddress):
        download(tmp_path, options=impatient)


@pytest.mark.parametrize("patched", ["Session.send", "Session.get_adapter", "HTTPAdapter.send"])
def test_a_tracing_sees_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patched: str) -> None:
    kind, _, name = patched.partition(".")
    owner: Any = requests.Session if kind == "Session" else requests.adapters.HTTPAdapter
    original, seen = getattr(owner, name), []

    def traced(self: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append(keywords["url"] if "url" in keywords else getattr(arguments[0], "url", arguments[0]))
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(owner, name, traced)
    with scripted_server([answer(200, b"hello")]) as storage:
        with scripted_server([answer(307, headers={"Location": f"{storage.url}/b"})]) as server:
            assert (5, b"hello") == download(tmp_path, server.url)
            assert [server.url + PATH, f"{storage.url}/b"] == [url for url in seen if not url.endswith("/")]


def test_a_tracing_that_begins_while_a_session_is_used_sees_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked once an origin is not whether somebody watches."""
    seen: list[str] = []

    def step(request: RawRequest) -> bytes:
        if not seen:
            monkeypatch.setattr(requests.Session, "send", traced)
        return answer(200, b"hello" if request.target == PATH else b"{}")

    send = requests.Session.send

    def traced(self: Any, request: Any, **keywords: Any) -> Any:
        seen.append(request.url)
        return send(self, request, **keywords)

    empty = tk.Blob("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2)  # "{}"
    with scripted_server(step) as server:
        tk.download([BLOB, empty], tmp_path, base_url=server.url, repository="library/model", concurrency=1)
        assert [f"{server.url}/v2/library/model/blobs/{empty.digest}"] == seen
    assert {} == json.loads((tmp_path / str(empty.digest).replace(":", "-")).read_bytes())


def test_a_tracing_may_add_header_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = requests.Session.send

    def traced(self: Any, request: Any, **keywords: Any) -> Any:
        request.headers["traceparent"] = "00-abc"
        return send(self, request, **keywords)

    monkeypatch.setattr(requests.Session, "send", traced)
    with scripted_server([answer(200, b"hello")]) as server:
        assert (5, b"hello") == download(tmp_path, server.url)
        assert "00-abc" == server.requests[0].headers["traceparent"]
