"""Known limits of registries, by host name."""

from __future__ import annotations

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.models.limits import LIMITS, broken_limits

GB, MIB, GIB = 10**9, 2**20, 2**30
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


def layers(*sizes: int) -> list[Descriptor]:
    return [Descriptor(Digest(f"sha256:{number:064x}"), size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("host", "sizes", "said"),
    [
        (
            "ghcr.io",
            [10 * GB + 1, 5],
            "ghcr.io takes layers of 10.0 GB at most: 1 of 2 are larger, the largest has 10.0 GB",
        ),
        ("GHCR.io:443", [12 * GB], "ghcr.io takes layers of 10.0 GB"),
        ("ghcr.io", [9 * GB], "after 10 minutes: the largest, of 9.0 GB, has to go at 15 MB/s or more"),
        (ECR, [52_000 * MIB + 1], "takes layers of 54.5 GB at most"),
        (ECR + ".cn", 501 * [1], "takes 500 layers at most, and these are 501"),
        ("123456789012.dkr-ecr.us-east-1.on.aws", 501 * [1], "takes 500 layers at most"),
        ("public.ecr.aws", [10_000 * MIB + 1], "takes layers of 10.5 GB at most"),
        ("team.azurecr.io", [200 * GIB + 1], "takes layers of 214.7 GB at most"),
        ("registry.digitalocean.com", [3 * GB, 3 * GB], "takes 5.0 GB at most, and all layers together have 6.0 GB"),
        ("swr.eu-west-101.myhuaweicloud.eu", [11 * GB], "takes layers of 10.0 GB at most"),
    ],
)
def test_a_limit_that_is_broken_is_said(host: str, sizes: list[int], said: str) -> None:
    sentences = broken_limits(host, layers(*sizes))

    assert 1 == len(sentences), sentences
    assert said in sentences[0]
    assert "(https://" in sentences[0]


@pytest.mark.parametrize(
    ("host", "sizes"),
    [
        ("ghcr.io", [6 * GB, 1]),
        (ECR, [52_000 * MIB, *499 * [1]]),
        ("localhost:5000", [100 * GB]),
        ("notghcr.io.example.com", [100 * GB]),
        ("evil-ghcr.io.example", [100 * GB]),
        ("[::1]:5000", [100 * GB]),
        ("ghcr.io", []),
    ],
)
def test_nothing_is_said_of_what_is_not_known_to_break(host: str, sizes: list[int]) -> None:
    assert [] == broken_limits(host, layers(*sizes))


def test_every_limit_has_a_source() -> None:
    assert all(limits.source.startswith("https://") for limits in LIMITS)
