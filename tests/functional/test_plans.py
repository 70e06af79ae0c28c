"""Transfers as values: planned once, cut into pieces, and run in any order, anywhere."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.models import Model, digest_of, host
from transferkit.registry import Registry

WHERE = "library/model"
MIB = 1024 * 1024
TITLE = "org.opencontainers.image.title"
PATHS = ["weights/1.bin", "weights/2.bin", "config.json", "LICENSE", "deep/er/empty.txt"]


@pytest.fixture
def model(registry) -> Model:
    layers = [b"1" * 50_000, b"2" * 40_000, b"{}", b"do as you like", b""]
    made = Model(layers, types=["application/octet-stream"] * 5, annotations=[{TITLE: path} for path in PATHS])
    made.put(registry.url, WHERE, "v1")
    registry.log.clear()
    return made


def name_in(registry, tag: str = "v1") -> str:
    return f"{host(registry.url)}/{WHERE}:{tag}"


def blob_gets(registry) -> list[str]:
    return [r.path.rpartition("/")[2] for r in registry.log if r.method == "GET" and "/blobs/" in r.path]


def sent(plan: tk.TransferPlan) -> tk.TransferPlan:
    """Return what another process gets."""
    return pickle.loads(pickle.dumps(plan))


def test_pieces_fill_a_cache_in_any_order_and_the_last_step_links_the_name(registry, model, tmp_path):
    with Registry(cache=tmp_path / "here") as client:
        plan = client.plan_pull(name_in(registry))
    pieces = plan.split(pieces=3)
    with Registry(cache=tmp_path / "there") as client:
        for piece in [*reversed(pieces), pieces[0]]:
            sent(piece).run(client)
            assert [] == client.cache.links()
        sent(plan.last()).run(client)

        assert model.digest == client.resolve_local(name_in(registry)).digest
        assert model.layers == [
            client.cache.read(layer.digest) for layer in client.resolve_local(name_in(registry)).layers
        ]
    assert sorted(blob.digest for blob in plan.blobs) == sorted(blob_gets(registry))


def test_what_is_there_is_not_asked_for(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        plan.run(client)
        registry.log.clear()

        for each in (plan, *plan.split(pieces=2), plan.last()):
            each.run(client)
    assert 0 == len(registry.log)


def test_pieces_fill_a_folder_and_the_last_step_names_its_files(registry, model, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        for piece in plan.split(pieces=3):
            sent(piece).run(client, to="$SCRATCH/model")
            assert [".transferkit"] == [path.name for path in (tmp_path / "model").iterdir()]
        plan.last().run(client, to="${SCRATCH}/model")

        assert model.layers == [(tmp_path / "model" / path).read_bytes() for path in PATHS]
        registry.log.clear()
        for each in (plan, *plan.split(pieces=3), plan.last()):
            each.run(client, to="$SCRATCH/model")
        assert 0 == len(registry.log)
        assert [] == client.cache.entries()


def test_a_huge_blob_is_brought_in_ranges_and_joined_at_the_end(registry, tmp_path):
    content = bytes(range(256)) * (40 * MIB // 256) + b"the end"
    model = Model([content, b"small"], types=["application/octet-stream"] * 2)
    model.put(registry.url, WHERE, "v1")
    registry.log.clear()
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        pieces = plan.split(pieces=3, ranges=True)
        assert 3 == len(pieces)
        assert plan.size == sum(piece.size for piece in pieces)
        moved = [sent(piece).run(client).bytes for piece in [*pieces, *reversed(pieces)]]
        assert not Path(client.cache.path(digest_of(content))).exists()
        assert [plan.size, 0] == [sum(moved[:3]), sum(moved[3:])]
        registry.log.clear()
        sent(plan.last()).run(client)

        assert 0 == len(registry.log)
        assert content == Path(client.cache.path(digest_of(content))).read_bytes()
        assert [] == [name for name in os.listdir(tmp_path / "cache/blobs/.partial") if name.startswith("sha256-")]
        for each in (*pieces, plan):
            each.run(client)
        assert 0 == len(registry.log)
