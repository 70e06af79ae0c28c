"""The folders are the architecture: the contracts of setup.cfg hold, and no path is built from a text of a peer's."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import transferkit as tk

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "transferkit").rglob("*.py"))


def test_the_layer_contracts_are_kept():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_importing_the_package_imports_nothing_else():
    code = "import sys; import transferkit; print(sorted(m for m in sys.modules if m.startswith('transferkit')))"
    code += "; print([m for m in ('requests', 'urllib3', 'tenacity', 'tqdm', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "['transferkit', 'transferkit._version']\n[]\n" == done.stdout


def test_help_does_not_import_an_http_library():
    code = "import sys\ntry:\n import transferkit.cli as c; c.main(['demo', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('requests', 'urllib3', 'tenacity', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Push files to a registry" in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="proxies are kept elsewhere: requests is asked")
def test_a_download_without_proxies_imports_no_http_library(registry, make_blobs, tmp_path):
    """It would be most of the start, and as long as 100 MB take."""
    (blob,) = make_blobs(tmp_path / "there", [100_000])
    tk.upload([blob], tmp_path / "there", base_url=registry.url, repository="a/b")
    code = "import sys; import transferkit as tk; digest, folder, url = sys.argv[1:]; "
    code += "print(tk.download([tk.Blob(digest, 100_000)], folder, base_url=url, repository='a/b').bytes); "
    code += "print([m for m in ('requests', 'urllib3', 'http', 'ssl', 'filelock', 'tenacity') if m in sys.modules])"
    command = [sys.executable, "-c", code, blob.digest, str(tmp_path / "here"), registry.url]
    env = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)

    assert "100000\n[]\n" == done.stdout


def test_every_module_says_what_it_knows():
    silent = [str(path) for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]

    assert silent == []
