"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

import transferkit as tk
from transferkit.cli import demo as demo_command
from transferkit.cli import main
from transferkit.cli.demo import run
from transferkit.registry import Registry


def test_the_demo_moves_a_generated_model():
    done = CliRunner().invoke(main, ["demo", "--tensors", "30", "--large", "2"])

    assert 0 == done.exit_code, done.output
    assert "pushed 31 files, 31 distinct blobs" in done.output
    assert "pulled 31 files, 31 distinct blobs" in done.output
    assert "requests: 33 for 31 blobs" in done.output  # the manifest, and the empty config
    assert "verified 31 files" in done.output
    assert 'pull("127.0.0.1:' in done.output
    assert "/cache/blobs/sha256-" in done.output


def test_the_demo_moves_real_files_of_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "sub" / "b").write_bytes(b"two")
    (tmp_path / "sub" / "same").write_bytes(b"one")

    done = CliRunner().invoke(main, ["demo", "--path", str(tmp_path)])

    assert 0 == done.exit_code, done.output
    assert "pushed 3 files, 2 distinct blobs, 6 B" in done.output
    assert "verified 3 files, 6 B: every byte is in place" in done.output


def test_a_name_that_is_none_elsewhere_is_moved_as_well(tmp_path):
    (tmp_path / "a:b").write_bytes(b"one")
    done = CliRunner().invoke(main, ["demo", "--path", str(tmp_path / "a:b")])
    assert 0 == done.exit_code, done.output
    assert "verified 1 files" in done.output


def test_a_folder_without_files_is_a_sentence(tmp_path):
    done = CliRunner().invoke(main, ["demo", "--path", str(tmp_path)])
    assert (1, f"Error: there are no files in {tmp_path}\n") == (done.exit_code, done.output)


def test_a_missing_path_is_wrong_usage(tmp_path):
    assert 2 == CliRunner().invoke(main, ["demo", "--path", str(tmp_path / "nothing")]).exit_code


def test_an_error_of_the_transfer_is_a_sentence_and_exit_code_1(monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise tk.OutOfSpaceError("no space left writing /x: free some, and run it again")

    monkeypatch.setattr("transferkit.cli.demo.run", failing)
    done = CliRunner().invoke(main, ["demo"])

    assert 1 == done.exit_code
    assert "Error: no space left" in done.output


def test_a_wrong_byte_is_exit_code_1(monkeypatch):
    pull = Registry.pull

    def damaging(registry, name, **keywords):
        manifest = pull(registry, name, **keywords)
        Path(registry.cache.path(manifest.layers[0].digest)).write_bytes(b"another one")
        return manifest

    monkeypatch.setattr(Registry, "pull", damaging)
    done = CliRunner().invoke(main, ["demo", "--tensors", "2", "--large", "0"])

    assert 1 == done.exit_code
    assert "1 files are wrong" in done.output


def test_ctrl_c_is_exit_code_130(monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transferkit.cli.demo.run", interrupted)
    assert 130 == CliRunner().invoke(main, ["demo"]).exit_code


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transferkit.cli.demo", None)
    done = CliRunner().invoke(main, ["demo"])

    assert 1 == done.exit_code
    assert "pip install 'transferkit[server]'" in done.output


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "transferkit", "--version"], capture_output=True, text=True)

    assert f"transferkit, version {tk.__version__}\n" == done.stdout


def test_an_unreadable_file_is_named(tmp_path):
    import pytest

    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(tk.SourceError, match="loop"):
        run([tmp_path / "loop"], tensors=0, large=0)
    assert demo_command.name == "demo"
