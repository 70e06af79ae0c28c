"""Which requests a server answers: by the name it is called by, and by the page that sent them."""

from __future__ import annotations

import pytest
from werkzeug.test import Client

from transferkit.server.guard import Guard


def inside(environ, start_response):
    start_response("200 OK", [])
    return [b"let through"]


def ask(method="GET", path="/api/tags", *, served="127.0.0.1", hosts=(), length=None, **headers):
    """Return the status of a request; ``host`` is the header unless told otherwise."""
    fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    client = Client(Guard(inside, served=served, hosts=hosts, limit=1000))
    given = {} if length is None else {"environ_overrides": {"CONTENT_LENGTH": str(length)}}
    response = client.open(path, method=method, headers={"Host": "127.0.0.1:11434", **fields}, **given)
    assert "Access-Control-Allow-Origin" not in response.headers
    return response.status_code


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:11434", 200),
        ("localhost.:11434", 200),
        ("models.localhost", 200),
        ("127.0.0.1", 200),
        ("127.8.9.1:80", 200),
        ("[::1]:11434", 200),
        ("attacker.example", 403),
        ("attacker.example:11434", 403),
        ("localhost.attacker.example", 403),
        ("127.0.0.1.attacker.example", 403),
        ("127.0.0.1@attacker.example", 403),
        ("attacker.example@127.0.0.1", 403),
        ("192.168.1.7", 403),
        ("[::1", 403),
        ("localhost:port", 403),
        ("localhost/x", 403),
        ("", 403),
    ],
)
def test_a_name_that_leads_here_is_none_of_ours(host, expected):
    assert expected == ask(Host=host)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_no_method_is_answered_under_a_foreign_name(method):
    assert 403 == ask(method, Host="attacker.example")
    assert 403 == ask(method, "/v2/", Host="attacker.example")


def test_the_address_that_is_served_on_and_names_that_are_allowed_are_ours():
    assert 200 == ask(served="192.168.1.7", Host="192.168.1.7:5000")
    assert 200 == ask(served="Models.example", Host="models.example")
    assert 200 == ask(hosts=["Models.Example"], Host="models.example:5000")
    assert 403 == ask(hosts=["models.example"], Host="other.example")


@pytest.mark.parametrize("served", ["0.0.0.0", "::"])
def test_who_listens_everywhere_is_called_by_any_address_and_by_no_name(served):
    assert 200 == ask(served=served, Host="192.168.1.7:5000")
    assert 200 == ask(served=served, Host="[fd00::7]:5000")
    assert 403 == ask(served=served, Host="attacker.example")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "INVENTED"])
@pytest.mark.parametrize(
    ("origin", "site", "expected"),
    [
        (None, None, 200),  # no browser
        ("http://127.0.0.1:11434", None, 200),
        ("http://127.0.0.1:11434", "same-origin", 200),
        ("https://127.0.0.1:11434", None, 200),  # something in front has the TLS
        (None, "none", 200),
        ("http://attacker.example", None, 403),
        ("http://attacker.example", "cross-site", 403),
        ("http://127.0.0.1:11434", "cross-site", 403),
        ("http://attacker.example", "same-origin", 403),
        ("http://127.0.0.1:3000", "same-site", 403),
        ("http://127.0.0.1:3000", None, 403),
        ("http://127.0.0.1", None, 403),
        ("http://localhost:11434", None, 403),
        ("null", None, 403),
        ("", None, 403),
        ("http://[", None, 403),
        ("http://127.0.0.1:x", None, 403),
        (None, "same-site", 403),
        (None, "invented", 403),
    ],
)
def test_what_changes_something_comes_from_no_foreign_page(method, origin, site, expected):
    assert expected == ask(method, Origin=origin, Sec_Fetch_Site=site)


def test_a_port_that_goes_without_saying_is_the_same_port():
    assert 200 == ask("POST", Host="localhost", Origin="http://localhost:80")
    assert 200 == ask("POST", Host="localhost:443", Origin="https://localhost")
    assert 403 == ask("POST", Host="localhost:443", Origin="http://localhost")


def test_a_foreign_page_may_ask_but_not_read():
    assert 200 == ask("GET", Origin="http://attacker.example", Sec_Fetch_Site="cross-site")


def test_bodies_are_bounded_but_those_of_blobs():
    assert 200 == ask("POST", length=1000)
    assert 413 == ask("POST", length=1001)
    assert 413 == ask("POST", "/v2x", length=1001)
    assert 200 == ask("PUT", "/v2/a/blobs/uploads/1", length=1001)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/v2/",
            {
                "errors": [
                    {"code": "DENIED", "message": "the request comes from a page of another site", "detail": None}
                ]
            },
        ),
        ("/api/pull", {"code": "forbidden", "error": "the request comes from a page of another site"}),
    ],
)
def test_each_part_refuses_in_its_own_words(path, expected):
    client = Client(Guard(inside, served="127.0.0.1"))
    response = client.post(path, headers={"Host": "localhost", "Origin": "null"})
    assert (403, expected) == (response.status_code, response.json)
    assert "nosniff" == response.headers["X-Content-Type-Options"]
