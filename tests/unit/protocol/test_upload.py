"""The session URL of an upload."""

from __future__ import annotations

import pytest

from transferkit.content.digest import Digest
from transferkit.protocol.upload import commit_url

DIGEST = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://r/v2/a/blobs/uploads/1", f"https://r/v2/a/blobs/uploads/1?digest={DIGEST}"),
        ("https://r/v2/a/blobs/uploads/1?", f"https://r/v2/a/blobs/uploads/1?digest={DIGEST}"),
        ("https://r/u?_state=x%3D", f"https://r/u?_state=x%3D&digest={DIGEST}"),
        ("https://r/u?a=1&b=%2F+%20&c", f"https://r/u?a=1&b=%2F+%20&c&digest={DIGEST}"),
        ("https://r/u?_state=a+b/c==", f"https://r/u?_state=a+b/c==&digest={DIGEST}"),
        ("http://r:5000/u#part", f"http://r:5000/u?digest={DIGEST}"),
        ("http://[::1]:5000/u%2F1", f"http://[::1]:5000/u%2F1?digest={DIGEST}"),
    ],
)
def test_the_digest_is_added_and_the_query_kept_byte_for_byte(location: str, expected: str) -> None:
    assert commit_url(location, Digest(DIGEST)) == expected
