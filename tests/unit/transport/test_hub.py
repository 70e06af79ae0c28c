"""Where the hub is, and whose token it sees: as huggingface_hub finds it."""

from __future__ import annotations

import pytest

from transferkit.errors import ConnectError, InvalidNameError
from transferkit.protocol.origin import Origin
from transferkit.transport.hosts import Hosts
from transferkit.transport.hub import HubAccess, HubToken, find_token

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz01234567"


def test_the_endpoint():
    assert "https://huggingface.co" == HubAccess.find({"HF_HOME": "/nowhere"}).endpoint
    given = {"HF_ENDPOINT": "https://mirror.example/hf/", "HF_HOME": "/nowhere"}
    assert "https://mirror.example/hf" == HubAccess.find(given).endpoint


@pytest.mark.parametrize("url", ["mirror.example", "ftp://x", "https://user:secret@x", "https://x?token=secret"])
def test_an_endpoint_that_is_none(url):
    with pytest.raises(InvalidNameError, match="HF_ENDPOINT") as caught:
        HubAccess.find({"HF_ENDPOINT": url, "HF_HOME": "/nowhere"})
    assert "secret" not in str(caught.value)


def test_offline():
    with pytest.raises(ConnectError, match="HF_HUB_OFFLINE") as caught:
        HubAccess.find({"HF_HUB_OFFLINE": "true"})
    assert not caught.value.retryable


def test_the_token_of_the_environment_comes_first(tmp_path):
    (tmp_path / "token").write_text("hf_of_the_file\n")
    environment = {"HF_HOME": str(tmp_path), "HF_TOKEN": f" {TOKEN}\r\n", "HUGGING_FACE_HUB_TOKEN": "hf_old"}
    assert HubToken("HF_TOKEN", TOKEN) == find_token(environment)
    del environment["HF_TOKEN"]
    assert HubToken("HUGGING_FACE_HUB_TOKEN", "hf_old") == find_token(environment)
    del environment["HUGGING_FACE_HUB_TOKEN"]
    assert HubToken(str(tmp_path / "token"), "hf_of_the_file") == find_token(environment)


def test_where_the_file_may_be(tmp_path, monkeypatch):
    for folder in ("a", ".cache/huggingface", "xdg/huggingface"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "token").write_text(f"hf_{folder.replace('/', '_')}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "hf_.cache_huggingface" == find_token({}).value
    assert "hf_xdg_huggingface" == find_token({"XDG_CACHE_HOME": str(tmp_path / "xdg")}).value
    assert "hf_a" == find_token({"HF_HOME": "~/a", "XDG_CACHE_HOME": "x"}).value
    monkeypatch.setenv("WHERE", str(tmp_path / "a"))
    assert "hf_a" == find_token({"HF_TOKEN_PATH": "$WHERE/token", "HF_HOME": "x"}).value


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"t\x00ken", b"\xff\xfe", "t\u00f6ken".encode()])
def test_what_is_no_token_is_not_sent(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    found = find_token({"HF_HOME": str(tmp_path)})
    assert (None, True) == (found.value, found.advice.startswith("set HF_TOKEN"))


def test_none_is_sent_where_that_is_not_wanted():
    found = find_token({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})
    assert (None, "no token is sent, as HF_HUB_DISABLE_IMPLICIT_TOKEN says") == (found.value, found.advice)


def test_a_token_does_not_stand_in_a_repr():
    assert TOKEN not in repr(HubAccess("https://x", HubToken("HF_TOKEN", TOKEN)))


def test_the_hub_sees_its_token_alone_and_no_challenge_changes_that():
    origin = Origin.of("https://hub.example")
    with Hosts(token="of-the-registries") as hosts:
        host = hosts.at(origin, hub=HubToken("HF_TOKEN", TOKEN))
        flow = object()
        assert f"Bearer {TOKEN}" == host.authorizer.header("", flow)
        assert host.authorizer.after('Bearer realm="https://auth.example"', "", f"Bearer {TOKEN}", flow) is None
        assert "it refused the token of HF_TOKEN" == host.authorizer.blame(f"Bearer {TOKEN}")
        assert TOKEN in list(host.authorizer.secrets())
        assert host is hosts.at(origin, hub=HubToken("HF_TOKEN", TOKEN))
        assert host is not hosts.at(origin)
        other = hosts.at(origin, hub=HubToken(advice="log in"))
        assert (None, "log in") == (other.authorizer.header("", flow), other.authorizer.blame(None))
