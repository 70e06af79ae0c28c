"""Tables for notebooks, and what hostile texts become in them."""

from __future__ import annotations

import json
import pickle

import pytest

import transferkit as tk
from transferkit.errors import shown_as
from transferkit.report.plan import Plan, PushPlan
from transferkit.tables import listing

HOSTILE = '<script>alert("1")</script>\N{RIGHT-TO-LEFT OVERRIDE}&\x1b[2J'
TAME = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;\N{REPLACEMENT CHARACTER}&amp;\N{REPLACEMENT CHARACTER}[2J"


def manifest_of(titles: list[str]) -> tk.Manifest:
    layers = [
        {
            "mediaType": "application/x",
            "digest": f"sha256:{number:064x}",
            "size": 1536,
            "annotations": {"org.opencontainers.image.title": title},
        }
        for number, title in enumerate(titles, 1)
    ]
    return tk.Manifest(json.dumps({"schemaVersion": 2, "layers": layers}).encode())


def test_a_manifest_is_a_table_of_its_layers() -> None:
    html = manifest_of(["a.bin", HOSTILE])._repr_html_()
    assert "Manifest sha256:" in html
    assert ": 2 layers, 3.0 KiB" in html
    assert html.count("<tr>") == 3
    for cell in ("a.bin", TAME, "1.5 KiB", "sha256:000000000000", "application/x"):
        assert f">{cell}</td>" in html
    assert "<script" not in html


def test_a_long_list_is_cut_with_a_count() -> None:
    html = manifest_of([f"layer-{number}" for number in range(1060)])._repr_html_()
    assert "layer-49<" in html
    assert "layer-50<" not in html
    assert "and 1,010 more" in html
    assert len(html) < 20_000
    assert "more</td>" not in listing("", ["a"], [["b"]] * 50)


def test_a_cell_is_bounded() -> None:
    assert len(manifest_of(["x" * 100_000])._repr_html_()) < 2000


def test_an_index_is_a_table_of_its_manifests() -> None:
    entry = {"mediaType": "application/x", "digest": f"sha256:{1:064x}", "size": 1}
    platform = {"os": "linux", "architecture": "<b>"}
    document = {"schemaVersion": 2, "manifests": [{**entry, "platform": platform}]}
    html = tk.Index(json.dumps(document).encode())._repr_html_()
    assert ": 1 manifest<" in html
    assert "linux/&lt;b&gt;" in html


def test_plans_are_tables() -> None:
    html = Plan(blobs=3, present=1, bytes=2048, needed=4096, free=1024)._repr_html_()
    assert "<tr><th>to be moved</th><td>2.0 KiB</td></tr>" in html
    assert "<tr><th>fits</th><td>no</td></tr>" in html
    html = PushPlan(files=("a", HOSTILE), blobs=3, present=1, bytes=2048, limits=("too <large>",))._repr_html_()
    assert "2 files, 2 of 3 blobs to send, 2.0 KiB; too &lt;large&gt;" in html
    assert TAME in html


def test_a_cache_is_a_table_of_its_models(tmp_path) -> None:
    with tk.DiskCache(tmp_path) as cache:
        for name, content in (("localhost/m/good:v1", manifest_of(["a", "b"]).raw), ("localhost/m/bad:v1", b"[]")):
            cache.link(name, content)
        html = cache._repr_html_()
    assert ": 2 models</caption>" in html
    assert ">localhost/m/good:v1</td>" in html
    assert ">3.0 KiB</td>" in html
    assert html.count(">?</td>") == 2


def test_an_error_is_one_line_in_a_notebook() -> None:
    assert tk.DeniedError("no\n entry\x1b[2J")._render_traceback_() == ["DeniedError: no entry?[2J"]
    assert tk.CancelledError()._render_traceback_() == ["CancelledError"]


def test_an_interrupt_is_one_line_in_a_notebook_and_still_one_that_pickles() -> None:
    error = KeyboardInterrupt()
    shown_as(error, "stopped at 1 B of 2 B")
    assert error._render_traceback_() == ["KeyboardInterrupt: stopped at 1 B of 2 B"]  # type: ignore[attr-defined]
    assert isinstance(pickle.loads(pickle.dumps(error)), KeyboardInterrupt)


class Slots(KeyboardInterrupt):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def test_an_exception_that_takes_no_attributes_stays_as_it_is() -> None:
    shown_as(Slots(), "stopped")


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.pyplot"])
def test_without_matplotlib_a_plot_says_what_to_install(module, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'transferkit\[plot\]'"):
        tk.Report().plot()
