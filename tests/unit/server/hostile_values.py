"""What stands in requests that nobody planned: strategies of hypothesis for every route, method, header and body.

Texts are as WSGI has them: one character a byte.
"""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from hypothesis import strategies as st

from tests.unit.server.hostile import ABSENT, HELLO, SESSION, STATE, VALUE, Ask, manifest_with

bytes_ = st.binary(max_size=12).map(lambda raw: raw.decode("latin-1"))
"""Any bytes, as WSGI has them."""
texts = st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass").decode("latin-1"))
odd = bytes_ | texts
escaped = odd.map(lambda text: quote(text.encode("latin-1")))
numbers = st.sampled_from(
    ["0", "-1", "1", "x", "", "+1", "1_0", " 1", "1.5", "9" * 19, "9" * 30, "9" * 5000, "٣".encode().decode("latin-1")]
) | st.integers().map(str)

names = st.sampled_from(
    [
        "a", "library/smol", "a/blobs/uploads", "a/_uploads", "..", "a/..", "../../etc", "a/../b", "A", "a//b", "_", "",
        "a%2Fb", "%00", "a\x00b", "a\n", "a" * 256, "a" * 5000, "/".join("a" * 130), "Ä", "\xc3\xa9", "\xed\xa0\x80",
        "token", ".", "a/.", "-", "a\\b", "~", "blobs", "uploads", "a/manifests/b",
    ]
) | odd  # fmt: skip
digests = st.sampled_from(
    [
        HELLO, ABSENT, "sha512:" + 128 * "0", "sha512:" + 64 * "0", "md5:" + 32 * "0", "sha256:..", "sha256:", ":",
        HELLO.upper(), HELLO + "\n", HELLO + "/..",
        "sha256:" + 64 * "٠".encode().decode("latin-1"), "sha256-" + HELLO[7:],
        "sha256:" + "0" * 5000, "",
    ]
) | odd  # fmt: skip
references = digests | st.sampled_from(
    ["latest", "list", "-x", "a" * 128, "a" * 129, "a" * 300, ".", "..", "%2e%2e", "a\x00b", SESSION, "uploads"]
)
kinds = st.sampled_from(
    ["blobs", "blobs/uploads", "manifests", "tags", "referrers", "chunksums", "_catalog", "uploads", "invented", ""]
)
registry_paths = st.builds(lambda name, kind, reference: f"/v2/{name}/{kind}/{reference}", names, kinds, references)
session_paths = st.just(f"/v2/a/blobs/uploads/{SESSION}")
api_paths = st.sampled_from(
    ["pull", "delete", "show", "tags", "ps", "version", "", "transferkit/store", "transferkit/verify", "pull/", "PULL"]
).map(lambda name: f"/api/{name}")
plain_paths = st.sampled_from(
    [
        "/", "", "/v2", "/v2/", "/v2//", "/v2/token", "/v2/_catalog", "//", "//v2/", "/page.js", "/page.css",
        "/icon.svg",
        "/../etc/passwd", "/%2e%2e/etc/passwd", "/api", "/v1/", "*", "127.0.0.1:80", "/v2/a", "/v2/a/", "/./v2/",
    ]
)  # fmt: skip
paths = st.one_of(
    registry_paths, registry_paths, session_paths, api_paths, plain_paths, odd.map(lambda text: "/" + text)
)

states = st.sampled_from([STATE, STATE + "x", "", "====", "%ff"]) | st.builds(
    lambda offset, more: base64.b64encode(f"{SESSION} {offset}{more}".encode()).decode(),
    numbers,
    st.sampled_from(["", f" {HELLO}", " sha512:" + 64 * "0", " x"]),
)
pairs = st.one_of(
    st.tuples(st.sampled_from(["digest", "mount"]), digests.map(lambda text: quote(text.encode("latin-1")))),
    st.tuples(st.just("digest-algorithm"), st.sampled_from(["sha256", "sha512", "md5", "SHA256", "", "shake_128"])),
    st.tuples(st.sampled_from(["from", "ns", "last"]), names.map(lambda text: quote(text.encode("latin-1")))),
    st.tuples(st.just("ns"), st.sampled_from(["docker.io", "../..", "%00", "[::1]:80", "a:b@c", "registry.ollama.ai"])),
    st.tuples(st.just("n"), numbers.map(lambda text: quote(text.encode("latin-1")))),
    st.tuples(st.just("tag"), references.map(lambda text: quote(text.encode("latin-1")))),
    st.tuples(st.just("_state"), states),
    st.tuples(st.just("artifactType"), escaped),
    st.tuples(escaped, escaped),
)
queries = st.one_of(
    st.lists(pairs, max_size=4).map(lambda found: "&".join(f"{key}={value}" for key, value in found)),
    st.sampled_from(["%", "%zz", "a", "&&&", "=", "digest", "a=%ff", "tag=x&" * 70, "digest=a;digest=b", "?" * 100]),
)

headers = st.one_of(
    st.tuples(
        st.just("Range"),
        st.builds("bytes={}-{}".format, numbers, numbers)
        | st.sampled_from(
            [
                "bytes=0-1,3-4", "bytes=-0", "bytes=5-", "bytes=-", "bytes=4-2", "bytes=", "lines=0-1", "bytes", "=",
                ",",
                "bytes=0-1," * 50, "bytes=-5,", "none", "bytes=0-0-0", "bytes = 0-1",
            ]
        ),
    ),
    st.tuples(
        st.just("Content-Range"),
        st.builds("{}-{}".format, numbers, numbers) | st.sampled_from(["bytes 0-4/5", "0-4/5", "-", "4-0",
        "bytes=0-4"]),
    ),
    st.tuples(st.just("Content-Length"), numbers),
    st.tuples(
        st.just("Content-Type"),
        st.sampled_from(
            [
                "application/json", "application/vnd.oci.image.manifest.v1+json", "text/plain; charset=\xff", "a/b/c",
                ";",
                "application/vnd.oci.image.index.v1+json", "multipart/form-data; boundary=x", "x" * 500, "",
                "application/x-www-form-urlencoded",
            ]
        ),
    ),
    st.tuples(
        st.sampled_from(["If-None-Match", "If-Match", "If-Range"]),
        st.sampled_from([f'"{HELLO}"', f'W/"{HELLO}"', "*", '"', 'W/', ",,,", '"a', HELLO, '"' * 500, '"\\"']),
    ),
    st.tuples(
        st.sampled_from(["If-Modified-Since", "If-Unmodified-Since", "If-Range", "Date"]),
        st.sampled_from(
            [
                "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "Mon, 32 Foo 2024 99:99:99 +9999",
                "0",
                "Thu, 01 Jan 0001 00:00:00 +2359", "Thu, 01 Jan 9999 23:59:59 -2359",
            ]
        ),
    ),
    st.tuples(
        st.just("Authorization"),
        st.sampled_from(
            [
                "Basic", "Basic x", "Basic \xff", "Basic OjpvOg==", "Basic /////w==", "Bearer", "Bearer x",
                "Bearer 0.0",
                "Bearer 9999999999." + 64 * "a", "Digest username=x", "Digest ,,,", 'Bearer a="', "=",
                "Basic " + "A" * 9999,
                "Basic YW5uOnNlY3JldA==",
            ]
        ),
    ),
    st.tuples(st.just("OCI-Namespace"), st.sampled_from(["docker.io", "../..", "\xff", "a b", "[::1", "", "h" * 400])),
    st.tuples(
        st.sampled_from(["Origin", "Sec-Fetch-Site", "Referer"]),
        st.sampled_from(["null", "http://[::1", "http://127.0.0.1", "http://a:99999999", "//", "same-origin", "\xff",
        ""]),
    ),
    st.tuples(
        st.just("Host"),
        st.sampled_from(
            ["127.0.0.1", "[::1]:80", "[::1", "localhost:99999", "a@b", "localhost.", "", "127.0.0.1:\xd9\xa3", "\xff"]
        ),
    ),
    st.tuples(
        st.sampled_from(
            [
                "Accept", "Accept-Encoding", "User-Agent", "Cookie", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded",
                "X-Redirect-Uploads", "X-Content-Length", "X-Real-Uri", "Docker-Content-Digest", "OCI-Tag",
                "OCI-Subject",
            ]
        ),
        st.sampled_from(["ollama/0.1", "*/*", "a=b; c", "null", "9" * 30, ";q=x"]) | bytes_.filter(VALUE.match),
    ),
)  # fmt: skip

scalars = st.sampled_from([None, True, 0, -1, 2**63, 10**4000, 0.5, "", "\ud800", "\x00", "a" * 400]) | st.text(
    max_size=8
)
models = st.sampled_from(
    [
        "smol", "", "://", "a" * 400, f"h/n/m:t@{HELLO}", "ftp://a", "é/a", "hf://a/b", "../../x", "a/b/c:d",
        "\ud800", "a\x00",
        "smol:latest", "@", f"@{HELLO}", "http://[::1/a/b", "h:99999999/a/b", "user:password@h/a/b", "localhost:80/a",
        "odd:deep", "odd:infinite", "odd:lone", "odd:large",
    ]
)  # fmt: skip
asked = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("model", "name", "MODEL", "stream", "insecure", "\ud800", ""), models | scalars)
)
keys = st.sampled_from(
    [
        "config",
        "layers",
        "manifests",
        "subject",
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "artifactType",
        "a",
    ]
)
documents = st.recursive(
    scalars | st.sampled_from([HELLO, ABSENT, "application/vnd.oci.image.manifest.v1+json"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
manifests = st.fixed_dictionaries(
    {"schemaVersion": st.just(2)},
    optional={
        "layers": st.just([{"digest": HELLO, "size": 5, "mediaType": "a/b"}]) | documents,
        "subject": st.just({"digest": ABSENT}) | documents,
        "manifests": st.just([]) | documents,
        "config": st.just({"digest": HELLO}) | documents,
        "annotations": documents,
        "artifactType": documents,
        "mediaType": st.just("application/vnd.oci.image.manifest.v1+json") | documents,
    },
)


def deep(levels: int, before: str = "", after: str = "") -> bytes:
    return (before + "[" * levels + "]" * levels + after).encode()


bodies = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"hello", b"", b"\xff{", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"model":1e999}',
    b'{"model":"\\ud800"}']),
    (asked | manifests | documents).map(lambda value: json.dumps(value).encode()),
    asked.map(lambda value: json.dumps(value).encode("utf-16")),
    st.sampled_from(
        [
            deep(100_000), deep(100_000, '{"model":'), deep(985, '{"model":', "}"), b'{"a":' * 100_000,
            b'{"model":' + b"9" * 100_000 + b"}",
            *(manifest_with(text).encode() for text in ("1e999", "[" * 983 + "]" * 983, '{"a":1e999}')),
            manifest_with("9" * 5000).encode(),
        ]
    ),
)  # fmt: skip
methods = st.sampled_from(
    [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "get",
        "X" * 300,
        "M-SEARCH",
    ]
)
fitting = st.sampled_from(
    [
        ("GET", f"/v2/a/blobs/{HELLO}", ""), ("GET", f"/v2/library/smol/blobs/{HELLO}", ""),
        ("HEAD", f"/v2/library/smol/blobs/{HELLO}", "ns=registry.ollama.ai"), ("GET", f"/v2/a/chunksums/{HELLO}", ""),
        ("POST", "/v2/a/blobs/uploads/", ""), ("POST", "/v2/a/blobs/uploads/", f"digest={HELLO}"),
        ("POST", "/v2/b/blobs/uploads/", f"mount={HELLO}&from=a"),
        ("PATCH", f"/v2/a/blobs/uploads/{SESSION}", f"_state={STATE}"), ("GET", f"/v2/a/blobs/uploads/{SESSION}", ""),
        ("PUT", f"/v2/a/blobs/uploads/{SESSION}", f"_state={STATE}&digest={HELLO}"),
        ("PUT", "/v2/a/manifests/latest", ""), ("PUT", "/v2/a/manifests/latest", "tag=a&tag=b"),
        ("PUT", f"/v2/a/manifests/{HELLO}", ""), ("DELETE", "/v2/a/manifests/latest", ""),
        ("GET", "/v2/a/manifests/latest", ""), ("GET", "/v2/library/smol/manifests/latest", ""),
        ("GET", f"/v2/a/referrers/{ABSENT}", ""), ("GET", "/v2/a/tags/list", ""), ("GET", "/v2/a/tags/list", "n=1"),
        ("GET", "/v2/library/smol/tags/list", "ns=registry.ollama.ai"), ("GET", "/v2/token", ""),
        ("POST", "/api/show", ""), ("POST", "/api/pull", ""), ("DELETE", "/api/delete", ""), ("GET", "/api/tags", ""),
    ]
)  # fmt: skip
"""What goes together: most of what is made up otherwise ends at the first judge."""
asks = st.builds(
    lambda line, query, fields, body: Ask(*line[:2], "&".join(filter(None, (line[2], query))), tuple(fields), body),
    fitting | fitting | st.tuples(methods, paths, st.just("")),
    st.just("") | queries,
    st.lists(headers, max_size=2),
    bodies,
)
