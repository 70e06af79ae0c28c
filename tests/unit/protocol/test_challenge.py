"""``WWW-Authenticate`` in all its lawful forms, and in some that are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.errors import ProtocolError
from transferkit.protocol.challenge import AuthChallenge, merge_scopes, parse_all

DOCKER = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (DOCKER, ("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push")),
        ("Bearer realm=https://a/t,service=s", ("bearer", "https://a/t", "s", "")),
        ('bearer scope="x" , REALM = "https://a/t"', ("bearer", "https://a/t", "", "x")),
        (r'Bearer realm="a\"b\\c"', ("bearer", r"a\"b\c".replace('\\"', '"'), "", "")),
        ('Bearer realm="never closed', ("bearer", "never closed", "", "")),
        ('Basic realm="r", Bearer realm="https://a/t",service="s"', ("bearer", "https://a/t", "s", "")),
        ('Basic realm="only"', ("basic", "only", "", "")),
        ("Negotiate", ("negotiate", "", "", "")),
        ('Bearer realm="first",realm="second"', ("bearer", "first", "", "")),
        (',, ;"@ Bearer realm="x"', ("bearer", "x", "", "")),
        ('Bearer realm=,service="s"', ("bearer", "", "s", "")),
    ],
)
def test_a_challenge_is_read(header, expected):
    challenge = AuthChallenge.parse(header)

    assert expected == (challenge.scheme, challenge.realm, challenge.service, challenge.scope)


def test_several_challenges_are_kept_apart():
    challenges = parse_all('Basic realm="a, b", Bearer realm="https://t",scope="x y",Negotiate dG9rZW4=, Digest')

    assert ["basic", "bearer", "negotiate", "digest"] == [challenge.scheme for challenge in challenges]
    assert "a, b" == challenges[0].realm
    assert ("x", "y") == challenges[1].scopes


def test_the_seeds_own_example():
    challenge = AuthChallenge.parse(
        'Bearer realm="https://auth.example.com",service="registry",scope="repository:foo:pull"'
    )

    assert ("https://auth.example.com", "registry") == (challenge.realm, challenge.service)
    assert ("repository:foo:pull",) == challenge.scopes


@pytest.mark.parametrize("header", ["", " ,, ", "\x00\x01", '"', "@@@"])
def test_garbage_holds_no_challenge(header):
    assert parse_all(header) == []
    with pytest.raises(ProtocolError, match="no challenge"):
        AuthChallenge.parse(header)


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=200)
def test_no_text_makes_the_parser_raise(text):
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse_all(text))


def test_a_flood_is_read_to_its_bound_only():
    assert 5462 >= len(parse_all("a, " * 1_000_000))


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ([], ()),
        (["repository:a/b:pull"], ("repository:a/b:pull",)),
        (["repository:a:pull", "repository:a:pull,push"], ("repository:a:pull,push",)),
        (["repository:a:push", "repository:b:pull"], ("repository:a:push", "repository:b:pull")),
        (["repository:localhost:5000/a:pull", "odd"], ("repository:localhost:5000/a:pull", "odd")),
    ],
)
def test_scopes_of_one_resource_become_one(scopes, expected):
    assert expected == merge_scopes(*scopes)
