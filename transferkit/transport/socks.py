"""Connections through a SOCKS proxy that can be woken. Imported where one is used: it needs PySocks."""

from __future__ import annotations

import socket
from typing import Any

import socks  # type: ignore[import-untyped]  # PySocks has no types
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection

from transferkit.content.flow import Flow
from transferkit.transport.connections import WakeableConnection, WakeablePool
from transferkit.transport.sockets import abort_of, closed_on_error


class WakeableSOCKSConnection(WakeableConnection, SOCKSConnection):
    """A connection through a SOCKS proxy. ``flow`` can wake the conversation with the proxy, too."""

    def _open(self, flow: Flow) -> socket.socket:
        options: Any = self._socks_options
        proxy = options["proxy_host"], int(options["proxy_port"] or 1080)
        last = OSError("the proxy has no address")
        # One after the other: PySocks connects and speaks to the proxy in one call that blocks.
        for info in self.addresses.resolve(*proxy, 0):
            try:
                sock: socket.socket = socks.socksocket(*info[:3])
                with closed_on_error(sock):
                    self._dial(sock, info[4][:2], options, flow)
                self.addresses.answered(info)
                return sock
            except OSError as error:
                last = error
        raise last

    def _dial(self, sock: Any, proxy: tuple[str, int], options: Any, flow: Flow) -> None:
        abort = abort_of(sock)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        sock.settimeout(self.timeout)
        sock.set_proxy(options["socks_version"], *proxy, options["rdns"], options["username"], options["password"])
        try:
            flow.attach(abort)
            sock.connect((self.host, self.port))
        except OSError as error:
            flow.check()
            # A ProxyError without one of the system's below it has its words in no place of an OSError's.
            cause = getattr(error, "socket_err", error)
            raise cause if isinstance(cause, OSError) else OSError(str(error)) from None
        finally:
            flow.detach(abort)


class WakeableSOCKSTLSConnection(WakeableSOCKSConnection, HTTPSConnection):
    """The same over TLS."""


class WakeableSOCKSPool(WakeablePool):
    """A pool of connections through a SOCKS proxy."""

    ConnectionCls = WakeableSOCKSConnection  # type: ignore[assignment]  # as urllib3's own pools of this kind have it


class WakeableSOCKSTLSPool(WakeablePool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = WakeableSOCKSTLSConnection  # type: ignore[assignment]  # as above


SOCKS_POOLS: dict[str, Any] = {"http": WakeableSOCKSPool, "https": WakeableSOCKSTLSPool}
