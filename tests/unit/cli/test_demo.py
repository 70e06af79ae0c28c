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


def test_the_demo_moves_a_generated_model():
    done = CliRunner().invoke(main, ["demo", "--tensors", "30", "--large", "2"])

    assert 0 == done.exit_code, done.output
    assert "31 files, 31 distinct blobs" in done.output
    assert "requests: 31 for 31 blobs" in done.output
    assert "verified 31 files" in done.output


def test_the_demo_moves_real_files_of_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "sub" / "b").write_bytes(b"two")
    (tmp_path / "sub" / "same").write_bytes(b"one")

    done = CliRunner().invoke(main, ["demo", "--path", str(tmp_path)])

    assert 0 == done.exit_code, done.output
    assert "3 files, 2 distinct blobs, 6 B" in done.output
    assert "verified 2 files, 6 B: every byte is in place" in done.output


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
    def damaging(blobs, folder, **keywords):
        report = tk.download(blobs, folder, **keywords)
        Path(next(iter(report.paths.values()))).write_bytes(b"another one")
        return report

    monkeypatch.setattr("transferkit.cli.demo.download", damaging)
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
