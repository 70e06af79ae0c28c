"""Transfers as values: planned once, cut into pieces, and run in any order, anywhere."""

from __future__ import annotations

import base64
import io
import os
import pickle
import random
import sys
import tarfile
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

import transferkit as tk
from tests.functional.models import (
    OCI_INDEX,
    OCI_MANIFEST,
    Model,
    at_once,
    described,
    digest_of,
    get,
    host,
    index_of,
    put_blob,
    put_manifest,
)
from transferkit.registry import Registry
from transferkit.testing import FaultRule, HTTPFaults, answer, challenge, corrupt, ignore_range, running_registry

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


def files_of(folder: Path) -> list[str]:
    """The paths of the files in a folder, without what is ours."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.startswith(".transferkit"))


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
    content = bytes(range(256)) * (20 * MIB // 256) + b"the end"
    model = Model([content, b"small"], types=["application/octet-stream"] * 2)
    model.put(registry.url, WHERE, "v1")
    registry.log.clear()
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        pieces = plan.split(pieces=3, ranges=True)
        assert 3 == len(pieces)
        assert plan.size == sum(piece.size for piece in pieces)
        reports = [sent(piece).run(client) for piece in [*pieces, *reversed(pieces)]]
        moved = [report.bytes for report in reports]
        parts = [len(piece.blobs) + len(piece.ranges) for piece in pieces]
        assert [*parts, *reversed(parts)] == [report.blobs for report in reports]
        assert [0, 0, 0, *reversed(parts)] == [report.skipped for report in reports]
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


@pytest.fixture
def other() -> Iterator[Any]:
    with running_registry() as running:
        yield running


def url_name(registry, repository: str = WHERE, tag: str = "v1") -> str:
    return f"{registry.url}/{repository}:{tag}"


def uploads(registry) -> int:
    return sum(r.received for r in registry.log if "/blobs/" in r.path)


def test_a_folder_by_way_of_a_cache_is_filled_by_pieces(registry, model, tmp_path):
    with Registry(cache=tmp_path / "unused") as client:
        plan = client.plan_pull(name_in(registry))
        for piece in (*plan.split(bytes=45_000), plan.last()):
            piece.run(client, to=tmp_path / "model", cache=tmp_path / "cache")

        assert model.layers == [(tmp_path / "model" / path).read_bytes() for path in PATHS]
        assert not (tmp_path / "unused").exists()
    with Registry(cache=tmp_path / "cache") as client:
        assert model.digest == client.resolve_local(name_in(registry)).digest


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_pieces_run_at_once_each_twice_and_so_does_the_last_step(registry, tmp_path, place):
    layers = [random.Random(9).randbytes(18 * MIB), *(b"%d" % number * 100 for number in range(40))]
    annotations = [{TITLE: f"{number}.bin"} for number in range(41)]
    model = Model(layers, types=["application/octet-stream"] * 41, annotations=annotations).put(registry.url)
    where = {"cache": tmp_path / "shared"} if place == "cache" else {"to": tmp_path / "model"}

    def run(plan: tk.TransferPlan) -> None:
        with Registry(cache=tmp_path / "own") as client:
            sent(plan).run(client, **where)

    with Registry(cache=tmp_path / "planner") as client:
        plan = client.plan_pull(name_in(registry))
    assert [] == at_once(run, plan.split(4, ranges=True) * 2)
    assert [] == at_once(run, [plan.last()] * 3)
    if place == "folder":
        assert layers == [(tmp_path / "model" / f"{number}.bin").read_bytes() for number in range(41)]
    else:
        with Registry(cache=tmp_path / "shared") as client:
            found = client.resolve_local(name_in(registry))
            assert model.digest == found.digest
            assert [] == client.cache.verify()
            assert [] == client.cache.missing(found.blobs)


def test_a_plan_that_is_not_split_does_all_of_it(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        report = sent(plan).run(client, cache=client.cache)
        sent(plan).run(client, to=tmp_path / "model")

        assert (6, sum(map(len, model.blobs))) == (report.blobs, report.bytes)
        assert model.digest == client.resolve_local(name_in(registry)).digest
        assert model.layers == [(tmp_path / "model" / path).read_bytes() for path in PATHS]


def test_a_last_step_that_comes_too_early_says_what_is_missing_and_names_nothing(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        (first, second) = plan.split(pieces=2)
        first.run(client)
        first.run(client, to=tmp_path / "model")
        registry.log.clear()

        with pytest.raises(tk.IncompleteError, match="is incomplete: ") as caught:
            plan.last().run(client)
        assert {blob.digest for blob in second.blobs} == set(caught.value.failures)
        assert [] == client.cache.links()
        with pytest.raises(tk.IncompleteError, match="run the pieces that failed again") as caught:
            plan.last().run(client, to=tmp_path / "model")
        config = digest_of(model.config)  # without which all files have their names
        assert {blob.digest for blob in second.blobs} - {config} == set(caught.value.failures)
        assert [".transferkit"] == os.listdir(tmp_path / "model")
    assert 0 == len(registry.log)


def test_a_tag_that_moves_meanwhile_changes_nothing(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        Model([b"newer"]).put(registry.url, WHERE, "v1")
        for each in (*plan.split(2), plan.last()):
            each.run(client)

        assert model.digest == client.resolve_local(name_in(registry)).digest


def test_a_file_that_somebody_has_changed_is_not_replaced(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        plan.run(client, to=tmp_path / "model")
        (tmp_path / "model" / "config.json").write_bytes(b"mine")
        (tmp_path / "model" / "LICENSE").unlink()
        registry.log.clear()
        for piece in plan.split(2):
            piece.run(client, to=tmp_path / "model")

        assert {digest_of(b"{}"), digest_of(b"do as you like")} <= set(blob_gets(registry))
        assert digest_of(model.layers[0]) not in blob_gets(registry)
        with pytest.raises(tk.StorageError, match=r"config\.json"):
            plan.last().run(client, to=tmp_path / "model")
        (tmp_path / "model" / "config.json").unlink()
        plan.last().run(client, to=tmp_path / "model")
    assert model.layers == [(tmp_path / "model" / path).read_bytes() for path in PATHS]


def test_a_folder_of_one_platform_that_is_there_is_not_asked_for(registry, tmp_path):
    titled = {"annotations": [{TITLE: "a.bin"}], "types": ["application/octet-stream"]}
    arm = Model([b"arm"], **titled).put(registry.url)
    put_manifest(registry.url, WHERE, "index", index_of((arm, "linux/arm64")), OCI_INDEX)
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry, "index"), platform="linux/arm64")
        plan.run(client, to=tmp_path / "model")
        registry.log.clear()
        for each in (*plan.split(2), plan.last(), plan):
            each.run(client, to=tmp_path / "model")
    assert (0, b"arm") == (len(registry.log), (tmp_path / "model" / "a.bin").read_bytes())


def test_some_files_are_planned_by_patterns(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry), only=["*.bin", "LICENSE"], exclude="*/2.bin")
        assert {digest_of(model.layers[0]), digest_of(model.layers[3])} == {blob.digest for blob in plan.blobs}
        for each in (*plan.split(2), plan.last()):
            sent(each).run(client, to=tmp_path / "model")
        assert ["LICENSE", "weights/1.bin"] == files_of(tmp_path / "model")
        registry.log.clear()
        for each in (*plan.split(2), plan.last()):
            each.run(client, to=tmp_path / "model")
        assert 0 == len(registry.log)

        # All of it, into the same folder: nothing is taken for there that is not.
        whole = client.plan_pull(name_in(registry))
        for each in (*whole.split(2), whole.last()):
            each.run(client, to=tmp_path / "model")
        assert sorted(PATHS) == files_of(tmp_path / "model")
        plan.run(client, to=tmp_path / "by-cache", cache=tmp_path / "other")
        assert ["LICENSE", "weights/1.bin"] == files_of(tmp_path / "by-cache")
        assert not (tmp_path / "other" / "manifests").exists()
        with pytest.raises(TypeError, match="is for a folder: pass it as to="):
            plan.run(client)
        with pytest.raises(TypeError, match="a function cannot be sent along"):
            client.plan_pull(name_in(registry), only=lambda path: True)
        with pytest.raises(tk.InvalidManifestError, match=r"no file of .* is wanted; it has LICENSE, config\.json"):
            client.plan_pull(name_in(registry), only="*.gguf")


def test_after_a_pull_of_some_files_a_plan_of_all_brings_the_others(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        client.pull(name_in(registry), to=tmp_path / "model", only="*.json", cache=None)
        plan = client.plan_pull(name_in(registry))
        for each in (*plan.split(2), plan.last()):
            each.run(client, to=tmp_path / "model")
        assert sorted(PATHS) == files_of(tmp_path / "model")
        assert not [name for name in os.listdir(tmp_path / "model" / ".transferkit") if name.startswith("sha")]

        # An ordinary pull writes the state anew: what a piece brings then, and nobody needs, does not stay.
        (tmp_path / "model" / "LICENSE").unlink()
        client.pull(name_in(registry), to=tmp_path / "model", cache=None)
        for each in (*plan.split(2), plan.last()):
            each.run(client, to=tmp_path / "model")
        assert not [name for name in os.listdir(tmp_path / "model" / ".transferkit") if name.startswith("sha")]
        registry.log.clear()
        for each in plan.split(2):
            each.run(client, to=tmp_path / "model")
    assert 0 == len(registry.log)


def test_a_packed_layer_comes_to_a_folder_in_pieces(registry, tmp_path):
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "a.txt").write_text("a")
    packed, raw = io.BytesIO(), b"weights"
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(tmp_path / "files" / "deep", "deep")
    types = ["application/vnd.cncf.model.doc.v1.tar", "application/vnd.cncf.model.weight.v1.raw"]
    model = Model([packed.getvalue(), raw], types=types, annotations=[{}, {"org.cncf.model.filepath": "w.bin"}])
    model.put(registry.url)
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        for _ in range(2):
            for each in (*plan.split(3), plan.last()):
                each.run(client, to=tmp_path / "model")
            assert ["deep/a.txt", "w.bin"] == files_of(tmp_path / "model")
        assert 3 == len(blob_gets(registry))


def test_files_that_a_config_names_come_to_a_folder_in_pieces(registry, tmp_path):
    kitfile = b'{"model": {"path": "weights.bin"}, "docs": [{"path": "README.md"}]}'
    types = [f"application/vnd.kitops.modelkit.{kind}.v1.raw" for kind in ("model", "docs")]
    config = {"config": described(kitfile, "application/vnd.kitops.modelkit.config.v1+json")}
    Model([b"weights", b"read me"], config=kitfile, types=types, more=config).put(registry.url)
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        with pytest.raises(tk.IncompleteError) as caught:
            plan.last().run(client, to=tmp_path / "model")
        assert [digest_of(kitfile)] == list(caught.value.failures)
        for each in (*plan.split(3), plan.last()):
            each.run(client, to=tmp_path / "model")
        assert ["Kitfile", "README.md", "weights.bin"] == files_of(tmp_path / "model")
        (tmp_path / "model" / "README.md").unlink()
        plan.run(client, to=tmp_path / "model")
        assert b"read me" == (tmp_path / "model" / "README.md").read_bytes()
        some = client.plan_pull(name_in(registry), only="*.md")
        assert {digest_of(kitfile), digest_of(b"read me")} == {blob.digest for blob in some.blobs}
        some.run(client, to=tmp_path / "some")
        assert ["README.md"] == files_of(tmp_path / "some")
        with pytest.raises(tk.InvalidManifestError, match="no file of"):
            client.plan_pull(name_in(registry), only="*.gguf")


def test_an_index_is_planned_for_one_platform_or_for_all(registry, tmp_path):
    arm, amd = Model([b"arm"]).put(registry.url), Model([b"amd"]).put(registry.url)
    raw = index_of((arm, "linux/arm64"), (amd, "linux/amd64"))
    put_manifest(registry.url, WHERE, "both", raw, OCI_INDEX)
    with Registry(cache=tmp_path / "cache") as client:
        name = name_in(registry, "both")
        plan = client.plan_pull(name, platform="linux/arm64")
        plan.run(client)
        assert ({digest_of(b"arm"), digest_of(arm.config or b"")}, "linux/arm64") == (
            {blob.digest for blob in plan.blobs},
            plan.platform,
        )
        assert raw == client.resolve_local(name).raw
        plan.run(client, to=tmp_path / "model")

        whole = client.plan_pull(name, platform="all")
        whole.run(client)
        assert 3 == len(whole.documents) == len(whole.blobs)
        with pytest.raises(
            tk.InvalidManifestError, match="is an index of several; plan a pull of one of its platforms"
        ):
            whole.run(client, to=tmp_path / "all")


def test_what_has_no_layers_is_not_planned(registry, tmp_path):
    Model([]).put(registry.url, WHERE, "empty")
    with Registry(cache=tmp_path / "cache") as client, pytest.raises(tk.InvalidManifestError, match="no layers"):
        client.plan_pull(name_in(registry, "empty"))


def test_a_download_is_run_in_pieces(registry, model, tmp_path):
    blobs = [tk.Blob(digest_of(content), len(content)) for content in model.layers]
    plan = tk.plan_download(blobs, base_url=registry.url, repository=WHERE)
    reports = [sent(each).run(to=tmp_path / "out") for each in (*plan.split(3), plan.last())]

    assert {digest_of(content): content for content in model.layers} == {
        digest: Path(path).read_bytes() for report in reports for digest, path in report.paths.items()
    }
    registry.log.clear()
    assert 5 == plan.run(to=tmp_path / "out").skipped
    assert 0 == len(registry.log)


# -- copies and pushes


def test_pieces_copy_blobs_and_the_last_step_pushes_the_manifest_and_what_refers_to_it(
    registry, other, model, tmp_path
):
    subject = {"subject": described(model.raw, OCI_MANIFEST)}
    signature = Model([b"signature"], more=subject).put(registry.url, WHERE, "signed")
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_copy(url_name(registry), url_name(other, "me/copy", "v2"), referrers=True)
        for piece in reversed(plan.split(3)):
            sent(piece).run(client)
        assert [] == [r for r in other.log if r.method == "PUT" and "/manifests/" in r.path]
        sent(plan.last()).run(client)

        assert (200, model.raw) == get(other.url, "me/copy", "v2")
        assert [signature.digest] == [each.digest for each in client.referrers(url_name(other, "me/copy", "v2"))]
        other.log.clear()
        registry.log.clear()
        for each in (plan, *plan.split(2), plan.last()):
            each.run(client)
        assert (0, []) == (uploads(other), blob_gets(registry))
        assert not (tmp_path / "cache").exists()


def test_the_last_step_of_a_copy_sends_what_the_pieces_have_not(registry, other, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_copy(url_name(registry), url_name(other))
        plan.split(2)[0].run(client)
        plan.last().run(client)
    assert ((200, model.raw), plan.size) == (get(other.url, WHERE, "v1"), uploads(other))


def test_within_one_registry_pieces_of_a_copy_are_mounted(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_copy(url_name(registry), url_name(registry, "me/copy"))
        mounted = [each.run(client).mounted for each in (*plan.split(2), plan.last())]

    assert (6, []) == (sum(mounted), blob_gets(registry))
    assert (200, model.raw) == get(registry.url, "me/copy", "v1")


def test_one_platform_of_an_index_is_copied_as_what_it_is(registry, other, tmp_path):
    arm, amd = Model([b"arm"]).put(registry.url), Model([b"amd"]).put(registry.url)
    put_manifest(registry.url, WHERE, "both", index_of((arm, "linux/arm64"), (amd, "linux/amd64")), OCI_INDEX)
    with Registry(cache=tmp_path / "cache") as client:
        client.plan_copy(url_name(registry, tag="both"), url_name(other), platform="linux/arm64").run(client)
        assert (200, arm.raw) == get(other.url, WHERE, "v1")
        whole = client.plan_copy(url_name(registry, tag="both"), url_name(other, tag="all"))
        for each in (*whole.split(2), whole.last()):
            each.run(client)
        assert [arm.raw, amd.raw] == [get(other.url, WHERE, each.digest)[1] for each in (arm, amd)]


def test_a_model_of_a_cache_is_pushed_in_pieces(registry, other, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        client.pull(name_in(registry))
        plan = client.plan_push(url_name(other, "me/model", "v2"), source=name_in(registry))
    with Registry(cache=tmp_path / "elsewhere") as client:
        with pytest.raises(tk.SourceError, match="nothing was sent"):
            plan.split(2)[0].run(client)
        for piece in plan.split(3):
            sent(piece).run(client, cache=tmp_path / "cache")
        assert [] == [r for r in other.log if r.method == "PUT" and "/manifests/" in r.path]
        plan.last().run(client, cache=tmp_path / "cache")
        assert (200, model.raw) == get(other.url, "me/model", "v2")
        sent_before = uploads(other)
        plan.run(client, cache=tmp_path / "cache")
        assert sent_before == uploads(other) == sum(map(len, model.blobs))


def test_a_push_is_planned_of_a_folder_or_of_a_model(registry, model, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text("{}")
    with Registry(cache=tmp_path / "cache") as client:
        name = url_name(registry, "me/model")
        assert ("a.json",) == client.plan_push(name, folder=tmp_path / "folder").files
        for keywords in ({}, {"source": name_in(registry), "folder": tmp_path}, {"source": name, "format": "oras"}):
            with pytest.raises(TypeError, match="a push is planned of a folder, or of a model of the cache"):
                client.plan_push(name, **keywords)
        with pytest.raises(tk.ManifestNotFoundError):
            client.plan_push(name, source=name_in(registry))


# -- where it runs


def test_a_place_that_a_plan_has_no_use_for_is_refused_before_a_request(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        pull = client.plan_pull(name_in(registry))
        copy = client.plan_copy(url_name(registry), url_name(registry, "me/copy"))
        download = tk.plan_download([], base_url=registry.url, repository=WHERE)
        registry.log.clear()
        for plan, keywords in [
            (download, {}),
            (download, {"to": tmp_path, "cache": tmp_path}),
            (copy, {"to": tmp_path}),
            (copy, {"cache": tmp_path}),
            (pull, {"to": 7}),
            (pull, {"cache": 7}),
            (pull, {"concurrency": "8"}),
            (pull, {"progress": 8}),
        ]:
            with pytest.raises(TypeError):
                plan.run(client, **keywords)
        with pytest.raises(ValueError, match="between 1 and 1024, not 0"):
            pull.run(client, concurrency=0)
        with pytest.raises(tk.InvalidNameError, match="is not set on"):
            pull.run(client, to="$NO_SUCH_VARIABLE_HERE/x")
    assert 0 == len(registry.log)
    with Registry(cache=tmp_path / "cache", offline=True) as client, pytest.raises(tk.ConnectError, match="offline"):
        client.plan_pull(name_in(registry))


def test_a_plan_whose_manifests_are_others_is_refused_before_anything_is_done(registry, model, tmp_path):
    with Registry(cache=tmp_path / "cache") as client:
        plan, newer = client.plan_pull(name_in(registry)), Model([b"newer"])
        registry.log.clear()
        wrong = [
            (replace(plan, documents=(newer.raw,)), "the plan has not the manifest that its source names"),
            (replace(plan, documents=(*plan.documents, b"{}")), "the documents of the plan cannot be read"),
            (replace(plan, blobs=plan.blobs[1:]), "blobs are not those that its manifests name"),
            (replace(plan, blobs=(*plan.blobs, tk.Descriptor("sha256:" + 64 * "a", 1))), "are not those"),
            (replace(plan, step="last", blobs=(tk.Descriptor("sha256:" + 64 * "a", 1),)), "are not those"),
        ]
        for each, said in wrong:
            with pytest.raises(tk.InvalidPlanError, match=said):
                each.run(client)
            with pytest.raises(tk.InvalidPlanError, match=said):
                each.run(client, to=tmp_path / "model")
        assert (0, []) == (len(registry.log), client.cache.links())
        assert not (tmp_path / "model").exists()

        smaller = replace(plan.split(1)[0], blobs=(replace(plan.blobs[0], size=1000),))
        with pytest.raises(tk.IncompleteError):
            smaller.run(client)
        assert [] == client.cache.entries()


def test_an_index_whose_manifest_was_taken_out_is_refused(registry, tmp_path):
    arm = Model([b"arm"]).put(registry.url)
    put_manifest(registry.url, WHERE, "index", index_of((arm, "linux/arm64")), OCI_INDEX)
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry, "index"), platform="all")
        with pytest.raises(tk.InvalidPlanError, match="the plan has not the manifest sha256:"):
            replace(plan, documents=plan.documents[1:]).run(client)


def test_a_plan_has_no_secret_and_no_path_of_the_machine_that_made_it(authority, serve_tls, tmp_path):
    model = Model([b"weights"])
    answers = {"manifests": model.raw, digest_of(b"weights"): b"weights", digest_of(model.config): model.config}
    server = serve_tls(
        lambda request: next(
            (answer(200, body) for part, body in answers.items() if part in request.target), answer(200)
        )
    )
    host = f"127.0.0.1:{server.port}"
    session = requests.Session()
    session.headers["X-Team"] = "secret-header"
    session.cookies.set("session", "secret-cookie")
    hosts = {host: tk.HostOptions(ca_bundle=authority.bundle, headers={"X-Other": "secret-field"})}
    secrets = [
        {"token": "secret-token"},
        {"auth": ("secret-user", "secret-password")},
        {"get_token": lambda _: "secret-x"},
    ]
    for keywords in secrets:
        with Registry(cache=tmp_path / "secret-cache", session=session, hosts=hosts, **keywords) as client:
            pull = client.plan_pull(f"{host}/library/model:v1")
            plans = [pull, client.plan_copy(f"{host}/library/model:v1", f"{host}/library/other:v1")]
            pull.run(client)
            plans.append(client.plan_push(f"{host}/library/other:v1", source=f"{host}/library/model:v1"))
        for plan in plans:
            for each in (plan, *plan.split(2), plan.last()):
                texts = each.to_json(), repr(each), pickle.dumps(each, protocol=0).decode("latin-1")
                documents = b"".join(each.documents).decode()
                for text in (*texts, documents):
                    for secret in ("secret", authority.bundle, str(tmp_path), os.path.expanduser("~"), os.getcwd()):
                        assert secret not in text


def test_credentials_are_asked_for_where_a_piece_runs(registry, model, tmp_path, monkeypatch):
    guard = FaultRule(challenge('Basic realm="r"', accept=f"Basic {base64.b64encode(b'me:word').decode()}"))
    module = types.ModuleType("vault_of_the_team")
    module.give = lambda: {"auth": ("me", "word")}
    with running_registry(store=registry.store, middleware=HTTPFaults(guard)) as guarded:
        plan = tk.plan_download(
            [tk.Blob(digest_of(model.layers[0]), len(model.layers[0]))],
            base_url=guarded.url,
            repository=WHERE,
            credentials="vault_of_the_team:give",
        )
        with pytest.raises(tk.InvalidPlanError, match="No module named 'vault_of_the_team'"):
            plan.run(to=tmp_path / "out")
        monkeypatch.setitem(sys.modules, "vault_of_the_team", module)
        sent(plan.split(1)[0]).run(to=tmp_path / "out")
        with Registry(cache=tmp_path / "cache") as client, pytest.raises(tk.UnauthorizedError):
            plan.run(client, to=tmp_path / "other")  # a client has its own

    assert (tmp_path / "out" / digest_of(model.layers[0]).replace(":", "-")).exists()


def test_progress_begins_with_what_is_there_and_ends_at_the_exact_figure(registry, tmp_path):
    model = Model([random.Random(4).randbytes(17 * MIB), b"small", b"smaller"]).put(registry.url)
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_pull(name_in(registry))
        for first in (0, 1):
            for piece in plan.split(2, ranges=True):
                told: list[tuple[int, int]] = []
                piece.run(client, progress=lambda *figures, told=told: told.append(figures))
                assert [(first * piece.size, piece.size), (piece.size, piece.size)] == [told[0], told[-1]]
    assert plan.size == sum(map(len, model.blobs))


# -- ranges


@pytest.fixture
def huge(tmp_path) -> bytes:
    return random.Random(3).randbytes(20 * MIB + 11)


def ranges_left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder / ".partial") if name.startswith("sha256-"))


def put_huge(registry, content: bytes) -> tk.TransferPlan:
    put_blob(registry.url, WHERE, content)
    registry.log.clear()
    return tk.plan_download([tk.Blob(digest_of(content), len(content))], base_url=registry.url, repository=WHERE)


def test_ranges_that_are_wrong_are_removed_and_brought_again(huge, tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry:
        plan = put_huge(registry, huge)
        pieces, out = plan.split(3, ranges=True), tmp_path / "out"
        faults.set(FaultRule(corrupt(100), path="/blobs/", times=1))
        for piece in pieces:
            piece.run(to=out)
        faults.set()
        with pytest.raises(tk.IncompleteError, match="its ranges were removed: run the pieces again") as caught:
            plan.last().run(to=out)
        assert isinstance(caught.value.failures[digest_of(huge)], tk.DigestMismatchError)
        assert ([], [".partial"]) == (ranges_left(out), os.listdir(out))
        with pytest.raises(tk.IncompleteError, match="is incomplete: 1 blobs are missing"):
            plan.last().run(to=out)
        for each in (*pieces, plan.last()):
            each.run(to=out)
    assert huge == (out / digest_of(huge).replace(":", "-")).read_bytes()
    assert [] == ranges_left(out)


CHUNKS = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB)


@pytest.mark.parametrize("options", [None, CHUNKS], ids=["streams", "chunks"])
@pytest.mark.parametrize("faults", [(), (FaultRule(ignore_range()),)], ids=["ranges", "no ranges"])
def test_the_blob_is_right_however_a_registry_sends_ranges(huge, tmp_path, options, faults):
    with (
        running_registry(middleware=HTTPFaults(*faults)) as registry,
        Registry(cache=tmp_path, options=options) as client,
    ):
        plan = put_huge(registry, huge)
        moved = [each.run(client, to=tmp_path / "out").bytes for each in (*plan.split(2, ranges=True), plan.last())]
        asked = len(registry.log)
    assert huge == (tmp_path / "out" / digest_of(huge).replace(":", "-")).read_bytes()
    if not faults:
        assert plan.size == sum(moved)
        assert asked >= (3 if options is None else 21)


def test_a_range_that_no_registry_has_is_an_error_that_names_its_blob(registry, tmp_path):
    blob = tk.Blob("sha256:" + 64 * "a", 20 * MIB)
    plan = tk.plan_download([blob], base_url=registry.url, repository=WHERE)
    with pytest.raises(tk.IncompleteError) as caught:
        plan.split(2, ranges=True)[0].run(to=tmp_path / "out")
    assert [blob.digest] == list(caught.value.failures)
    assert isinstance(caught.value.failures[blob.digest], tk.BlobNotFoundError)


def test_a_range_goes_on_where_a_cancelled_run_has_stopped(registry, huge, tmp_path):
    plan, cancel = put_huge(registry, huge), tk.Cancellation()
    (first, *others), out = plan.split(2, ranges=True), tmp_path / "out"

    def stop(completed: int, total: int) -> None:
        if completed > 2 * MIB:
            cancel.cancel()

    slowly = tk.TransferOptions(max_bandwidth=20e6, progress_interval=0.001)
    with Registry(cache=tmp_path / "cache", options=slowly) as client, pytest.raises(tk.CancelledError):
        first.run(client, to=out, progress=stop, cancel=cancel)
    left = {name.partition(".part")[1] for name in ranges_left(out)}
    assert ({".part"}, {digest_of(huge)}) == (left, {partial.digest for partial in tk.partials(out)})

    assert 0 < first.run(to=out).bytes < first.size
    for each in (*others, plan.last()):
        each.run(to=out)
    assert huge == (out / digest_of(huge).replace(":", "-")).read_bytes()


def test_ranges_of_another_cut_are_used_as_far_as_they_fit(registry, huge, tmp_path):
    plan, out = put_huge(registry, huge), tmp_path / "out"
    for piece in plan.split(bytes=8 * MIB, ranges=True)[:2]:
        piece.run(to=out)
    for piece in plan.split(bytes=16 * MIB, ranges=True):
        piece.run(to=out)
    sizes = [(out / ".partial" / name).stat().st_size for name in ranges_left(out)]
    assert [16 * MIB, 8 * MIB, 4 * MIB + 11] == sizes  # that from 0 on was replaced by a longer one
    plan.last().run(to=out)

    assert huge == (out / digest_of(huge).replace(":", "-")).read_bytes()
