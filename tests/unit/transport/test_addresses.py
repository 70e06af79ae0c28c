"""The addresses of a host: raced, and the one that answered is tried first from then on."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.unit.transport.rig import HELLO, LIMIT, ask, client_of, sockets
from transferkit.errors import CancelledError, ProtocolError, TransportTimeout
from transferkit.testing import Close, scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.addresses import STAGGER, Addresses, Info, public_ones, race

INET, INET6 = socket.AF_INET, socket.AF_INET6


def info(host: str, port: int = 80, family: int = INET) -> Info:
    return family, socket.SOCK_STREAM, 6, "", (host, port)


def plain(info: Info) -> socket.socket:
    return socket.socket(*info[:3])


Leads = Callable[[list[Info]], None]


@pytest.fixture
def leads_to(monkeypatch: pytest.MonkeyPatch) -> Leads:
    """``leads_to(infos)`` lets every name have these addresses; an empty list: there is no such name."""

    def lead(infos: list[Info]) -> None:
        def getaddrinfo(*_: object) -> list[Info]:
            if not infos:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return infos

        monkeypatch.setattr("transferkit.transport.addresses.socket.getaddrinfo", getaddrinfo)

    return lead


@contextmanager
def nowhere() -> Iterator[int]:
    """The port of an address that neither accepts nor refuses: the queue of its connections is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        try:
            yield server.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


# -- order


def test_the_families_come_by_turns_beginning_with_the_systems_first_choice(leads_to: Leads) -> None:
    six = [info(f"2001:db8::{n}", family=INET6) for n in range(3)]
    four = [info(f"192.0.2.{n}") for n in range(2)]
    leads_to([*six, *four, four[0]])
    assert [six[0], four[0], six[1], four[1], six[2]] == Addresses().resolve("host.example", 80, 0)
    leads_to([*four, *six])
    assert [four[0], six[0], four[1], six[1], six[2]] == Addresses().resolve("host.example", 80, 0)


def test_the_one_that_answered_last_is_the_first(leads_to: Leads) -> None:
    leads_to([info("192.0.2.1"), info("192.0.2.2"), info("192.0.2.3")])
    addresses = Addresses()
    addresses.answered(info("192.0.2.3"))
    assert [info("192.0.2.3"), info("192.0.2.1"), info("192.0.2.2")] == addresses.resolve("host.example", 80, 0)


def test_a_name_that_had_addresses_has_them_while_the_resolver_fails(leads_to: Leads) -> None:
    addresses = Addresses()
    leads_to([])
    with pytest.raises(socket.gaierror):
        addresses.resolve("host.example", 80, 0)
    leads_to([info("192.0.2.1")])
    addresses.resolve("host.example", 80, 0)
    leads_to([])
    assert [info("192.0.2.1")] == addresses.resolve("host.example", 80, 0)


# -- the race


def test_an_address_that_leads_nowhere_costs_a_quarter_of_a_second_once(leads_to: Leads) -> None:
    with nowhere() as dead, scripted_server(lambda _: [HELLO, Close()]) as server:
        leads_to([info("127.0.0.1", dead), info("127.0.0.1", server.port)])
        with client_of(f"http://registry.example:{server.port}") as client:
            began = time.monotonic()
            assert (200, b"hello") == ask(client)
            first = time.monotonic() - began
            again = time.monotonic()
            assert (200, b"hello") == ask(client)
            second = time.monotonic() - again
    assert STAGGER <= first < STAGGER + 2.0
    assert second < STAGGER


def test_one_that_refuses_costs_nothing(leads_to: Leads) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        sock, found = race([info("127.0.0.1", refusing), info("127.0.0.1", port)], plain, LIMIT, WorkerFlow())
        assert time.monotonic() - began < STAGGER
        assert (LIMIT, ("127.0.0.1", port)) == (sock.gettimeout(), sock.getpeername())
        assert ("127.0.0.1", port) == found[4]
        sock.close()


def test_those_that_lost_are_closed() -> None:
    with nowhere() as dead, socket.create_server(("127.0.0.1", 0)) as server:
        before = sockets()
        sock, _ = race(
            [info("127.0.0.1", dead), info("127.0.0.1", server.getsockname()[1])], plain, LIMIT, WorkerFlow()
        )
        sock.close()
        assert before == sockets()


def test_all_refusals_are_the_last_ones() -> None:
    def make(info: Info) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        race([info("127.0.0.1", port)], plain, LIMIT, WorkerFlow())
    with pytest.raises(OSError, match="no such family"):
        race([info("192.0.2.1"), info("192.0.2.2")], make, LIMIT, WorkerFlow())
    with pytest.raises(OSError, match="no address"):
        race([], plain, LIMIT, WorkerFlow())


def test_where_none_answers_the_limit_is_one_for_all_of_them(leads_to: Leads) -> None:
    with nowhere() as dead:
        before = sockets()
        leads_to([info("127.0.0.1", dead), info("127.0.0.1", dead)])
        with client_of(f"http://registry.example:{dead}", connect_timeout=0.3) as client:
            began = time.monotonic()
            with pytest.raises(TransportTimeout, match="no connection"):
                ask(client)
        assert time.monotonic() - began < 2.0
        assert before == sockets()


def test_a_cancel_ends_it_and_closes_all() -> None:
    flow = WorkerFlow()
    with nowhere() as dead:
        before = sockets()

        def make(info: Info) -> socket.socket:
            flow.cut(CancelledError("now"), final=True)
            return plain(info)

        with pytest.raises(CancelledError, match="now"):
            race([info("127.0.0.1", dead)], make, LIMIT, flow)
        assert before == sockets()


# -- public and private ones


def test_private_addresses_are_left_out_where_nobody_may_go_there() -> None:
    found = [info("10.0.0.1"), info("8.8.8.8"), info("fe80::1%eth0", family=INET6), info("2606:4700::1", family=INET6)]
    assert [found[1], found[3]] == public_ones("a.example", found)
    with pytest.raises(ProtocolError, match=r"a\.example, which is at the private address 10\.0\.0\.1; refused"):
        public_ones("a.example", found[:1])


@pytest.mark.parametrize(
    ("host", "expected"), [("10.0.0.1", True), ("8.8.8.8", False), ("::1", True), ("64:ff9b::808:808", False)]
)
def test_which_kind_of_address_answered_is_known(host: str, expected: bool) -> None:
    addresses = Addresses()
    assert not addresses.is_private
    addresses.answered(info(host))
    assert addresses.is_private is expected
