"""The recipes of ``docs/recipes.rst``, each with a stand-in of ten lines for the program that calls it.

The stand-ins call as the programs do: vLLM's ``LLM(model=)``, Ray's ``CallbackBase``, KServe's storage initializer,
Dask's ``WorkerPlugin``, and a container's command. None of the programs themselves is here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.functional.folders import FILES, WHERE, contents, model_of, name_in
from transferkit.registry import defaults

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.rst").read_text()
PUBLIC = "oci://registry.example.com/team/model:v1"


def recipe(name: str, reference: str) -> str:
    """The code of a recipe, with a registry that is here."""
    block = re.search(rf"   :name: {name}\n\n(.*?)\n(?=\S)", PAGE, re.DOTALL)
    assert block is not None, name
    return re.sub(r"^   ", "", block[1], flags=re.MULTILINE).replace(PUBLIC, reference)


@pytest.fixture
def reference(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(defaults, "_made", {})
    model_of(FILES).put(registry.url, WHERE)
    yield name_in(registry)
    for made in defaults._made.values():
        made.close()


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **names: Any) -> None:
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    vars(sys.modules[module]).update(names)


def test_vllm_is_given_a_folder(reference, monkeypatch):
    class LLM:
        """Stands in for vLLM, which reads ``config.json`` and the weights of a folder."""

        def __init__(self, model: str) -> None:
            assert os.path.isdir(model)
            self.config = Path(model, "config.json").read_bytes()
            self.weights = [path.read_bytes() for path in Path(model).glob("*.safetensors")]

    stand_in(monkeypatch, "vllm", LLM=LLM)
    space: dict[str, Any] = {}
    exec(recipe("vllm", reference), space)
    assert (FILES["config.json"], [FILES["model.safetensors"]]) == (space["llm"].config, space["llm"].weights)


def test_vllms_command_line_gets_the_path_on_standard_output(reference, tmp_path):
    line = re.search(r"\$\((python -c '(.*?)') \\\n +(\S+)\)", PAGE)
    assert line is not None
    assert PUBLIC == line[3]
    environment = {**os.environ, "TRANSFERKIT_CACHE": str(tmp_path / "cache")}
    said = subprocess.run(
        [sys.executable, "-c", line[2], reference], env=environment, capture_output=True, text=True, check=True
    )
    assert FILES == contents(Path(said.stdout.removesuffix("\n")))


def test_ray_calls_the_callback_on_each_node(reference, tmp_path, monkeypatch):
    class CallbackBase:
        """Stands in for Ray's, as far as a callback sees it."""

        def __init__(self, llm_config: Any, **kwargs: Any) -> None:
            self.llm_config, self.kwargs = llm_config, kwargs

    stand_in(monkeypatch, "ray.serve.llm.callbacks", CallbackBase=CallbackBase)
    space: dict[str, Any] = {}
    exec(recipe("ray", reference).replace("/models/", f"{tmp_path}/models/"), space)
    given = space["config"]["callback_config"]
    for _ in ("one node", "another process of it"):
        given["callback_class"](None, **given["callback_kwargs"]).on_before_download_model_files_distributed()
    assert FILES == contents(Path(space["config"]["model_loading_config"]["model_source"]))


def test_kserve_runs_it_with_the_source_and_the_folder(reference, tmp_path):
    (tmp_path / "initializer.py").write_text(recipe("kserve", reference))
    command = [sys.executable, str(tmp_path / "initializer.py"), reference, str(tmp_path / "models")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert FILES == contents(tmp_path / "models")
    assert "3 files" in said.stdout or "files 3" in said.stdout
    assert not (tmp_path / "cache" / "blobs").exists()


def test_dask_sets_each_worker_up(reference, monkeypatch):
    class WorkerPlugin:
        """Stands in for Dask's base class."""

    stand_in(monkeypatch, "distributed", WorkerPlugin=WorkerPlugin)
    space: dict[str, Any] = {}
    exec(recipe("dask", reference), space)
    workers = [types.SimpleNamespace(), types.SimpleNamespace()]
    for worker in workers:
        space["plugin"].setup(worker)
    assert workers[0].model == workers[1].model
    assert FILES == contents(workers[0].model)


def test_an_init_container_fills_its_volume_and_goes_on_after_it_was_killed(reference, tmp_path):
    block = re.search(r"         - \|\n(.*?)\n       volumeMounts", PAGE, re.DOTALL)
    assert block is not None
    code = re.sub(r"^           ", "", block[1], flags=re.MULTILINE).replace(PUBLIC, reference)
    code = code.replace('to="/models"', f"to={str(tmp_path / 'models')!r}")
    first = subprocess.Popen([sys.executable, "-c", code])
    first.kill()
    first.wait()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert FILES == contents(tmp_path / "models")
