"""The code of the pages about progress and notebooks runs, block by block, as it stands there."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    found: list[str] = []
    for part in (DOCS / page).read_text().split(".. code-block:: python\n")[1:]:
        lines = []
        for line in part.splitlines():
            if line and not line.startswith("   "):
                break
            lines.append(line)
        found.append(textwrap.dedent("\n".join(lines)))
    return found


@pytest.mark.parametrize(("page", "count"), [("progress.rst", 8), ("notebooks.rst", 3)])
def test_the_blocks_of_a_page_run(page, count, monkeypatch, tmp_path, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    code, names = blocks(page), {"__name__": "page"}
    assert count == len(code)
    for number, block in enumerate(code, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    pyplot.close("all")
    assert "100 %" in capsys.readouterr().err
