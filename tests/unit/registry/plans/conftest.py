"""What tests of plans share."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def one_manifest() -> bytes:
    layer = {"mediaType": "application/octet-stream", "digest": "sha256:" + 64 * "b", "size": 7}
    return json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
