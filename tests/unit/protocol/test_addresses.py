"""Which literal addresses the public Internet routes, in whatever spelling, and the same in every release of Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.protocol.addresses import kind_of


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "registry.localhost",
        "127.0.0.1",
        "127.1.2.3",
        "127.0.0.1%eth0",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.0",
        "192.0.0.8",
        "192.0.0.11",
        "192.0.0.170",
        "192.0.0.192",
        "192.0.0.255",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        # as only the C library reads it: decimal, hex, octal, and with parts left out
        "2130706433",
        "2852039166",
        "0x7f000001",
        "0x7f.1",
        "0x7F.0.0.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0xC0.0.0.0xC0",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "fe80::1",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "100:0:0:1::1",
        "5f00::1",
        "4000::1",
        "2001:1::4",
        "2001:2::1",
        "2001:10::1",
        "2001:100::1",
    ],
)
def test_an_address_that_the_internet_does_not_route_is_private(host: str) -> None:
    assert kind_of(host) == "private"


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.0",
        "203.0.113.255",
        "233.252.0.1",
        "2001:db8::1",
        "2001:DB8:ffff::1",
        "3fff::1",
        "3fff:fff::1",
        "::ffff:203.0.113.5",
    ],
)
def test_an_address_of_the_examples_is_documentation(host: str) -> None:
    assert kind_of(host) == "documentation"


@pytest.mark.parametrize(
    "host",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.0.9",
        "192.0.0.10",
        "192.0.1.0",
        "192.0.3.0",
        "192.31.196.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "0x08080808",
        "2606:4700:4700::1111",
        "2001:1::1",
        "2001:4:112::1",
        "2001:20::1",
        "2001:3f::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2620:4f:8000::1",
        "3fff:1000::1",
    ],
)
def test_an_address_that_the_internet_routes_is_public(host: str) -> None:
    assert kind_of(host) == "public"


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        ("8.8.8.8", "public"),
        ("127.0.0.1", "private"),
        ("10.0.0.1", "private"),
        ("169.254.169.254", "private"),
        ("192.0.0.192", "private"),
        ("203.0.113.5", "documentation"),
    ],
)
def test_an_address_within_an_address_is_judged(inner: str, kind: str) -> None:
    a, b, c, d = map(int, inner.split("."))
    high, low = f"{a:02x}{b:02x}", f"{c:02x}{d:02x}"
    inverted = f"{255 - a:02x}{255 - b:02x}:{255 - c:02x}{255 - d:02x}"
    assert kind_of(f"::ffff:{inner}") == kind
    assert kind_of(f"::ffff:{high}:{low}") == kind
    assert kind_of(f"64:ff9b::{high}:{low}") == kind
    assert kind_of(f"2002:{high}:{low}::1") == kind
    assert kind_of(f"2001:0:808:808::{inverted}") == kind  # the client of a Teredo tunnel, written upside down
    assert kind_of(f"2001:0:{high}:{low}::f7f7:f7f7") == kind  # its server; the client is 8.8.8.8


@pytest.mark.parametrize(
    "host", ["64:ff9b:1::808:808", "64:ff9b:0:0:1::808:808", "::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1", "2002:a00:1::"]
)
def test_what_only_looks_like_one_is_private(host: str) -> None:
    assert kind_of(host) == "private"


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "10.example.com",
        "10.0.0.1.example.com",
        "fe80.example",
        "256.1.1.1",
        "",
    ],
)
def test_a_name_is_a_name(host: str) -> None:
    assert kind_of(host) == "name"


@given(st.text() | st.ip_addresses().map(str))
@settings(deadline=None, max_examples=200)
def test_any_text_is_of_one_kind(host: str) -> None:
    assert kind_of(host) in ("name", "public", "private", "documentation")
