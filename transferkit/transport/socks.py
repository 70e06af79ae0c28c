"""Connections through a SOCKS proxy that can be woken. Imported where one is used: it needs PySocks."""

from __future__ import annotations

import socket
from typing import Any, cast

import socks  # type: ignore[import-untyped]  # PySocks has no types
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection

from transferkit.content.interfaces import Flow
from transferkit.transport.connections import WakeableConnection, WakeablePool
from transferkit.transport.sockets import abort_of


class WakeableSOCKSConnection(WakeableConnection, SOCKSConnection):
    """A connection through a SOCKS proxy. ``flow`` can wake the conversation with the proxy, too."""

    def _open(self, flow: Flow) -> socket.socket:
        options: Any = self._socks_options
        last = OSError(f"the proxy {options['proxy_host']} has no address")
        proxy = options["proxy_host"], int(options["proxy_port"] or 1080)
        for family, kind, protocol, _, _ in socket.getaddrinfo(*proxy, 0, socket.SOCK_STREAM):
            sock: Any = socks.socksocket(family, kind, protocol)
            abort = abort_of(sock)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)
                sock.set_proxy(
                    options["socks_version"], *proxy, options["rdns"], options["username"], options["password"]
                )
                flow.attach(abort)
                sock.connect((self.host, self.port))
            except socks.ProxyError as error:
                sock.close()
                flow.check()
                last = error.socket_err if isinstance(error.socket_err, OSError) else OSError(str(error))
            except OSError as error:
                sock.close()
                flow.check()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return cast(socket.socket, sock)
            finally:
                flow.detach(abort)
        raise last


class WakeableSOCKSTLSConnection(WakeableSOCKSConnection, HTTPSConnection):
    """The same over TLS."""


class WakeableSOCKSPool(WakeablePool):
    """A pool of connections through a SOCKS proxy."""

    ConnectionCls = WakeableSOCKSConnection  # type: ignore[assignment]  # as urllib3's own pools of this kind have it


class WakeableSOCKSTLSPool(WakeablePool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = WakeableSOCKSTLSConnection  # type: ignore[assignment]  # as above


SOCKS_POOLS: dict[str, Any] = {"http": WakeableSOCKSPool, "https": WakeableSOCKSTLSPool}
