"""Tokens that end in the middle of a bundle of small blobs."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.bundles import BLOBS, IMPATIENT, REPOSITORY, Blobs
from tests.functional.bundles import small as small
from transferkit.testing.scripted import RawRequest, ScriptedServer, Step
from transferkit.testing.wire import answer


class Tokens:
    """A registry whose tokens are good for so many requests each, and its token service."""

    def __init__(self, blobs: Blobs, good_for: int, *, most: int = 1000) -> None:
        self.issued = 0
        self.first: set[str] = set()
        """Which blobs were asked for without any token."""
        self.blobs = blobs
        self._good_for = good_for
        self._most = most
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.server = ScriptedServer(self._say)

    def _say(self, request: RawRequest) -> Step:
        with self._lock:
            if request.target.startswith("/token"):
                self.issued += 1
                if self.issued > self._most:
                    return answer(403, b"no more tokens")
                return answer(200, json.dumps({"token": f"t{self.issued}", "expires_in": 3600}).encode())
            digest = self.blobs.take(request)
            sent = request.headers.get("authorization", "")
            self._used[sent] += 1
            if not sent:
                self.first.add(digest)
            if sent != f"Bearer t{self.issued}" or self._used[sent] > self._good_for:
                realm = f"{self.server.url}/token"
                return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="r"'})
            return answer(200, self.blobs.contents[digest])


@pytest.mark.parametrize(("workers", "good_for"), [(1, 31), (4, 71)])
def test_a_token_that_ends_in_a_bundle_is_renewed_once_and_the_rest_goes_on(
    workers: int, good_for: int, small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    """Of several workers one could find the next token used up by the others; there the second one is enough."""
    folder, blobs = small
    tokens = Tokens(Blobs(folder, blobs), good_for=good_for)
    with tokens.server as server:
        report = tk.download(
            blobs,
            tmp_path / "to",
            base_url=server.url,
            repository=REPOSITORY,
            auth=("ann", "secret"),
            concurrency=workers,
        )

    assert_exactly(tmp_path / "to", blobs)
    assert tokens.issued == -(-BLOBS // good_for)  # one for each that has ended, however many workers have found out
    assert report.retried == report.healed  # a challenge is no failure; who is late at the tail is asked again
    # A worker that was slow to come back with its first token may find that the others have used it up.
    asked = [tokens.blobs.asked[blob.digest] for blob in blobs if blob.digest not in tokens.first]
    assert max(asked) <= 2 + report.healed


def test_a_token_service_that_refuses_in_the_middle_ends_the_call(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    tokens = Tokens(Blobs(folder, blobs), good_for=31, most=1)
    with tokens.server as server, pytest.raises(tk.UnauthorizedError, match=re.escape("answered 403")) as caught:
        tk.download(
            blobs,
            tmp_path / "to",
            base_url=server.url,
            repository=REPOSITORY,
            auth=("ann", "secret"),
            concurrency=1,
            options=IMPATIENT,
        )
    assert "secret" not in str(caught.value)
    assert tokens.issued == 2
