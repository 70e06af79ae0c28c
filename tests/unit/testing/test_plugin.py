"""The fixtures, used by a test of a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import transferkit.testing

TEST = """
import http.client

import pytest

from transferkit.testing import Faults, answer

pytest_plugins = ["transferkit.testing.plugin"]
_SEEN = []


def status(server):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_registry_behind_a_proxy(registry, fault_proxy):
    proxy = fault_proxy(registry.url, [Faults(reset_after=5)])
    with pytest.raises(ConnectionResetError):
        status(proxy)
    assert status(proxy) == 200
    assert registry.log.count("GET", "/v2/") == 2


def test_two_servers(scripted_server, fault_proxy):
    first, second = scripted_server([answer(418)]), scripted_server([answer(204)])
    assert (status(first), status(fault_proxy(second.url))) == (418, 204)
    _SEEN.append(first)


def test_in_a_with(registry, fault_proxy, scripted_server):
    with fault_proxy(registry.url, [Faults(reset_after=5)]) as proxy, scripted_server([answer(418)]) as server:
        with pytest.raises(ConnectionResetError):
            status(proxy)
        assert status(proxy) == 200
        assert status(server) == 418
    with pytest.raises(ConnectionRefusedError):
        status(proxy)
    with pytest.raises(ConnectionRefusedError):
        status(server)
    assert [connection.ended for connection in proxy.connections][0] == "reset"
    assert len(server.requests) == 1


def test_they_end_with_their_test():
    with pytest.raises(ConnectionRefusedError):
        status(_SEEN[0])
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_test_module_gets_the_fixtures_by_naming_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST)
    done = run(tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_the_fixtures_are_nobodys_without_asking(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text("def test_it(fault_proxy):\n    pass\n")
    done = run(tmp_path)
    assert "fixture 'fault_proxy' not found" in done.stdout


@pytest.mark.full
def test_they_explain_themselves(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["transferkit.testing.plugin"]\n')
    done = run(tmp_path, "--fixtures")
    assert "A function that starts a proxy before a server" in done.stdout


def test_the_package_imports_pytest_only_for_the_plugin() -> None:
    code = "import sys; from transferkit.testing import *; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_is_there_and_none_is_imported_before_it_is_used() -> None:
    names = transferkit.testing.__all__
    assert names == sorted(names)
    assert all(getattr(transferkit.testing, name).__name__ == name for name in names)
    assert set(names) <= set(dir(transferkit.testing))
    code = "import sys, transferkit.testing; print([m for m in sys.modules if m.startswith('transferkit.testing.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
