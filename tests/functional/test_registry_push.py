"""Pushing by name, from the cache and from files; and files back out of it."""

from __future__ import annotations

import json
import os

import pytest

import transferkit as tk
from tests.functional import models
from tests.functional.models import Model, ask, client, digest_of, get, host, index_of, put_manifest
from transferkit.testing import FaultRule, HTTPFaults, respond, running_registry

WHERE = "library/model"
TITLE = "org.opencontainers.image.title"


def name_in(registry, repository: str = WHERE, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/{repository}:{tag}"


def posts(registry) -> list[str]:
    return [request.query for request in registry.log if request.method == "POST"]


# -- from the cache


def test_a_model_of_the_cache_is_pushed_byte_for_byte(registry, tmp_path):
    model = models.small().put(registry.url)
    with running_registry() as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        pushed = registries.push(name_in(other, "me/model", "v2"), source=name_in(registry))
        assert (200, model.raw) == get(other.url, "me/model", "v2")
        for content in model.blobs:
            assert content == ask(other.url, "GET", f"/v2/me/model/blobs/{digest_of(content)}")[2]
    assert model.digest == pushed.digest


def test_the_tag_comes_last(registry, tmp_path):
    models.small().put(registry.url)
    with running_registry() as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        registries.push(name_in(other), source=name_in(registry))
        assert ("PUT", "/v2/library/model/manifests/v1") == (other.log[-1].method, other.log[-1].path)


def test_a_model_is_pushed_under_its_own_name_unless_another_is_given(registry, tmp_path):
    models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        ask(registry.url, "DELETE", "/v2/library/model/manifests/v1")
        registries.push(name_in(registry))
    assert 200 == get(registry.url, WHERE, "v1")[0]


def test_within_one_registry_blobs_are_mounted(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        registry.log.clear()
        registries.push(name_in(registry, "me/copy"), source=name_in(registry))
    mounts = [query for query in posts(registry) if "mount=" in query and "from=library" in query]
    assert (3, 0) == (len(mounts), sum(r.received for r in registry.log if "/blobs/" in r.path))
    assert (200, model.raw) == get(registry.url, "me/copy", "v1")


def test_between_registries_nothing_is_mounted(registry, tmp_path):
    models.small().put(registry.url)
    with running_registry() as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        registries.push(name_in(other, "me/copy"), source=name_in(registry))
        assert not any("mount" in query for query in posts(other))


def test_all_blobs_are_looked_for_before_the_first_request(registry, tmp_path):
    model = models.small().put(registry.url)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        for content in model.layers:
            os.unlink(registries.cache.path(digest_of(content)))
        registry.log.clear()
        with pytest.raises(tk.SourceError, match=r"\(and 1 more files\); nothing was sent"):
            registries.push(name_in(registry, "me/copy"), source=name_in(registry))
    assert 0 == len(registry.log)


def test_a_blob_that_is_not_what_it_should_be_is_never_pushed(registry, tmp_path):
    model = models.small().put(registry.url)
    with running_registry() as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        path = registries.cache.path(digest_of(model.layers[1]))
        with open(path, "r+b") as file:
            file.write(b"X")
        with pytest.raises(tk.SourceError, match="does not match its digest"):
            registries.push(name_in(other), source=name_in(registry))
        assert (404, 404) == (
            get(other.url, WHERE, "v1")[0],
            ask(other.url, "HEAD", f"/v2/{WHERE}/blobs/{digest_of(model.layers[1])}")[0],
        )


@pytest.mark.parametrize("code", ["BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"])
@pytest.mark.parametrize("status", [400, 404])
def test_a_registry_that_has_lost_a_blob_gets_it_once_more(registry, tmp_path, code, status):
    model = models.small().put(registry.url)
    lost = digest_of(model.layers[0])
    faults = HTTPFaults()
    with running_registry(middleware=faults) as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))

        def losing(app):
            def middle(environ, start_response):
                ask(other.url, "DELETE", f"/v2/{WHERE}/blobs/{lost}")
                body = json.dumps({"errors": [{"code": code, "message": "blob unknown to registry"}]})
                return respond(status, body, content_type="application/json")(app)(environ, start_response)

            return middle

        faults.set(FaultRule(losing, method="PUT", path="/manifests/", times=1))
        registries.push(name_in(other), source=name_in(registry))
        assert (200, model.raw) == get(other.url, WHERE, "v1")
        assert model.layers[0] == ask(other.url, "GET", f"/v2/{WHERE}/blobs/{lost}")[2]


def test_a_registry_that_never_finds_a_blob_is_given_up(registry, tmp_path):
    models.small().put(registry.url)
    body = json.dumps({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]})
    never = FaultRule(respond(404, body), method="PUT", path="/manifests/")
    with running_registry(middleware=HTTPFaults(never)) as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
        with pytest.raises(tk.BlobNotFoundError, match="has to be in the repository first"):
            registries.push(name_in(other), source=name_in(registry))
    assert 4 == never.hits


def test_an_index_is_pushed_with_all_that_it_names(registry, tmp_path):
    one, two = (Model([content]).put(registry.url, WHERE, tag) for content, tag in ((b"1", "a"), (b"2", "b")))
    raw = index_of((one, "linux/amd64"), (two, "linux/arm64"))
    put_manifest(registry.url, WHERE, "v1", raw, models.OCI_INDEX)
    with running_registry() as other, client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), platform="linux/amd64")
        other.log.clear()
        with pytest.raises(tk.ManifestNotFoundError, match=r'for linux/arm64 of an index .* platform="all"'):
            registries.push(name_in(other), source=name_in(registry))
        assert 0 == len(other.log)
        registries.pull(name_in(registry), platform="all")
        registries.push(name_in(other), source=name_in(registry))
        assert (200, raw) == get(other.url, WHERE, "v1")
        assert (200, two.raw) == get(other.url, WHERE, two.digest)


def test_a_manifest_without_layers_can_be_pushed(registry, tmp_path):
    model = Model([])
    with client(tmp_path / "c") as registries:
        registries.cache.put(model.config)
        registries.cache.link(name_in(registry).removeprefix("http://"), model.raw)
        assert () == registries.resolve_local(name_in(registry)).layers
        registries.push(name_in(registry))
    assert (200, model.raw) == get(registry.url, WHERE, "v1")


def test_a_digest_is_no_target(registry, tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="is pushed under a tag"):
        registries.push(f"{name_in(registry)}@sha256:{64 * 'a'}", files=[__file__])


def test_what_is_not_in_the_cache_is_not_pushed(registry, tmp_path):
    with client(tmp_path / "c") as registries, pytest.raises(tk.ManifestNotFoundError, match="not found in"):
        registries.push(name_in(registry))
    assert 0 == len(registry.log)


# -- files, there and back


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    contents = {"a.bin": os.urandom(100_000), "b.json": b"{}", "empty": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder, contents


def test_files_become_an_artifact_and_files_again(registry, files, tmp_path):
    folder, contents = files
    kind = "application/vnd.example"
    with client(tmp_path / "c") as registries:
        manifest = registries.push(
            name_in(registry),
            files=[folder / name for name in contents],
            artifact_type=kind,
            annotations={"org.example.about": "tests"},
        )
        (status, raw) = get(registry.url, WHERE, "v1")
        paths = registries.export(name_in(registry), tmp_path / "out")
    document = json.loads(raw)
    assert (200, manifest.raw) == (status, raw)
    assert (kind, 2, models.OCI_MANIFEST) == (
        document["artifactType"],
        document["schemaVersion"],
        document["mediaType"],
    )
    # printf '{}' | sha256sum
    empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2} == document["config"]
    assert {"org.example.about": "tests"} == document["annotations"]
    expected = [(name, digest_of(content), len(content)) for name, content in contents.items()]
    assert expected == [(each["annotations"][TITLE], each["digest"], each["size"]) for each in document["layers"]]
    assert {name: str(tmp_path / "out" / name) for name in contents} == paths
    assert contents == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_titles_may_have_folders(registry, files, tmp_path):
    folder, contents = files
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), files={"deep/er/a.bin": folder / "a.bin", "b.json": folder / "b.json"})
        paths = registries.export(name_in(registry), tmp_path / "out", only="*.bin")
    assert {"deep/er/a.bin": str(tmp_path / "out/deep/er/a.bin")} == paths
    assert contents["a.bin"] == (tmp_path / "out/deep/er/a.bin").read_bytes()
    assert ["deep"] == os.listdir(tmp_path / "out")


def test_all_files_are_looked_for_before_the_first_request(registry, files, tmp_path):
    folder, _ = files
    with client(tmp_path / "c") as registries:
        for missing, why in ((folder / "nothing", "cannot be read"), (folder, "is not a file|cannot be read")):
            with pytest.raises(tk.SourceError, match=why):
                registries.push(name_in(registry), files=[folder / "a.bin", missing])
        with pytest.raises(tk.SourceError, match="there are no files"):
            registries.push(name_in(registry), files=[])
        with pytest.raises(tk.InvalidNameError, match="refused as the name of a file"):
            registries.push(name_in(registry), files={"../a.bin": folder / "a.bin"})
        (folder / "other").mkdir()
        (folder / "other" / "a.bin").write_bytes(b"another one")
        with pytest.raises(tk.InvalidNameError, match=r"two layers have the title 'a\.bin'"):
            registries.push(name_in(registry), files=[folder / "a.bin", folder / "other" / "a.bin"])
    assert 0 == len(registry.log)


def test_a_file_that_changes_while_it_is_pushed_is_not_pushed(registry, files, tmp_path):
    folder, contents = files

    class Changing(tk.Trace):
        def announced(self, descriptors):
            (folder / "a.bin").write_bytes(contents["a.bin"][::-1])

    with client(tmp_path / "c") as registries, pytest.raises(tk.SourceError, match="does not match its digest"):
        registries.push(name_in(registry), files=[folder / "a.bin"], trace=Changing())
    assert 404 == get(registry.url, WHERE, "v1")[0]


def test_a_push_that_was_interrupted_goes_on(registry, tmp_path):
    """The next process sends less than all again, as after ``upload``."""
    data = os.urandom(1024) * 4 * 1024
    (tmp_path / "file").write_bytes(data)
    keywords = {"resume_threshold": 2**20, "part_size": 2**20, "concurrency": 1}
    cancel = tk.Cancellation()

    def stop(completed, total):
        if completed > 3 * 2**20:
            cancel.cancel()

    slow = tk.TransferOptions(**keywords, max_bandwidth=20e6, progress_interval=0.001)
    with client(tmp_path / "c", options=slow) as registries, pytest.raises(tk.CancelledError):
        registries.push(name_in(registry), files=[tmp_path / "file"], cancel=cancel, progress=stop)
    registry.log.clear()
    with client(tmp_path / "c", options=tk.TransferOptions(**keywords)) as registries:
        registries.push(name_in(registry), files=[tmp_path / "file"])
    sent = sum(r.received for r in registry.log if "/blobs/" in r.path)
    assert 0 < sent <= len(data) - 2 * 2**20
    assert data == ask(registry.url, "GET", f"/v2/{WHERE}/blobs/{digest_of(data)}")[2]


# -- export


def exported(registry, tmp_path, titles, **keywords):
    annotations = [{TITLE: title} if title is not None else {} for title in titles]
    Model([b"%d" % n for n in range(len(titles))], annotations=annotations).put(registry.url)
    with client(tmp_path / "c") as registries:
        return registries.export(name_in(registry), tmp_path / "out", **keywords)


@pytest.mark.parametrize(
    "title",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        "..",
        "C:x",
        "C:\\x",
        "a\\..\\x",
        "con",
        "aux.txt",
        "a/NUL",
        "x.",
        "x ",
        "a\0b",
        "",
    ],
)
def test_a_title_that_leads_elsewhere_is_refused_and_nothing_written(registry, tmp_path, title):
    with pytest.raises(tk.InvalidNameError, match="is refused as the name of a file"):
        exported(registry, tmp_path, ["good", title])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("titles", [["a", "A"], ["a", "a/b"], ["x", "x"]])
def test_two_files_in_one_place_are_refused(registry, tmp_path, titles):
    with pytest.raises(tk.InvalidNameError, match=r"would be one file|is a file and a folder"):
        exported(registry, tmp_path, titles)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("planted", ["folder", "file"])
def test_a_link_that_is_planted_leads_nowhere(registry, tmp_path, planted):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    if planted == "folder":
        (tmp_path / "out" / "a").symlink_to(outside)
        with pytest.raises(tk.StorageError):
            exported(registry, tmp_path, ["a/b"])
    else:
        (tmp_path / "out" / "a").mkdir()
        (tmp_path / "out" / "a" / "b").symlink_to(outside / "b")
        exported(registry, tmp_path, ["a/b"])
        assert (False, b"0") == ((tmp_path / "out/a/b").is_symlink(), (tmp_path / "out/a/b").read_bytes())
    assert (["b"], b"mine") == (os.listdir(outside), (outside / "b").read_bytes())


def test_only_takes_a_pattern_or_a_function(registry, tmp_path):
    titles = ["a.json", "deep/b.json", "c.bin", None]
    assert {"a.json", "deep/b.json"} == set(exported(registry, tmp_path, titles, only="*.json"))
    assert {"c.bin"} == set(exported(registry, tmp_path, titles, only=lambda title: title.startswith("c")))
    with pytest.raises(tk.InvalidManifestError, match=r"no file of .* is wanted; it has a\.json, deep/b\.json, c\.bin"):
        exported(registry, tmp_path, titles, only="*.txt")


def test_a_model_without_titles_has_no_files(registry, tmp_path):
    with pytest.raises(tk.InvalidManifestError, match="has no layers with titles"):
        exported(registry, tmp_path, [None])


def test_an_index_of_all_platforms_is_not_exported(registry, tmp_path):
    model = Model([b"1"]).put(registry.url, WHERE, "a")
    put_manifest(registry.url, WHERE, "v1", index_of((model, None)), models.OCI_INDEX)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidManifestError, match="is an index of several"):
        registries.export(name_in(registry), tmp_path / "out", platform="all")


def test_a_damaged_blob_is_not_exported(registry, tmp_path):
    Model([b"content"], annotations=[{TITLE: "file"}]).put(registry.url)
    with client(tmp_path / "c", offline=False) as registries:
        registries.pull(name_in(registry))
        path = registries.cache.path(digest_of(b"content"))
        status = os.stat(path)
        with open(path, "r+b") as file:
            file.write(b"X")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        registries.cache.close()
    with client(tmp_path / "c", offline=True) as registries, pytest.raises(tk.SourceError):
        registries.export(name_in(registry), tmp_path / "out")
    assert [] == [name for name in os.listdir(tmp_path / "out") if name != ".partial"]
