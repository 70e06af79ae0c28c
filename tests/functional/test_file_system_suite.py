"""What fsspec's own suite asks of any file system that is copied from; the rest of it writes."""

from __future__ import annotations

import posixpath

import fsspec.tests.abstract as suite
import pytest
from fsspec.implementations.local import LocalFileSystem

import transferkit as tk
from tests.functional.models import host
from transferkit.filesystem import OCIFileSystem
from transferkit.testing import running_registry

SCENARIOS = (
    "_bulk_operations_scenario_0",
    "_glob_edge_cases_files",
    "_dir_and_file_with_same_name_prefix",
    "_10_files_with_hashed_names",
)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The folder of each scenario in a registry, by its name."""
    found = {}
    folder = tmp_path_factory.mktemp("scenarios")
    makers, local = suite.AbstractFixtures(), LocalFileSystem(auto_mkdir=True)
    with running_registry() as running, tk.Registry(cache=folder / "cache") as registry:
        for number, scenario in enumerate(SCENARIOS):
            made = getattr(makers, scenario)(local, posixpath.join, str(folder / scenario))
            name = f"{host(running.url)}/suite/scenario{number}:v1"
            registry.push(name, folder=posixpath.dirname(made))
            found[scenario] = f"{name}/source"
        yield found
    OCIFileSystem.clear_instance_cache()


class Fixtures(suite.AbstractFixtures):
    """The folders that the suite makes, as artifacts."""

    @pytest.fixture
    def fs(self, tmp_path):
        return OCIFileSystem(cache=str(tmp_path / "cache"))

    @pytest.fixture
    def local_fs(self):
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def fs_join(self):
        return posixpath.join

    @pytest.fixture
    def supports_empty_directories(self):
        return False

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, pushed):
        return pushed["_bulk_operations_scenario_0"]

    @pytest.fixture
    def fs_glob_edge_cases_files(self, pushed):
        return pushed["_glob_edge_cases_files"]

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, pushed):
        return pushed["_dir_and_file_with_same_name_prefix"]

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, pushed):
        return pushed["_10_files_with_hashed_names"]

    @pytest.fixture
    def fs_path(self, pushed):
        return posixpath.dirname(pushed["_bulk_operations_scenario_0"])


@pytest.mark.full
@pytest.mark.xdist_group("file-system-suite")
class TestGet(suite.AbstractGetTests, Fixtures):
    """Files and folders, globs and lists, into folders that are there and that are not."""

    test_get_directory_recursive = None  # it begins with mkdir


@pytest.mark.xdist_group("file-system-suite")
class TestGetInShort(Fixtures):
    """One of each kind."""

    test_get_file_to_new_directory = suite.AbstractGetTests.test_get_file_to_new_directory
    test_get_directory_to_existing_directory = suite.AbstractGetTests.test_get_directory_to_existing_directory
    test_get_glob_to_new_directory = suite.AbstractGetTests.test_get_glob_to_new_directory
    test_get_list_of_files_to_new_directory = suite.AbstractGetTests.test_get_list_of_files_to_new_directory
    test_get_with_source_and_destination_as_list = suite.AbstractGetTests.test_get_with_source_and_destination_as_list
