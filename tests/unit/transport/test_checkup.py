"""What is said of the environment: each variable by its name, and no secret."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from transferkit.transport.checkup import check_credentials, check_network


def test_nothing_set_is_nothing_wrong(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    found = [*check_network(environment), *check_credentials(environment)]
    assert ["ok", "ok", "ok"] == [each.level for each in found]
    assert "transferkit login HOST" in found[-1].advice


def test_proxies_and_bundles_are_named_by_their_variables() -> None:
    bundle = certifi.where()
    environment = {"https_proxy": "me:hunter2@proxy:3128", "NO_PROXY": "localhost", "CURL_CA_BUNDLE": str(bundle)}
    texts = [each.text for each in check_network(environment)]
    assert "https_proxy is http://proxy:3128" == texts[0]
    assert "NO_PROXY is localhost: these hosts are reached without one" == texts[1]
    assert f"CURL_CA_BUNDLE is {bundle}: certificates are held to that" == texts[2]


def test_a_bundle_that_only_openssl_reads_is_said(tmp_path: Path) -> None:
    (warning,) = [each for each in check_network({"SSL_CERT_FILE": "/x.pem"}) if each.level == "warning"]
    assert "set REQUESTS_CA_BUNDLE=/x.pem as well" in warning.advice


def test_sources_of_credentials_are_named_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    environment = {
        "HOME": str(tmp_path),
        "TRANSFERKIT_USERNAME": "ann",
        "DOCKER_AUTH_CONFIG": '{"auths": {"ghcr.io": {"auth": "YW5uOmh1bnRlcjI="}, "empty.example": {}}}',
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"credsStore": "nowhere"}')
    (tmp_path / "docker" / "config.json").chmod(0o644)
    found = list(check_credentials(environment))
    texts = [each.text for each in found]
    assert "TRANSFERKIT_USERNAME is set, and TRANSFERKIT_PASSWORD is not" in texts
    assert "DOCKER_AUTH_CONFIG has some for ghcr.io" in texts
    assert any(text.startswith(f"{tmp_path / 'auth.json'} is not JSON") for text in texts)
    assert any("docker-credential-nowhere for all others, which is not in PATH" in text for text in texts)
    assert not any("chmod" in each.advice for each in found), "a file without passwords may be read by everybody"
    assert "YW5u" not in repr(found)


@pytest.mark.parametrize("value", ["http://me:a/b@c@proxy:3128", "me:a://b@c@proxy:3128", "http://proxy:3128"])
def test_a_proxy_is_shown_without_its_password(value: str) -> None:
    (seen,) = [each.text for each in check_network({"HTTP_PROXY": value}) if each.about == "proxy"]
    assert "HTTP_PROXY is http://proxy:3128" == seen


def test_a_bundle_without_certificates_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    (seen,) = [each for each in check_network({"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")}) if each.about == "ca"]
    assert ("problem", True) == (seen.level, "which has no certificates: " in seen.text)
