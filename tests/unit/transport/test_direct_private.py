"""What of other libraries the transport rests on, by name: where it goes, it is here that it is seen first."""

from __future__ import annotations

import ast
import http.client
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

import transferkit.transport
from tests.unit.transport.rig import DIRECT_ALONE

pytestmark = DIRECT_ALONE

# Not in the documentation of urllib3 2 and http.client, or with an underscore: where one of them goes, it is here that
# it is seen first. Attributes of instances are found on one that is made without a connection.
PRIVATE: dict[str, list[Any]] = {
    "_new_conn": [urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection],
    "_put_conn": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "_dns_host": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "_connection": [urllib3.HTTPResponse(b"")],
    "_sock_shutdown": [urllib3.HTTPResponse(b"")],
}
UNDOCUMENTED: dict[str, list[Any]] = {
    "ConnectionCls": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "pool_classes_by_scheme": [urllib3.PoolManager(), urllib3.ProxyManager("http://h")],
    "init_poolmanager": [requests.adapters.HTTPAdapter],
    "proxy_manager_for": [requests.adapters.HTTPAdapter],
    "merge_environment_settings": [requests.Session],
    "select_proxy": [requests.utils],
    "allowed_gai_family": [urllib3.util.connection],
    "socket_options": [urllib3.connection.HTTPConnection("h")],
    "source_address": [urllib3.connection.HTTPConnection("h")],
    "timeout": [urllib3.connection.HTTPConnection("h")],
    "sock": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "begin": [http.client.HTTPResponse],
    "response_class": [urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection],
    "read1": [http.client.HTTPResponse, urllib3.HTTPResponse],
}


def private_names(folder: Path) -> set[str]:
    """Return the names with one underscore that a package's sources use of anything but ``self``."""
    used: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                used.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                used |= {n.value for n in node.args[1:2] if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {name for name in used if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_that_the_transport_uses_is_known_here() -> None:
    assert set(PRIVATE) == private_names(Path(transferkit.transport.__file__).parent)


def test_every_private_name_that_is_used_of_self_is_our_own() -> None:
    """A class of ours that is one of urllib3's or requests' as well could use theirs under that name."""
    own: set[str] = set()
    used: set[str] = set()
    for path in Path(transferkit.transport.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                (own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
    assert set() == {name for name in used - own if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("name", [*PRIVATE, *UNDOCUMENTED])
def test_what_the_transport_touches_of_other_libraries_is_still_there(name: str) -> None:
    assert [] == [owner for owner in {**PRIVATE, **UNDOCUMENTED}[name] if not hasattr(owner, name)]


def test_a_proxy_class_is_what_a_pool_of_ours_replaces() -> None:
    assert {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool} == (
        urllib3.PoolManager().pool_classes_by_scheme
    )
