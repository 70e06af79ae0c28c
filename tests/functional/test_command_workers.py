"""``--processes`` and ``--dask``: the same commands, with their work done by others."""

from __future__ import annotations

import json

import pytest

from tests.functional.commands import Commands
from tests.functional.models import get, host, small


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path / "cache")


def test_a_pull_by_processes_says_the_same_as_any_pull(registry, commands, tmp_path):
    model = small().put(registry.url)
    name = f"{host(registry.url)}/library/model:v1"
    done = commands("pull", name, "--processes", "2", "--concurrency", "8", "--bandwidth", "100M")

    assert [f"{name.removesuffix(':v1')}:v1@{model.digest}"] == done.lines
    assert "process " in done.err
    assert "3 blobs" not in done.out
    assert model.digest == commands("show", name, "--json", "--offline").objects[0]["digest"]
    assert done.lines == commands("pull", name).lines


def test_a_pull_into_a_folder_by_a_cluster(registry, commands, tmp_path):
    from distributed import Client, LocalCluster

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    (tmp_path / "files" / "weights.bin").write_bytes(b"many")
    name = f"{host(registry.url)}/team/model:v1"
    commands("push", name, "--folder", tmp_path / "files")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        (tmp_path / "scheduler.json").write_text(json.dumps(cluster.scheduler.identity()))
        pull = ("pull", name, "--dask", cluster.scheduler_address, "--json", "--to")
        (said,) = commands(*pull, tmp_path / "to", "--only", "*.json", "--exclude", "x*").objects
        commands("copy", name, f"{host(registry.url)}/team/copy:v1", "--dask", tmp_path / "scheduler.json")

    assert ("folder", str(tmp_path / "to")) == (said["type"], said["folder"])
    assert {"config.json": "{}"} == {path.name: path.read_text() for path in (tmp_path / "to").glob("[!.]*")}
    assert get(registry.url, "team/model", "v1") == get(registry.url, "team/copy", "v1")


def test_what_does_not_go_with_workers_is_said(registry, commands, tmp_path):
    small().put(registry.url)
    name = f"{host(registry.url)}/library/model:v1"
    for arguments, said in (
        (("--processes", "2", "--dask", "tcp://127.0.0.1:1"), "choose one"),
        (("--processes", "2", "--foreign"), "--foreign does not go with --processes"),
        (("--processes", "2", "--to", str(tmp_path / "to"), "--overwrite"), "--overwrite does not go with --processes"),
        (("--processes", "0"), "0 is not in the range"),
    ):
        assert said in commands("pull", name, *arguments, code=2).err
    hub = ("hf://org/model", f"{host(registry.url)}/library/copy:v1")
    assert "hf:// does not go with --dask" in commands("copy", *hub, "--dask", "tcp://127.0.0.1:1", code=2).err


def test_a_scheduler_that_is_not_there_is_said(registry, commands, tmp_path):
    import dask
    import distributed  # noqa: F401 - first: what is set before goes with all of its settings when it ends

    small().put(registry.url)
    name = f"{host(registry.url)}/library/model:v1"
    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
        done = commands("pull", name, "--dask", "tcp://127.0.0.1:9", code=1)
    assert "there is no scheduler at tcp://127.0.0.1:9" in done.err
    (tmp_path / "no.json").write_text("{}")
    assert "there is no scheduler at" in commands("pull", name, "--dask", tmp_path / "no.json", code=1).err


@pytest.mark.full
def test_a_failure_of_processes_has_the_exit_code_of_failures(registry, commands):
    model = small()
    model.put(registry.url)
    digest = model.digest.replace("sha256:", "")
    name = f"{host(registry.url)}/library/model:v1"
    for path in registry.store.rglob("*"):
        if path.is_file() and digest not in path.name and path.stat().st_size == len(model.layers[0]):
            path.unlink()
    done = commands("pull", name, "--processes", "1", code=8)
    assert "1 of 3 blobs failed, the others are in place" in done.err
    assert "(process " in done.err
