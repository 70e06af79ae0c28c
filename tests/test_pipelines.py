"""The examples of pipelines do what they say, each as its own scheduler runs it."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import transferkit as tk
from tests.functional.models import host
from transferkit.testing import FaultRule, HTTPFaults, RunningRegistry, delay, respond, running_registry

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "pipelines"
FILES = {"config.json": b'{"layers": 2}', "model.bin": bytes(range(256)) * 1000, "notes/a.txt": b"notes"}
pytestmark = pytest.mark.xdist_group("pipelines")


class Served:
    """A registry with models ``team/one`` and ``team/two``, and faults on its way."""

    def __init__(self, registry: RunningRegistry, faults: HTTPFaults, folder: Path) -> None:
        self.registry, self.faults, self.folder = registry, faults, folder

    def name(self, model: str, tag: str = "v1") -> str:
        return f"{host(self.registry.url)}/team/{model}:{tag}"

    def push(self, model: str, files: dict[str, bytes], tag: str = "v1") -> tk.Digest:
        folder = self.folder / "pushed"
        shutil.rmtree(folder, ignore_errors=True)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        with tk.Registry(cache=self.folder / "pushing") as registry:
            return registry.push(self.name(model, tag), folder=folder).digest


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry:
        served = Served(registry, faults, tmp_path_factory.mktemp("pipelines"))
        served.push("one", FILES)
        served.push("two", {"config.json": b"{}"})
        yield served


@pytest.fixture
def served(serving: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    serving.faults.set()
    serving.registry.log.clear()
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    return serving


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # what is sent to another process is found by it
    spec.loader.exec_module(module)
    return module


def files_in(folder: Path) -> dict[str, bytes]:
    found = (
        path for path in folder.rglob("*") if path.is_file() and ".transferkit" not in str(path.relative_to(folder))
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# -- a plain script


def nightly(arguments: list[str], folder: Path) -> int:
    before = signal.getsignal(signal.SIGTERM)
    try:
        return load("nightly_pull").main([str(folder), *arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_script_of_the_night_pulls_all(served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nightly")
    assert 0 == nightly([served.name("one"), served.name("two")], tmp_path / "models")
    assert FILES == files_in(tmp_path / "models" / "team" / "one")
    assert [f"{served.name('one')}: sha256:", f"{served.name('two')}: sha256:"] == [
        record.getMessage()[: len(served.name("one")) + 9] for record in caplog.records if record.name == "nightly"
    ]


@pytest.mark.parametrize(
    ("fault", "names", "code"),
    [
        (None, ["none"], 3),
        (respond(401), ["one"], 4),
        (respond(403), ["one", "two"], 4),
        (respond(403), ["one", "none", "bad name"], 1),
    ],
)
def test_what_it_ends_with(served: Served, tmp_path: Path, fault: Any, names: list[str], code: int) -> None:
    if fault is not None:
        served.faults.set(FaultRule(fault, path="/manifests/"))
    assert code == nightly([served.name(name) for name in names], tmp_path / "models")


def test_it_goes_on_after_a_failure(served: Served, tmp_path: Path) -> None:
    assert 3 == nightly([served.name("none"), served.name("two")], tmp_path / "models")
    assert {"config.json": b"{}"} == files_in(tmp_path / "models" / "team" / "two")


def test_a_scheduler_stops_it(served: Served, tmp_path: Path) -> None:
    asked = threading.Event()

    def wait(seconds: float) -> None:
        asked.set()
        served_again.wait(60)

    served_again = threading.Event()
    served.faults.set(FaultRule(delay(1, sleep=wait), path="/manifests/"))
    command = [sys.executable, EXAMPLES / "nightly_pull.py", tmp_path / "models", served.name("one")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.terminate()
        _, said = process.communicate(timeout=60)
    served_again.set()
    assert (143, True, False) == (process.returncode, "stopped; the next run goes on" in said, "Traceback" in said)


# -- make


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_model_as_a_target_of_make(served: Served, tmp_path: Path) -> None:
    def make() -> str:
        served.registry.log.clear()
        arguments = [f"MODEL={served.name('made')}", f"PYTHON={sys.executable}", "evaluation.txt"]
        command = ["make", "-s", "-f", str(EXAMPLES / "models.mk"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert (0, "") == (done.returncode, done.stderr)
        return (tmp_path / "evaluation.txt").read_text()

    served.push("made", {"config.json": b"first"})
    assert "first" == make()
    assert 2 == served.registry.log.count("GET", "/blobs/")  # the file, and what the manifest says of the model
    assert "first" == make()
    assert ["/v2/team/made/manifests/v1"] == [
        request.path for request in served.registry.log if request.status == 200 and request.path != "/v2/"
    ]
    served.push("made", {"config.json": b"second"})
    assert "second" == make()


# -- threads and processes of one's own


def test_a_thread_pool_of_ones_own(served: Served, tmp_path: Path) -> None:
    names = [served.name("one"), served.name("two"), served.name("none")]
    found = load("thread_pool").pull_all(names, tmp_path / "models")
    assert [tk.FolderReport, tk.FolderReport, tk.ManifestNotFoundError] == [type(found[name]) for name in names]
    assert FILES == files_in(tmp_path / "models" / "team" / "one")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_blobs_are_split_over_processes(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import split_blobs  # type: ignore[import-not-found]  # as a spawned process finds it

    reports = split_blobs.fetch_all(served.registry.url, "team/one", "v1", tmp_path / "blobs", method=method)
    assert (2, 4) == (len(reports), sum(report.blobs for report in reports))
    manifest = tk.fetch_manifest("v1", base_url=served.registry.url, repository="team/one")
    assert sorted(tk.digest_to_path(blob.digest) for blob in manifest.blobs) == sorted(
        name for name in os.listdir(tmp_path / "blobs") if not name.startswith(".")
    )


def test_shares_are_of_about_one_size() -> None:
    sizes = [10, 9, 8, 1, 1, 1]
    blobs = [tk.Descriptor(f"sha256:{number:064x}", size) for number, size in enumerate(sizes, 1)]
    shares = load("split_blobs").split(blobs, 3)
    assert [10, 10, 10] == [sum(blob.size for blob in share) for share in shares]
    assert 2 == len(load("split_blobs").split(blobs[:2], 3))


# -- schedulers


class Stands:
    """In the place of a decorator: what a task is called with is done at once, and its options are kept."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def __call__(self, function: Any = None, **options: Any) -> Any:
        if function is None:
            return lambda function: self(function, **options)
        self.options[function.__name__] = options
        return function


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


class FailedForGood(Exception):
    """In the place of AirflowFailException."""


def test_an_airflow_task_in_short(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Stands()
    stand_in(monkeypatch, "airflow")
    stand_in(monkeypatch, "airflow.sdk.exceptions", AirflowFailException=FailedForGood)
    stand_in(monkeypatch, "airflow.sdk", task=task, dag=lambda **_: lambda function: lambda: None)
    module = load("airflow_pull")
    with tk.Registry() as registry:
        monkeypatch.setattr("transferkit.registry.defaults.default", lambda: registry)
        assert sorted(FILES) == module.list_files(module.pull_model(served.name("one")))
        assert 3 == task.options["pull_model"]["retries"]
        with pytest.raises(FailedForGood, match="not found"):
            module.pull_model(served.name("none"))
        monkeypatch.setattr(tk, "snapshot", raises(tk.ConnectError("down")))
        with pytest.raises(tk.ConnectError):
            module.pull_model(served.name("one"))


def test_a_prefect_flow_in_short(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Stands()
    stand_in(monkeypatch, "prefect", task=task, flow=Stands())
    module = load("prefect_pull")
    with tk.Registry() as registry:
        monkeypatch.setattr("transferkit.registry.defaults.default", lambda: registry)
        assert sorted(FILES) == module.nightly_model(served.name("one"))
    is_worth_it = task.options["pull_model"]["retry_condition_fn"]
    missing, cut = tk.BlobNotFoundError("none"), tk.ReadError("cut")
    for error, expected in (
        (cut, True),
        (missing, False),
        (ValueError("ours"), False),
        (tk.IncompleteError("some", failures={"sha256:a": cut, "sha256:b": missing}), True),
        (tk.IncompleteError("some", failures={"sha256:b": missing}), False),
    ):
        state = SimpleNamespace(result=lambda raise_on_failure, error=error: error)
        assert expected is is_worth_it(None, None, state)


def raises(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def environment_of(tmp_path: Path, *packages: str) -> tuple[Path, dict[str, str]]:
    """Make an environment with a program and this library; return its Python, and the variables for it."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages, str(ROOT)]
    subprocess.run(install, check=True, timeout=1500)
    kept = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    return python, {**kept, "HOME": str(tmp_path), "TRANSFERKIT_CACHE": str(tmp_path / "cache")}


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_prefect_flow(served: Served, tmp_path: Path) -> None:
    python, variables = environment_of(tmp_path, "prefect>=3")
    variables |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    said = run(variables, python, EXAMPLES / "prefect_pull.py", served.name("one"))
    assert str(sorted(FILES)) == said.strip().splitlines()[-1]


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_an_airflow_task(served: Served, tmp_path: Path) -> None:
    python, variables = environment_of(tmp_path, "apache-airflow>=3.2")
    home = tmp_path / "airflow"
    (home / "dags").mkdir(parents=True)
    shutil.copy(EXAMPLES / "airflow_pull.py", home / "dags")
    variables |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    airflow = [python, "-m", "airflow"]
    run(variables, *airflow, "db", "migrate")
    run(variables, *airflow, "dags", "reserialize")
    asked = json.dumps({"reference": served.name("one")})
    run(variables, *airflow, "dags", "test", "nightly_model", "--conf", asked)
    said = run(variables, *airflow, "dags", "list-runs", "nightly_model", "-o", "json")
    assert ["success"] == [each["state"] for each in json.loads(said.strip().splitlines()[-1])]
    assert FILES == files_in(next((tmp_path / "cache" / "snapshots").rglob("config.json")).parent)


def run(variables: dict[str, str], *command: str | Path) -> str:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
