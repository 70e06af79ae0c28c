"""The notebooks of ``examples`` in a real kernel, from a clean state, and what an interrupt of the kernel does."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import ensure_event_loop
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")


@contextmanager
def running(name: str, folder: Path) -> Iterator[NotebookClient]:
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}})
    try:
        with client.setup_kernel():
            yield client
    finally:
        ensure_event_loop().close()  # nbclient leaves it to the garbage collector
        asyncio.set_event_loop(None)


def text_of(cell: Any) -> str:
    """Return what a cell has shown: its streams, its results, as HTML where there is that, and its tracebacks."""
    found = []
    for output in cell.get("outputs", ()):
        found.append(output.get("text", "") + "".join(output.get("traceback", ())))
        data = output.get("data", {})
        found.append(data.get("text/html") or data.get("text/plain", ""))
    return "".join(found)


def interrupted(client: NotebookClient, index: int) -> str:
    """Run a cell, interrupt the kernel once its bar has moved, and return all that the cell has shown."""
    cell = client.nb.cells[index]
    told: list[int] = []

    def watch() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            told[:] = [int(percent) for percent in re.findall(r"(\d+)%", text_of(cell))]
            if told and told[-1] > 0:
                break
            time.sleep(0.02)
        asyncio.run(client.km.interrupt_kernel())

    watcher = threading.Thread(target=watch)
    watcher.start()
    client.allow_errors = True
    try:
        client.execute_cell(cell, index)
    finally:
        client.allow_errors = False
        watcher.join()
    assert 0 < told[-1] < 100
    return text_of(cell)


def test_a_pull_that_is_interrupted_goes_on_when_its_cell_runs_again(tmp_path):
    with running("pull-a-model.ipynb", tmp_path) as client:
        shown: list[str] = []
        for index, cell in enumerate(client.nb.cells):
            if "interrupt" in cell.metadata.get("tags", ()):
                text = interrupted(client, index)
                (error,) = (output for output in cell.outputs if output.output_type == "error")
                assert "KeyboardInterrupt" == error.ename
                (line,) = error.traceback
                assert re.fullmatch(
                    r"KeyboardInterrupt: stopped at [\d.]+ [KM]iB of 48\.0 MiB\. "
                    r"Run it again: it goes on from there\.",
                    line,
                )
                assert "Traceback" not in text
                cell.source = cell.source.replace("max_bandwidth=8", "max_bandwidth=800")
            client.execute_cell(cell, index)
            shown.append(text_of(cell))
            assert not any("Warning" in text for text in shown), shown[-1]
    again = next(text for cell, text in zip(client.nb.cells, shown, strict=True) if "interrupt" in str(cell.metadata))
    assert re.search(r"48\.0 MiB of 48\.0 MiB, [\d.]+ [KM]iB cached", again)
    everything = "".join(shown)
    assert "<td>model-1.safetensors</td>" in re.sub(r' style="[^"]*"', "", everything)
    assert "['config.json', 'model-1.safetensors', 'model-2.safetensors']" in everything
    images = [output for cell in client.nb.cells for output in cell.get("outputs", ()) if "image/png" in str(output)]
    assert 1 == len(images)
    (error,) = (
        output for cell in client.nb.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    )
    assert 1 == len(error.traceback)
    assert error.traceback[0].startswith("ManifestNotFoundError: ")
    assert "\n" not in error.traceback[0]


def test_the_cells_of_a_push_run_one_after_the_other(capsys):
    notebook = nbformat.read(EXAMPLES / "push-a-folder.ipynb", as_version=4)
    names: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "push-a-folder.ipynb", "exec"), names)
    assert names["better"].digest != names["manifest"].digest
    assert '"version":1' in capsys.readouterr().out


@pytest.mark.full  # another kernel
def test_a_folder_is_pushed_and_only_what_has_changed_is_sent_again(tmp_path):
    with running("push-a-folder.ipynb", tmp_path) as client:
        for index, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, index)
    shown = "".join(text_of(cell) for cell in client.nb.cells)
    assert "3 files, 5 of 5 blobs to send, 20.0 MiB" in shown or "3 files, 4 of 4 blobs to send, 20.0 MiB" in shown
    assert "3 files, 2 of 4 blobs to send" in shown
    assert '"version":1' in shown
    assert "tokenizer/vocab.txt" in shown
