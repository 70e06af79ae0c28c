"""The URL policy: what is one origin, what is private, and where a request may go."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transferkit.errors import ProtocolError
from transferkit.protocol.origin import (
    MAX_HOPS,
    Origin,
    check_step,
    join,
    may_see_credentials,
    must_be_public,
    redact,
    target_of,
)

REGISTRY = Origin("https", "registry.example.com", 443)
PLAIN = Origin("http", "registry.example.com", 80)


# -- origins


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", Origin("https", "example.com", 443)),
        ("https://example.com:443/path?query#part", Origin("https", "example.com", 443)),
        ("https://example.com:/", Origin("https", "example.com", 443)),
        ("http://example.com", Origin("http", "example.com", 80)),
        ("http://example.com:80/", Origin("http", "example.com", 80)),
        ("http://example.com:443/", Origin("http", "example.com", 443)),
        ("https://example.com:80/", Origin("https", "example.com", 80)),
        ("https://example.com:0/", Origin("https", "example.com", 0)),
        ("HTTPS://EXAMPLE.Com/Path", Origin("https", "example.com", 443)),
        ("https://example.com./", Origin("https", "example.com", 443)),
        ("https://example.com..:5000/", Origin("https", "example.com", 5000)),
        ("https://[::1]:5000/", Origin("https", "::1", 5000)),
        ("https://[2001:DB8::A]/", Origin("https", "2001:db8::a", 443)),
        ("https://XN--BCHER-KVA.example/", Origin("https", "xn--bcher-kva.example", 443)),
        ("https://a_b-c.example/", Origin("https", "a_b-c.example", 443)),
        ("https://example.com/a@b:c", Origin("https", "example.com", 443)),
    ],
)
def test_all_spellings_of_one_origin_are_equal(url: str, expected: Origin) -> None:
    assert Origin.of(url) == expected
    assert hash(Origin.of(url)) == hash(expected)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:8443/",
        "https://sub.example.com/",
        "https://example.com.evil.example/",
        "https://example.co/",
        "https://xn--exmple-cua.com/",
    ],
)
def test_another_scheme_host_or_port_is_another_origin(url: str) -> None:
    assert Origin.of(url) != Origin.of("https://example.com/")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://user@example.com/", "a URL with a user name in it is refused"),
        ("https://user:secret@example.com/", "a URL with a user name in it is refused"),
        ("https://@example.com/", "a URL with a user name in it is refused"),
        ("https://:@example.com/", "a URL with a user name in it is refused"),
        ("https://registry.example.com@evil.example/", "a URL with a user name in it is refused"),
        ("https://example.com/a b", "a URL with blanks, control characters or backslashes is refused"),
        (" https://example.com/", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com/\n", "a URL with blanks, control characters or backslashes is refused"),
        ("https://exam\tple.com/", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com/\r\nX: 1", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com\x00.evil.example/", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com/\x1b[2J", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com/\x7f", "a URL with blanks, control characters or backslashes is refused"),
        ("https://example.com\\@evil.example/", "a URL with blanks, control characters or backslashes is refused"),
        ("\\\\evil.example\\share", "a URL with blanks, control characters or backslashes is refused"),
        ("ftp://example.com/", "only http and https URLs are followed, not 'ftp'"),
        ("file:///etc/passwd", "only http and https URLs are followed, not 'file'"),
        ("javascript:alert(1)", "only http and https URLs are followed, not 'javascript'"),
        ("data:,secret", "only http and https URLs are followed, not 'data'"),
        ("//example.com/", "only http and https URLs are followed, not ''"),
        ("example.com", "only http and https URLs are followed, not ''"),
        ("", "only http and https URLs are followed, not ''"),
        (30 * "x" + "://example.com/", "only http and https URLs are followed, not 'xxxxxxxxxxxxxxxxxxxx'"),
        ("https://", "a URL without a host is refused"),
        ("https:///path", "a URL without a host is refused"),
        ("https://:443/", "a URL without a host is refused"),
        ("https://./", "a URL without a host is refused"),
        ("https:path", "a URL without a host is refused"),
        # Two versions of IDNA read the first one as two names, fass.de and xn--fa-hia.de.
        ("https://fa\u00df.de/", "a URL whose host is not a valid name is refused"),
        ("https://b\u00fccher.example/", "a URL whose host is not a valid name is refused"),
        ("https://\uff45xample.com/", "a URL whose host is not a valid name is refused"),
        ("https://localhost\u3002/", "a URL whose host is not a valid name is refused"),
        ("https://127.0.0.1\u3002/", "a URL whose host is not a valid name is refused"),
        ("https://\uff11\uff12\uff17.0.0.1/", "a URL whose host is not a valid name is refused"),
        ("https://\u00fc..example/", "a URL whose host is not a valid name is refused"),
        ("https://\u3002/", "a URL whose host is not a valid name is refused"),
        ("https://a..example/", "a URL whose host is not a valid name is refused"),
        ("https://.example/", "a URL whose host is not a valid name is refused"),
        ("https://*.example/", "a URL whose host is not a valid name is refused"),
        ("https://[v1.example]/", "a URL whose host is not a valid name is refused"),
        ("https://exa%6dple.com/", "a URL whose host is not a valid name is refused"),
        ("https://a,b/", "a URL whose host is not a valid name is refused"),
        ("https://" + 64 * "a" + ".example/", "a URL whose host is not a valid name is refused"),
        ("https://" + 127 * "a." + "abc/", "a URL whose host is not a valid name is refused"),
        ("https://" + 64 * "\u00fc" + ".example/", "a URL whose host is not a valid name is refused"),
        ("https://example.com:port/?secret", "a URL that does not parse is refused: https://example.com:port/"),
        ("https://example.com:65536/?secret", "a URL that does not parse is refused: https://example.com:65536/"),
        ("https://user:secret@example.com:-1/", "a URL that does not parse is refused: https://example.com:-1/"),
        ("https://[::1/?secret", "a URL that does not parse is refused: <a URL that does not parse>"),
        ("https://example.com\uff0fevil/?secret", "a URL that does not parse is refused: <a URL that does not parse>"),
    ],
)
def test_a_url_that_is_not_plain_is_refused(url: str, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Origin.of(url)
    assert str(caught.value) == message


LABEL = st.from_regex("[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(
    labels=st.lists(LABEL, min_size=1, max_size=4),
    upper=st.sets(st.integers(0, 40)),
    dots=st.integers(0, 1),
    scheme=st.sampled_from(["http", "https"]),
    named=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_case_dots_and_the_default_port_do_not_matter(
    labels: list[str], upper: set[int], dots: int, scheme: str, named: bool
) -> None:
    port = {"http": 80, "https": 443}[scheme]
    host = ".".join(labels)
    spelled = "".join(c.upper() if n in upper else c for n, c in enumerate(host)) + "." * dots
    url = f"{scheme.title()}://{spelled}{f':{port}' if named else ''}/path"
    assert Origin.of(url) == Origin(scheme, host, port)


@given(st.text() | st.text().map("https://{}/".format) | st.text(st.sampled_from("htps:/[]@.%\u00fc\u3002\u33021aF")))
@example("https://\u00df/")
@settings(deadline=None, max_examples=150)
def test_whatever_a_peer_sends_is_an_origin_or_refused(url: str) -> None:
    try:
        origin = Origin.of(url)
    except ProtocolError:
        return
    assert origin.scheme in ("http", "https")
    assert origin.host
    assert origin.host.isascii()
    assert not origin.host.endswith(".")
    assert 0 <= origin.port <= 65535


@pytest.mark.parametrize(
    ("origin", "netloc"),
    [
        (Origin("https", "example.com", 443), "example.com"),
        (Origin("https", "example.com", 80), "example.com:80"),
        (Origin("http", "example.com", 80), "example.com"),
        (Origin("http", "::1", 80), "[::1]"),
        (Origin("http", "::1", 5000), "[::1]:5000"),
    ],
)
def test_an_origin_is_written_as_in_a_url(origin: Origin, netloc: str) -> None:
    assert origin.netloc == netloc
    assert str(origin) == f"{origin.scheme}://{netloc}"
    assert Origin.of(str(origin)) == origin


# -- what may be shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/path", "https://example.com/path"),
        ("https://user:secret@example.com:5000/path?secret#secret", "https://example.com:5000/path"),
        ("https://user:sec@ret@example.com/", "https://example.com/"),
        ("https://example.com?X-Signature=secret", "https://example.com"),
        ("https://example.com#secret", "https://example.com"),
        ("//user:secret@example.com/path?secret", "//example.com/path"),
        ("/path?secret", "/path"),
        ("https://[secret", "<a URL that does not parse>"),
        ("https://user:secret@[::1/", "<a URL that does not parse>"),
    ],
)
def test_what_is_secret_in_a_url_is_not_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_what_is_shown_is_bounded() -> None:
    assert redact("https://example.com/" + 10_000 * "x") == "https://example.com/" + 480 * "x"


@given(
    scheme=st.sampled_from(["https://", "http://", "//", "ftp://"]),
    user=st.text(st.characters(exclude_characters="/?#")),
    query=st.text(),
    part=st.text(),
    where=st.sampled_from(["user", "password", "query", "part"]),
)
@settings(deadline=None, max_examples=150)
def test_no_user_name_and_no_query_is_ever_shown(scheme: str, user: str, query: str, part: str, where: str) -> None:
    secret = {name: "s3cret" if name == where else "" for name in ("user", "password", "query", "part")}
    url = (
        f"{scheme}{secret['user']}{user}:{secret['password']}@example.com/path"
        f"?{query}{secret['query']}#{part}{secret['part']}"
    )
    assert "s3cret" not in redact(url)


@given(st.text())
@settings(deadline=None, max_examples=100)
def test_anything_can_be_redacted(url: str) -> None:
    assert len(redact(url)) <= 500


# -- the policy

PRIVATE_URLS = [
    "https://localhost/x",
    "https://LOCALHOST./x",
    "https://127.0.0.1/x",
    "https://127.0.0.1./x",
    "https://127.0.0.1:443/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0177.1/x",
    "https://0.0.0.0:8080/x",
    "https://0/x",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::ffff:169.254.169.254]/x",
    "https://[::ffff:a9fe:a9fe]/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[fe80::1]/x",
    "https://[fe80::1%25eth0]/x",
    "https://[fd00::1]/x",
    "https://10.1.2.3/x",
    "https://192.168.1.1/x",
    "https://192.0.0.192/opc/v2/instance/",
    "https://192.0.0.8/x",
    "https://[64:ff9b::a9fe:a9fe]/x",
    "https://[2002:a9fe:a9fe::1]/x",
    "https://[2001:0:808:808::5601:5601]/x",
]
DOCUMENTATION_URLS = ["https://203.0.113.7/x", "https://[2001:db8::1]/x", "https://[3fff::1]/x"]


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_a_public_registry_may_not_send_us_to_a_private_address(url: str) -> None:
    with pytest.raises(ProtocolError, match=r"^registry\.example\.com sends us to the private address "):
        check_step(REGISTRY, url, previous=REGISTRY)


@pytest.mark.parametrize("url", PRIVATE_URLS)
@pytest.mark.parametrize("host", ["localhost", "registry.localhost", "127.0.0.1", "192.168.7.7", "::1", "2130706433"])
def test_a_private_registry_may(url: str, host: str) -> None:
    registry = Origin("https", host, 5000)
    assert check_step(registry, url, previous=registry) == Origin.of(url)


@pytest.mark.parametrize("url", DOCUMENTATION_URLS)
def test_a_public_registry_may_not_send_us_to_an_address_of_the_examples(url: str) -> None:
    with pytest.raises(ProtocolError, match=r"^registry\.example\.com sends us to the documentation address "):
        check_step(REGISTRY, url, previous=REGISTRY)


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_neither_may_a_registry_at_an_address_of_the_examples_send_us_to_a_private_one(url: str) -> None:
    registry = Origin("https", "203.0.113.9", 443)
    with pytest.raises(ProtocolError, match=r"^203\.0\.113\.9 sends us to the private address "):
        check_step(registry, url, previous=registry)


@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example.com/x",
        "https://REGISTRY.example.com.:8443/x",
        "https://cdn.example.com/x?X-Signature=1",
        "https://evil.example/",
        "https://8.8.8.8/x",
        "https://[2606:4700:4700::1111]/x",
        "https://[64:ff9b::808:808]/x",
    ],
)
def test_a_public_address_is_fine(url: str) -> None:
    assert check_step(REGISTRY, url, previous=REGISTRY) == Origin.of(url)


def test_https_never_becomes_http() -> None:
    with pytest.raises(ProtocolError) as caught:
        check_step(REGISTRY, "http://cdn.example.com/x?X-Signature=secret", previous=REGISTRY)
    assert str(caught.value) == ("registry.example.com sends us from https to http (http://cdn.example.com/x); refused")


@pytest.mark.parametrize("url", ["http://registry.example.com/x", "http://registry.example.com:443/x"])
def test_https_becomes_http_not_even_on_the_registry_itself(url: str) -> None:
    with pytest.raises(ProtocolError, match="from https to http"):
        check_step(REGISTRY, url, previous=REGISTRY)


def test_https_becomes_http_not_even_at_a_later_hop_or_with_an_allowed_host() -> None:
    cdn = Origin("https", "cdn.example.com", 443)
    with pytest.raises(ProtocolError, match=r"^cdn\.example\.com sends us from https to http "):
        check_step(PLAIN, "http://10.0.0.1/x", previous=cdn, allowed=frozenset({"10.0.0.1"}))


def test_https_becomes_http_not_even_for_a_private_registry() -> None:
    registry = Origin("https", "localhost", 5000)
    with pytest.raises(ProtocolError, match="from https to http"):
        check_step(registry, "http://localhost:5000/x", previous=registry)


@pytest.mark.parametrize("url", ["http://cdn.example.com/x", "https://cdn.example.com/x"])
def test_http_may_stay_or_become_https(url: str) -> None:
    assert check_step(PLAIN, url, previous=PLAIN) == Origin.of(url)


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        (Origin("http", "localhost", 5000), "http://localhost:9000/x"),
        (Origin("http", "10.0.0.1", 5000), "https://10.0.0.1:9000/x"),
        (Origin("http", "::1", 5000), "http://[::1]/x"),
    ],
)
def test_the_host_of_the_registry_is_exempt_whatever_its_port(registry: Origin, url: str) -> None:
    assert check_step(registry, url, previous=registry) == Origin.of(url)


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("10.0.0.1", "https://10.0.0.1/x"),
        ("10.0.0.1", "https://10.0.0.1:9000/x"),
        ("10.0.0.1:9000", "https://10.0.0.1:9000/x"),
        ("10.0.0.1:443", "https://10.0.0.1/x"),
        ("minio.localhost:9000", "https://MinIO.localhost.:9000/x"),
        ("fd00::1", "https://[fd00::1]/x"),
        ("fd00::1", "https://[fd00::1]:9000/x"),
        ("[fd00::1]", "https://[fd00::1]/x"),
        ("[fd00::1]:9000", "https://[fd00::1]:9000/x"),
    ],
)
def test_an_allowed_host_is_exempt(allowed: str, url: str) -> None:
    assert check_step(REGISTRY, url, previous=REGISTRY, allowed=frozenset({allowed, "10.9.9.9"})) == Origin.of(url)


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("10.0.0.2", "https://10.0.0.1/x"),
        ("10.0.0.1:9000", "https://10.0.0.1/x"),
        ("10.0.0.1:9000", "https://10.0.0.1:9001/x"),
        ("10.0.0.1", "https://2130706433/x"),
        ("localhost", "https://evil.localhost/x"),
        ("[fd00::1]:9000", "https://[fd00::1]/x"),
        ("", "https://10.0.0.1/x"),
    ],
)
def test_another_host_than_the_allowed_one_is_not(allowed: str, url: str) -> None:
    with pytest.raises(ProtocolError, match="private address"):
        check_step(REGISTRY, url, previous=REGISTRY, allowed=frozenset({allowed}))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://10.0.0.1:9000/x?secret", "10.0.0.1:9000"),
        ("https://10.0.0.1/x?secret", "10.0.0.1"),
        ("https://[fd00::1]:9000/x?secret", "[fd00::1]:9000"),
        ("https://[fd00::1]/x?secret", "[fd00::1]"),
    ],
)
def test_the_refusal_names_the_option_that_helps(url: str, named: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_step(REGISTRY, url, previous=REGISTRY)
    assert str(caught.value) == (
        f"registry.example.com sends us to the private address {named}; refused. If that is right, allow it with "
        f"TransportOptions(storage_hosts={{'{named}'}})"
    )
    assert check_step(REGISTRY, url, previous=REGISTRY, allowed=frozenset({named})) == Origin.of(url)


@pytest.mark.parametrize("url", ["https://user:secret@cdn.example.com/", "ftp://cdn.example.com/", "https://a b/"])
def test_a_step_to_a_url_that_is_not_plain_is_refused(url: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_step(REGISTRY, url, previous=REGISTRY, allowed=frozenset({"cdn.example.com"}))
    assert "secret" not in str(caught.value)


# -- who may see user name and password


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry.example.com", "https://registry.example.com/token"),
        ("https://registry.example.com", "https://REGISTRY.example.com.:8443/token"),
        ("http://registry.example.com", "http://registry.example.com:8080/token"),
        ("http://registry.example.com", "https://registry.example.com/token"),
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://index.docker.io", "https://auth.docker.io/token"),
        ("https://docker.io", "https://auth.docker.io/token"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("https://registry.redhat.io", "https://sso.redhat.com/token"),
        ("https://registry.connect.redhat.com", "https://sso.redhat.com/token"),
        ("http://registry-1.docker.io", "https://auth.docker.io/token"),
    ],
)
def test_a_token_service_of_the_registry_may_see_its_credentials(registry: str, realm: str) -> None:
    assert may_see_credentials(Origin.of(registry), Origin.of(realm))


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry.example.com", "http://registry.example.com/token"),
        ("https://registry.example.com", "https://auth.example.com/token"),
        ("https://registry.example.com", "https://registry.example.com.evil.example/token"),
        ("https://registry.example.com", "https://auth.docker.io/token"),
        ("https://registry-1.docker.io", "http://auth.docker.io/token"),
        ("http://registry-1.docker.io", "http://auth.docker.io/token"),
        ("https://registry-1.docker.io", "https://auth.docker.io.evil.example/token"),
        ("https://registry-1.docker.io", "https://gitlab.com/token"),
        ("https://auth.docker.io", "https://registry-1.docker.io/token"),
        ("http://localhost:5000", "http://127.0.0.1:5000/token"),
        ("http://localhost:5000", "http://169.254.169.254/token"),
    ],
)
def test_another_token_service_may_not(registry: str, realm: str) -> None:
    assert not may_see_credentials(Origin.of(registry), Origin.of(realm))


@pytest.mark.parametrize(
    ("allowed", "realm", "expected"),
    [
        ("auth.example.com", "https://auth.example.com/token", True),
        ("auth.example.com", "https://auth.example.com:8443/token", True),
        ("auth.example.com:8443", "https://auth.example.com:8443/token", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443/token", True),
        ("fd00::1", "https://[fd00::1]/token", True),
        ("auth.example.com:8443", "https://auth.example.com/token", False),
        ("example.com", "https://auth.example.com/token", False),
        ("auth.example.com", "http://auth.example.com/token", False),
    ],
)
def test_a_token_service_that_the_user_names_may(allowed: str, realm: str, expected: bool) -> None:
    assert may_see_credentials(REGISTRY, Origin.of(realm), frozenset({allowed})) is expected


# -- following


def test_a_chain_of_hops_has_an_end() -> None:
    assert MAX_HOPS == 10


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://cdn.example.com/x?a=%2F", "https://cdn.example.com/x?a=%2F"),
        ("http://cdn.example.com/x", "http://cdn.example.com/x"),
        ("HTTPS://cdn.example.com/x", "https://cdn.example.com/x"),
        ("/v2/b/uploads/1?_state=a", "https://r:5000/v2/b/uploads/1?_state=a"),
        ("//cdn.example.com/x", "https://cdn.example.com/x"),
        ("2?_state=b", "https://r:5000/v2/a/uploads/2?_state=b"),
        ("?_state=b", "https://r:5000/v2/a/uploads/1?_state=b"),
        ("../up", "https://r:5000/v2/a/up"),
        ("ftp://cdn.example.com/x", "ftp://cdn.example.com/x"),
    ],
)
def test_a_location_may_be_relative(location: str, expected: str) -> None:
    assert join("https://r:5000/v2/a/uploads/1?_state=a", location) == expected


@pytest.mark.parametrize("location", ["//[::1/x?secret", "//[/x", "//example.com\uff0fevil/"])
def test_a_location_that_does_not_parse_is_refused(location: str) -> None:
    with pytest.raises(ProtocolError, match="a URL that does not parse is refused: ") as caught:
        join("https://r:5000/v2/", location)
    assert "secret" not in str(caught.value)


# -- names that lead to addresses


@pytest.mark.parametrize(
    ("registry", "url", "allowed", "expected"),
    [
        ("https://registry.example.com", "https://storage.example.com", set(), True),
        ("https://8.8.8.8", "https://storage.example.com", set(), True),
        ("https://registry.example.com", "https://registry.example.com:444", set(), False),  # its own host
        ("https://registry.example.com", "https://storage.example.com", {"storage.example.com"}, False),
        ("https://registry.example.com", "https://storage.example.com", {"storage.example.com:443"}, False),
        ("https://registry.example.com", "https://storage.example.com", {"storage.example.com:444"}, True),
        ("https://registry.example.com", "https://8.8.8.8", set(), False),  # check_step has judged it
        ("http://10.0.0.1", "http://storage.example.com", set(), False),
        ("http://localhost:5000", "http://storage.example.com", set(), False),
    ],
)
def test_a_name_elsewhere_has_to_be_public(registry: str, url: str, allowed: set[str], expected: bool) -> None:
    assert must_be_public(Origin.of(registry), Origin.of(url), frozenset(allowed)) is expected


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("https://a.example", ("a.example:443", "a.example", "a.example")),
        ("http://a.example:5000", ("a.example:5000", "a.example", "a.example")),
        ("https://[::1]:5000", ("[::1]:5000", "[::1]", "::1")),
    ],
)
def test_a_host_has_several_names(url: str, names: tuple[str, str, str]) -> None:
    assert names == Origin.of(url).names


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://host", "/"),
        ("https://host/a%2Fb?X=%20#part", "/a%2Fb?X=%20"),
        ("http://host?a=b", "/?a=b"),
        ("http://host:5000/v2/?a=/b?c", "/v2/?a=/b?c"),
        ("http://host#a/b?c", "/"),
        ("http://host//a", "//a"),
    ],
)
def test_a_target_is_path_and_query_byte_for_byte(url: str, target: str) -> None:
    assert target_of(url) == target


def test_urls_of_one_origin_have_equal_origins_and_a_refusal_is_none_of_them() -> None:
    """What was read once is kept; what was refused is refused each time."""
    assert (
        Origin.of("https://example.com/a?b")
        == Origin.of("https://EXAMPLE.com:443#c")
        == Origin.of("https://example.com.")
    )
    assert Origin.of("https://example.com/a?b") is Origin.of("https://example.com/c#d")
    for _ in range(2):
        with pytest.raises(ProtocolError, match="user name"):
            Origin.of("https://me:pw@example.com/a")
        with pytest.raises(ProtocolError, match="control characters"):
            Origin.of("https://example.com/a b")
