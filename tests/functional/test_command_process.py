"""The program as a process: signals, closed pipes, what ``--help`` imports, and a shell that completes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.functional.held import Held
from tests.functional.models import Model, digest_of
from transferkit.storage.partials import partials
from transferkit.testing import FaultRule, respond, running_registry, with_faults

PROGRAM = [sys.executable, "-m", "transferkit"]
MIB = 1024 * 1024
WEIGHTS = random.Random(5).randbytes(24 * MIB)
HELD_AFTER = 8 * MIB


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)]
)
def test_a_signal_keeps_what_has_arrived_and_the_next_run_goes_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    held = Held(digest_of(WEIGHTS), HELD_AFTER)
    no_list = FaultRule(respond(404), path="/chunksums/")
    with running_registry(middleware=lambda app: held(with_faults(app, no_list))) as registry:
        try:
            name = f"{registry.url.removeprefix('http://')}/team/model:v1"
            Model([WEIGHTS]).put(registry.url, "team/model", "v1")
            command = [*PROGRAM, "--cache", str(tmp_path), "pull", "-q", name]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                deadline = time.monotonic() + 30
                while sum(each.stored for each in partials(tmp_path / "blobs")) < HELD_AFTER // 2:
                    assert time.monotonic() < deadline, "nothing has arrived"
                    time.sleep(0.02)
                process.send_signal(number)
                out, err = process.communicate(timeout=20)
            assert (code, "") == (process.returncode, out)
            assert "interrupted: what has arrived is kept; the same command goes on from there\n" == err
            assert sum(each.stored for each in partials(tmp_path / "blobs")) >= HELD_AFTER // 2
        finally:
            held.release()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert f"{name}@{Model([WEIGHTS]).digest}\n" == done.stdout
        assert held.sent <= len(WEIGHTS) - HELD_AFTER // 2, "what had arrived was fetched again"


@pytest.mark.parametrize("arguments", [["--help"], ["completion", "bash"]])
def test_a_closed_pipe_ends_it_in_silence(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # Only a stream with a buffer fails once more at the end.
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run([*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, env=environ, timeout=60)
    finally:
        os.close(writer)
    assert (141, b"") == (done.returncode, done.stderr)


def test_help_of_every_command_and_the_version_import_no_http_library() -> None:
    code = """
import sys, click
from transferkit.cli import main
from transferkit.cli.manual import commands, page
lines = [["--help"], ["--version"]]
context = click.Context(main, info_name="transferkit")
lines += [[*below.command_path.split()[1:], "--help"] for _, below in commands(main, context)]
for line in lines:
    try:
        main(line)
    except SystemExit as end:
        assert end.code == 0, line
page(main)
print(len(lines), [name for name in ("requests", "urllib3", "tqdm", "werkzeug") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    count, found = done.stdout.splitlines()[-1].split(" ", 1)
    assert (True, "[]") == (int(count) >= 20, found)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_names_with_colons(tmp_path: Path) -> None:
    for tag in ("135m", "360m"):
        folder = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "smollm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / tag).write_text("{}")
    # As readline calls it: with the line, and the colon as a word of its own.
    script = f"""
transferkit() {{ {sys.executable} -m transferkit "$@"; }}
export -f transferkit
mkdir -p {tmp_path}/bin; printf '#!/bin/sh\\nexec {sys.executable} -m transferkit "$@"\\n' > {tmp_path}/bin/transferkit
chmod +x {tmp_path}/bin/transferkit; export PATH={tmp_path}/bin:$PATH; unset -f transferkit
source <(transferkit completion bash)
COMP_LINE="transferkit --cache {tmp_path} rm smollm:3"; COMP_POINT=${{#COMP_LINE}}
_transferkit_completion transferkit; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert ("360m\n", "") == (done.stdout, done.stderr)


def test_ctrl_c_while_the_program_is_loaded_shows_no_traceback() -> None:
    code = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
runpy.run_module("transferkit", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (-signal.SIGINT, "", "") == (done.returncode, done.stdout, done.stderr)
