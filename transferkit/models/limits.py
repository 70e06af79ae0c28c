"""Limits of the registries that people push models to, as far as they are documented or measured.

Registries change them: a limit here is said before an upload, and never stops one. Docker Hub, Quay and Google document
no limit of a layer that was found in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor

_GB, _MIB, _GIB = 10**9, 2**20, 2**30
_ECR = r"\d{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|on\.aws)"
_SLOW = 10_000_000  # bytes a second: below it a time limit is worth a word, 80 Mbit/s being what many have


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one registry takes, in bytes, layers and seconds, and who says so; ``None`` where nothing is known."""

    hosts: str
    """A regular expression of the whole host name."""
    source: str
    layer_size: int | None = None
    layers: int | None = None
    total_size: int | None = None
    seconds: int | None = None
    """How long the upload of one layer may take."""


LIMITS = (
    Limits(
        hosts=r"(?:.+\.)?ghcr\.io",
        layer_size=10 * _GB,
        seconds=600,
        source="https://docs.github.com/en/packages/working-with-a-github-packages-registry/"
        "working-with-the-container-registry#troubleshooting",
    ),
    # The number is not documented; it was measured by two projects that ran into it, in 2023 and in 2026.
    Limits(
        hosts=_ECR,
        layers=500,
        source="https://github.com/spinframework/spin/issues/1787, https://github.com/nuonco/nuon/pull/2348",
    ),
    Limits(
        hosts=_ECR,
        layer_size=52_000 * _MIB,
        source="https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html",
    ),
    Limits(
        hosts=r"public\.ecr\.aws",
        layer_size=10_000 * _MIB,
        source="https://docs.aws.amazon.com/AmazonECR/latest/public/public-service-quotas.html",
    ),
    Limits(
        hosts=r"[a-z0-9-]+\.azurecr\.(?:io|cn|us)",
        layer_size=200 * _GIB,
        source="https://learn.microsoft.com/en-us/azure/container-registry/container-registry-skus",
    ),
    Limits(
        hosts=r"registry\.digitalocean\.com",
        total_size=5 * _GB,
        source="https://docs.digitalocean.com/products/container-registry/details/limits",
    ),
    Limits(
        hosts=r"swr\.[a-z0-9-]+\.myhuaweicloud\.(?:com|eu)",
        layer_size=10 * _GB,
        source="https://support.huaweicloud.com/eu/swr_faq/swr_faq_1012.html",
    ),
)


def broken_limits(host: str, layers: Sequence[Descriptor]) -> list[str]:
    """Return a sentence for each known limit of a registry that these layers break, or may break.

    ``host`` is a host name, with or without a port; its case does not matter. An unknown host has no limits here.

    >>> broken_limits("localhost:5000", [])
    []
    """
    name = host.rpartition("@")[2].partition(":")[0].rstrip(".").lower()
    found: list[str] = []
    for limits in LIMITS:
        if layers and re.fullmatch(limits.hosts, name, re.ASCII):
            found += _broken(name, limits, layers)
    return found


def _broken(host: str, limits: Limits, layers: Sequence[Descriptor]) -> list[str]:
    found = []
    largest = max(layer.size for layer in layers)
    too_large = sum(1 for layer in layers if limits.layer_size is not None and layer.size > limits.layer_size)
    if limits.layer_size is not None and too_large:
        found.append(
            f"{host} takes layers of {_size(limits.layer_size)} at most: {too_large} of {len(layers)} are larger, "
            f"the largest has {_size(largest)} ({limits.source})"
        )
    elif limits.seconds is not None and largest > limits.seconds * _SLOW:
        found.append(
            f"{host} ends the upload of a layer after {limits.seconds // 60} minutes: the largest, of "
            f"{_size(largest)}, has to go at {largest / limits.seconds / 1e6:.0f} MB/s or more ({limits.source})"
        )
    if limits.layers is not None and len(layers) > limits.layers:
        found.append(f"{host} takes {limits.layers} layers at most, and these are {len(layers)} ({limits.source})")
    total = sum({layer.digest: layer.size for layer in layers}.values())
    if limits.total_size is not None and total > limits.total_size:
        found.append(
            f"{host} takes {_size(limits.total_size)} at most, and all layers together have {_size(total)} "
            f"({limits.source})"
        )
    return found


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB"
