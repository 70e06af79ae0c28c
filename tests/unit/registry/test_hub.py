"""A repository of the hub as the end of a copy: it is only copied from."""

from __future__ import annotations

from typing import Any

import pytest

from transferkit.content.digest import Digest
from transferkit.errors import ManifestNotFoundError
from transferkit.protocol.hub_name import HubName
from transferkit.registry.hub import HubEnd

NAME, NOBODY = HubName.parse("hf://org/model"), Digest.of(b"")


def test_it_has_no_manifests_and_takes_none() -> None:
    job: Any = None
    end = HubEnd(job, NAME)
    assert [] == list(end.referrers(NOBODY))
    with pytest.raises(ManifestNotFoundError):
        end.load(NOBODY)
    with pytest.raises(NotImplementedError):
        end.take(job, end, {})


def test_a_format_that_does_not_exist_is_refused_before_anything_is_asked() -> None:
    job: Any = None
    with pytest.raises(ValueError, match="format is one of modelpack, oras, docker, not 'zip'"):
        HubEnd(job, NAME, "zip")
