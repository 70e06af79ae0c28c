"""Every block of code of every page runs, or says why not; commands are commands, and no line is cut off.

A page that is new is found here by itself. Its blocks run in their order, in one namespace with ``tk``, in a folder
with some files, beside a registry that stands for ``localhost:5000`` and for ``registry.example.com``.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import logging
import os
import re
import shlex
import struct
import sys
import types
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
import trustme

import transferkit as tk
from tests.functional import hub
from tests.pages import NARROW, ROOT, WIDEST, Block, blocks_of, pages
from tests.unit.models.build import gguf_file, pair, text
from transferkit import errors
from transferkit.cli import main
from transferkit.registry import defaults
from transferkit.testing import RunningRegistry, running_registry

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHOWN = ("text", "none")  # output, and what is no code
HEADER = {
    "embed.weight": {"dtype": "F32", "shape": [32, 2], "data_offsets": [0, 256]},
    "layers.0.w": {"dtype": "U8", "shape": [4], "data_offsets": [256, 260]},
    "norm.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [260, 264]},
}


def model_file() -> bytes:
    header = json.dumps(HEADER).encode()
    return len(header).to_bytes(8, "little") + header + struct.pack("<64f", *range(64)) + b"abcd\x80\x3f\x00\xc0"


# -- what blocks in Python find


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """A registry with some models."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(model_file())
    (folder / "weights.bin").write_bytes(b"weights")
    with running_registry() as running, tk.Registry(cache=folder / "cache") as first:
        for name in ("library/model:v1", "library/smollm:135m"):
            first.push(f"{running.url}/{name}", files=[folder / "weights.bin"])
        first.push(f"{running.url}/team/model:v1", folder=folder / "model")
        yield running


class Stage:
    """A folder to work in, and what the texts of pages stand for there."""

    def __init__(self, shelf: RunningRegistry, folder: Path) -> None:
        self.shelf, self.folder = shelf, folder
        (folder / "my-model").mkdir()
        (folder / "my-model" / "config.json").write_text("{}")
        (folder / "my-model" / "model.safetensors").write_bytes(model_file())
        (folder / "my-gguf").mkdir()
        (folder / "my-gguf" / "model.gguf").write_bytes(gguf_file([pair("general.architecture", 8, text("llama"))]))
        for name in ("a.bin", "weights.bin"):
            (folder / name).write_bytes(b"weights")
        for name in ("b.json", "config.json"):
            (folder / name).write_text("{}")
        authority, me = trustme.CA(), trustme.CA().issue_cert("me.example")
        authority.cert_pem.write_to_path(str(folder / "company.pem"))
        me.cert_chain_pems[0].write_to_path(str(folder / "me.pem"))
        me.private_key_pem.write_to_path(str(folder / "me.key"))
        digest = tk.Digest.of(b"weights")
        (folder / "folder").mkdir()
        (folder / "folder" / digest.file_name).write_bytes(b"weights")
        host = shelf.url.removeprefix("http://")
        self._texts = {
            '"sha256:..."': f'"{digest}"',
            "size=123": "size=7",
            "https://registry.example.com": shelf.url,
            "http://localhost:5000": shelf.url,
            "registry.example.com": host,
            "localhost:5000": host,
            '"ghcr.io/team/model': f'"{host}/team/model',
            "first.local:5000": host,
            '"smollm:135m"': f'"{host}/library/smollm:135m"',
            '"/models/': f'"{folder}/models/',
            'print("listening on", url)': "ask(url)",
        }

    def here(self, code: str) -> str:
        """Return a block with the names of this stage."""
        for written, meant in self._texts.items():
            code = code.replace(written, meant)
        return code


@pytest.fixture
def stage(shelf: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(defaults, "_made", {})
    monkeypatch.setattr(sys, "argv", ["initializer.py", f"{shelf.url}/team/model:v1", str(tmp_path / "argv")])
    for name in ("REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what a page says of them ends with its test
    for module, names in (
        ("vllm", {"LLM": lambda model: os.listdir(model)}),
        ("ray.serve.llm.callbacks", {"CallbackBase": object}),
    ):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        vars(sys.modules[module]).update(names)
    levels = {name: logging.getLogger(name).level for name in ("transferkit", "")}
    with hub.ScriptedHub({"config.json": b"{}", "model.safetensors": model_file()}) as hugging:
        hub.use(hugging, monkeypatch, tmp_path)
        yield Stage(shelf, tmp_path)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for made in defaults._made.values():
        made.close()


# -- what comes of some of them: what they have named, the lines that they have printed, and their folder


def of_readme(names: dict[str, Any], said: list[str], folder: Path) -> None:
    assert b"weights" == Path(said[0]).read_bytes()
    assert "{}" == (folder / "out" / "b.json").read_text()
    assert ["model.safetensors"] == [path.name for path in (folder / "here").iterdir() if path.name[0] != "."]
    assert model_file() == (folder / "here" / "model.safetensors").read_bytes()


def of_models_by_name(names: dict[str, Any], said: list[str], folder: Path) -> None:
    assert {"config.json": str(folder / "out" / "config.json")} == names["paths"]
    assert b"weights" == Path(said[0]).read_bytes() == Path(said[1].split()[-1]).read_bytes()


def of_tensors(names: dict[str, Any], said: list[str], folder: Path) -> None:
    numbers = struct.pack("<64f", *range(64))
    assert said[0].startswith("3 Tensor(name='embed.weight', dtype='F32', shape=(32, 2)")
    assert (numbers, numbers[80:160]) == (names["array"].tobytes(), names["rows"].tobytes())
    assert b"abcd" == names["layer"]["layers.0.w"].tobytes()
    assert [1.0, -2.0] == names["values"].tolist()


def of_registry(names: dict[str, Any], said: list[str], folder: Path) -> None:
    assert ["['v1']"] == said


def of_server(names: dict[str, Any], said: list[str], folder: Path) -> None:
    assert b"hello" == names["asked"]["/"]
    assert b'{"models":[' == names["asked"]["/api/tags"][:11]


def of_tutorial(names: dict[str, Any], said: list[str], folder: Path) -> None:
    assert ["['v1', 'v2']", "that is enough for now"] == [line for line in said if line[:2] in ("['", "th")]
    assert "check the name and the tag" in said[-1]


def of_scale(names: dict[str, Any], said: list[str], folder: Path) -> None:
    with tk.Registry(cache=folder / "scratch" / "models") as there:
        assert ["team/model:v1"] == [str(name).partition("/")[2] for name in there.cache.links()]
        assert [] == there.cache.verify()


OUTCOMES: dict[str, Callable[[dict[str, Any], list[str], Path], None]] = {
    "README.rst": of_readme,
    "docs/models-by-name.rst": of_models_by_name,
    "docs/registry.rst": of_registry,
    "docs/scale.rst": of_scale,
    "docs/server.rst": of_server,
    "docs/tensors.rst": of_tensors,
    "docs/tutorial.rst": of_tutorial,
}


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))])
def test_the_python_of_a_page_runs(page: str, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, bytes] = {}

    def ask(url: str) -> None:
        for path in ("/", "/api/tags"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                asked[path] = answer.read()

    names: dict[str, Any] = {"tk": tk, "__name__": "page", "ask": ask, "asked": asked}
    for block in blocks_of(page):
        if block.language == "python" and block.reason is None:
            # The lines of a traceback are those of the page.
            code = "\n" * (block.line - 1) + stage.here(block.code)
            exec(compile(code, str(ROOT / page), "exec"), names)
    if page in OUTCOMES:
        OUTCOMES[page](names, capsys.readouterr().out.splitlines(), stage.folder)
    for value in names.values():
        if isinstance(value, (tk.Registry, ExitStack)):
            value.close()


# -- what is not Python


def problems_of(line: str) -> list[str]:
    """Return what is wrong with a line for a shell, as far as it is about this project."""
    words = shlex.split(line, comments=True)
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in ("$", "python", "-m")):
        words.pop(0)
    for end in ("|", "&&", "&", ">", "2>", "<", "||", ";"):
        words = words[: words.index(end)] if end in words else words
    if words[:1] == ["transferkit"]:
        return parse(main, words[1:])
    if words[:1] == ["make"]:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return [word for word in words[1:] if "=" not in word and word not in targets]
    if words[:2] == ["pip", "install"]:
        extras = configparser.ConfigParser()
        extras.read(ROOT / "setup.cfg")
        named = re.findall(r"transferkit\[([a-z,]+)\]", line)
        return [each for each in ",".join(named).split(",") if each and each not in extras["options.extras_require"]]
    return []


def parse(command: click.Command, words: list[str]) -> list[str]:
    """Return what click says against a command, without running it."""
    try:
        context = command.make_context(command.name, words)
        if not isinstance(command, click.Group):
            return []
        before = getattr(context, "_protected_args", None) or []  # of click 8.2; older ones have args alone
        _, inner, rest = command.resolve_command(context, [*before, *context.args])
        return [] if inner is None else parse(inner, rest)
    except click.exceptions.Exit:
        return []  # --help, --version
    except click.ClickException as error:
        return [error.format_message()]


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an example names need not be here."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, parameter, context: value)


@pytest.mark.usefixtures("any_path")
def test_commands_in_the_pages_are_commands() -> None:
    wrong = {}
    for block in BLOCKS:
        if block.language in ("sh", "bash", "console"):
            code = block.code.replace("\\\n", " ")
            lines = [line.removeprefix("$ ") for line in code.splitlines()]
            if block.language == "console":
                lines = [line for line in code.splitlines() if line.startswith("$ ")]
            found = [problem for line in lines for problem in problems_of(line.removeprefix("$ "))]
            if found and block.reason is None:
                wrong[str(block)] = found
    assert {} == wrong


def test_a_wrong_command_would_be_found() -> None:
    for line, wrong in (("transferkit xyzzy model", "xyzzy"), ("transferkit serve --prot 1", "--prot")):
        (said,) = problems_of(line)
        assert wrong in said
    assert ["tset"] == problems_of("make tset")
    assert ["sever"] == problems_of("pip install 'transferkit[sever]'")


def test_data_in_the_pages_is_well_formed() -> None:
    yaml = importlib.import_module("yaml")
    readers = {"json": json.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}
    if sys.version_info >= (3, 11):
        readers["toml"] = importlib.import_module("tomllib").loads
    for block in BLOCKS:
        if block.reason is None and block.language in readers:
            readers[block.language](block.code)


# -- what holds for all of them


def test_every_block_says_its_language() -> None:
    known = {"python", "sh", "bash", "console", "json", "yaml", "toml", "make", *SHOWN}
    assert [] == [str(block) for block in BLOCKS if block.language not in known]
    literal = [
        f"{page}:{number}"
        for page in PAGES
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1)
        if line.endswith("::") and not line.lstrip().startswith("..")
    ]
    assert [] == literal


def test_a_block_that_does_not_run_has_a_reason() -> None:
    assert [] == [str(block) for block in BLOCKS if block.reason is not None and len(block.reason.split()) < 3]


def test_no_line_of_code_is_cut_off() -> None:
    wide = [
        f"{block.page}:{block.line + number}"
        for block in BLOCKS
        for number, line in enumerate(block.code.splitlines())
        if len(line) > WIDEST
    ]
    assert [] == wide


def test_no_line_of_an_example_in_a_docstring_is_cut_off() -> None:
    wide = []
    for path in (ROOT / "transferkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                lines = (ast.get_docstring(node) or "").splitlines()
                wide += [f"{path}: {line}" for line in lines if line[:4] in (">>> ", "... ") and len(line) > NARROW]
    assert [] == wide


def test_every_error_is_in_the_catalogue() -> None:
    page = (ROOT / "docs" / "errors.rst").read_text()
    classes = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(classes) > 25
    assert [] == [name for name in classes if f"\n{name}\n{'~' * len(name)}\n" not in page]
    assert [] == [name for name in re.findall(r"\n(\w+)\n~+\n", page) if name not in classes]


def test_a_block_knows_where_it_stands() -> None:
    block = next(block for block in BLOCKS if block.language == "python")
    lines = (ROOT / block.page).read_text().splitlines()
    assert block.code.splitlines()[0] == lines[block.line - 1].strip()
    assert isinstance(block, Block)
