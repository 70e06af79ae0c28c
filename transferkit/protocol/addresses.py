"""Which addresses the public Internet routes: a table of our own, so that every release of Python judges alike.

Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries, both of 2025-10-09, and RFC 4291, section 2.4: of the
IPv6 addresses, those outside of 2000::/3 are local or reserved. ``ipaddress`` reads the texts; what it says of an
address (``is_global``) has changed in point releases: Python 3.11.7 takes 192.0.0.192 for public, where a cloud serves
metadata.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["name", "public", "private", "documentation"]
"""What a host is: a name that DNS resolves; or an address that the Internet routes, one that it does not, or one that
stands in examples alone, where nobody is."""

# The first row that fits decides: what is an exception stands before the block that it is in.
_V4: tuple[tuple[str, Kind], ...] = (
    ("0.0.0.0/8", "private"),  # this network
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),  # shared by providers and their customers
    ("127.0.0.0/8", "private"),
    ("169.254.0.0/16", "private"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.9/32", "public"),  # port control
    ("192.0.0.10/32", "public"),  # TURN
    ("192.0.0.0/24", "private"),  # protocol assignments, 192.0.0.8 among them
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "private"),  # relays of 6to4, given up
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "private"),  # benchmarks
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("233.252.0.0/24", "documentation"),
    ("224.0.0.0/4", "private"),  # multicast
    ("240.0.0.0/4", "private"),  # reserved, and broadcast
    ("0.0.0.0/0", "public"),
)
_V6: tuple[tuple[str, Kind], ...] = (
    ("2001:1::1/128", "public"),  # port control
    ("2001:1::2/128", "public"),  # TURN
    ("2001:1::3/128", "public"),  # registration of services
    ("2001:3::/32", "public"),  # multicast tunnels
    ("2001:4:112::/48", "public"),  # AS112
    ("2001:20::/28", "public"),  # ORCHIDv2
    ("2001:30::/28", "public"),  # remote identification of drones
    ("2001::/23", "private"),  # protocol assignments
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("2000::/3", "public"),
    ("::/0", "private"),
)
_V4_NETWORKS = tuple((ip_network(block), kind) for block, kind in _V4)
_V6_NETWORKS = tuple((ip_network(block), kind) for block, kind in _V6)
_LOW = 0xFFFF_FFFF


def kind_of(host: str) -> Kind:
    """Tell what ``host`` is, in whatever spelling the system takes for an address; ``localhost`` is private.

    >>> hosts = ("registry.example.com", "8.8.8.8", "0x7f.1", "192.0.2.1")
    >>> tuple(kind_of(host) for host in hosts)
    ('name', 'public', 'private', 'documentation')
    """
    if host == "localhost" or host.endswith(".localhost"):
        return "private"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:  # as only the C library reads it (0x7f.1, 2130706433)
            address = IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return "name"
    if isinstance(address, IPv4Address):
        return _judge(address)
    kinds = [_judge(inner) for inner in _embedded(address)] or [_judge(address)]
    return next((kind for kind in kinds if kind != "public"), "public")


def _judge(address: IPv4Address | IPv6Address) -> Kind:
    networks = _V4_NETWORKS if isinstance(address, IPv4Address) else _V6_NETWORKS
    return next(kind for network, kind in networks if address in network)


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that packets to an IPv6 address reach, or pass."""
    number = int(address)
    if number >> 32 in (0xFFFF, 0x0064_FF9B << 64):
        return [IPv4Address(number & _LOW)]  # mapped (RFC 4291), and translated by NAT64 (RFC 6052)
    if number >> 112 == 0x2002:
        return [IPv4Address(number >> 80 & _LOW)]  # 6to4 (RFC 3056)
    if number >> 96 == 0x2001_0000:
        return [IPv4Address(number >> 64 & _LOW), IPv4Address(~number & _LOW)]  # Teredo (RFC 4380): server, client
    return []
