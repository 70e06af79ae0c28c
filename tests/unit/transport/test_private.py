"""What of other libraries the transport rests on, by name: where it goes, it is here that it is seen first."""

from __future__ import annotations

import ast
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import requests
import urllib3
from urllib3.contrib.socks import SOCKSConnection
from urllib3.util.ssltransport import SSLTransport

import transferkit.transport

# Not in the documentation of requests, urllib3 2 and http.client, or with an underscore. Attributes of instances are
# found on one that is made without a connection.
PRIVATE: dict[str, list[Any]] = {
    "_new_conn": [
        urllib3.connection.HTTPConnection,
        urllib3.connection.HTTPSConnection,
        urllib3.HTTPConnectionPool,
        urllib3.HTTPSConnectionPool,
    ],
    "_tunnel": [urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection],
    "_prepare_proxy": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "_dns_host": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "_sock_shutdown": [urllib3.HTTPResponse(b"")],
    "_socks_options": [SOCKSConnection({"socks_version": 2}, "h")],  # type: ignore[typeddict-item]  # the rest is unused
}
UNDOCUMENTED: dict[str, list[Any]] = {
    "ConnectionCls": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "QueueCls": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "pool": [urllib3.HTTPConnectionPool("h"), urllib3.HTTPSConnectionPool("h")],
    "proxy": [urllib3.HTTPConnectionPool("h"), urllib3.HTTPSConnectionPool("h")],
    "proxy_config": [urllib3.HTTPConnectionPool("h"), urllib3.HTTPSConnectionPool("h")],
    "proxy_headers": [urllib3.HTTPConnectionPool("h"), urllib3.HTTPSConnectionPool("h")],
    "pool_classes_by_scheme": [urllib3.PoolManager(), urllib3.ProxyManager("http://h")],
    "pools": [urllib3.PoolManager(), urllib3.ProxyManager("http://h")],
    "connection_requires_http_tunnel": [urllib3.util.proxy],
    "create_urllib3_context": [urllib3.util.ssl_],
    "allowed_gai_family": [urllib3.util.connection],
    "socket_options": [urllib3.connection.HTTPConnection("h")],
    "source_address": [urllib3.connection.HTTPConnection("h")],
    "timeout": [urllib3.connection.HTTPConnection("h")],
    "request": [urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection],
    "sock": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "read1": [urllib3.HTTPResponse],
    "socket": [SSLTransport.__init__.__code__],  # an attribute that is set there
    "incoming": [SSLTransport.__init__.__code__],
    "init_poolmanager": [requests.adapters.HTTPAdapter],
    "proxy_manager_for": [requests.adapters.HTTPAdapter],
    "get_connection_with_tls_context": [requests.adapters.HTTPAdapter],
    "build_connection_pool_key_attributes": [requests.adapters.HTTPAdapter],
    "cert_verify": [requests.adapters.HTTPAdapter],
    "poolmanager": [requests.adapters.HTTPAdapter()],
    "proxy_manager": [requests.adapters.HTTPAdapter()],
    "merge_environment_settings": [requests.Session],
    "DEFAULT_CA_BUNDLE_PATH": [requests.utils],
    "select_proxy": [requests.utils],
}


def private_names(folder: Path) -> set[str]:
    """Return the names with one underscore that a package's sources use of anything."""
    used: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                used |= {n.value for n in node.args[1:2] if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {name for name in used if name.startswith("_") and not name.startswith("__")}


def own_names(folder: Path) -> set[str]:
    """Return the names with one underscore that a package's own classes and modules define."""
    own: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
    return own


def test_every_private_name_of_others_that_the_transport_uses_is_known_here() -> None:
    """Overriding one is using it, too: those are named by hand below."""
    folder = Path(transferkit.transport.__file__).parent
    own = own_names(folder) | {"_make", "_replace"}  # of a NamedTuple, which documents them
    assert set(PRIVATE) == (private_names(folder) - own) | {"_new_conn", "_tunnel"}


def has(owner: Any, name: str) -> bool:
    return name in owner.co_names if isinstance(owner, CodeType) else hasattr(owner, name)


@pytest.mark.parametrize("name", [*PRIVATE, *UNDOCUMENTED])
def test_what_the_transport_touches_of_other_libraries_is_still_there(name: str) -> None:
    assert [] == [owner for owner in {**PRIVATE, **UNDOCUMENTED}[name] if not has(owner, name)]


def test_a_proxy_class_is_what_a_pool_of_ours_replaces() -> None:
    assert {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool} == (
        urllib3.PoolManager().pool_classes_by_scheme
    )
