"""The folders are the architecture: the contracts of setup.cfg hold, and no path is built from a text of a peer's."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "transferkit").rglob("*.py"))


def test_the_layer_contracts_are_kept():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_importing_the_package_imports_nothing_else():
    code = "import sys; import transferkit; print(sorted(m for m in sys.modules if m.startswith('transferkit')))"
    code += "; print([m for m in ('requests', 'urllib3', 'tqdm', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "['transferkit', 'transferkit._version', 'transferkit.forks']\n[]\n" == done.stdout


def test_help_does_not_import_an_http_library():
    code = "import sys\ntry:\n import transferkit.cli as c; c.main(['demo', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('requests', 'urllib3', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Push a folder to a registry" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_every_module_says_what_it_knows():
    silent = [str(path) for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]

    assert silent == []
