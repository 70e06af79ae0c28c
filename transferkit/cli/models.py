"""The commands about models: which there are, what they are, and the end of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from transferkit.cli.connecting import Connection, reading_options
from transferkit.cli.output import Output, age, emit, lines_of, moment, plural, terminal_width
from transferkit.cli.program import Command
from transferkit.cli.settings import Settings
from transferkit.cli.types import NAME, PLATFORM

if TYPE_CHECKING:
    from transferkit.content.manifest import Index, Manifest
    from transferkit.registry.registry import Registry

_SHORT = 12  # characters of a digest in a list


@click.command(cls=Command, short_help="List the models of the cache.")
@click.argument("pattern", required=False)
@click.pass_obj
def ls(settings: Settings, /, pattern: str | None) -> None:
    """List the models of the cache, the newest first, or those whose names are like PATTERN (llama*)."""
    import fnmatch

    from transferkit.names import short
    from transferkit.report import human_bytes
    from transferkit.storage.cache import DiskCache
    from transferkit.storage.inventory import inventory

    cache, now = DiskCache(settings.cache), time.time()
    rows: list[tuple[list[str], dict[str, Any]]] = []
    for model in inventory(cache):
        shown = short(model.name)
        if pattern is not None and not any(fnmatch.fnmatch(each, pattern) for each in (shown, str(model.name))):
            continue
        state = f"   {plural(len(model.missing), 'blob')} missing" if model.missing else ""
        cells = [shown, model.digest.hex[:_SHORT], human_bytes(model.stored), age(model.time, now) + state]
        fields = {"name": str(model.name), "digest": model.digest, "media_type": model.media_type}
        missing = [blob.digest for blob in model.missing]
        rows.append((cells, {**fields, "size": model.stored, "pulled": moment(model.time), "missing": missing}))
    if rows or settings.as_json or settings.quiet:
        Output(settings).table("model", ("NAME", "DIGEST", "SIZE", "PULLED"), rows)
    else:
        what = "no models" if pattern is None else f"no model like {pattern}"
        Output(settings).note(f"{what} in {cache.root}; transferkit pull NAME brings one")


@click.command(cls=Command, short_help="Show what a model consists of.")
@click.argument("name", type=NAME)
@click.option(
    "--platform", type=PLATFORM, metavar="OS/ARCH", help="Of an index: its manifest for this one. Default: the index."
)
@click.option("--remote", is_flag=True, help="Ask the registry, also where the cache has it.")
@click.option("--raw", is_flag=True, help="Write the manifest as it is, byte for byte.")
@reading_options
@click.pass_obj
def show(settings: Settings, /, name: str, platform: str | None, remote: bool, raw: bool, **options: Any) -> None:
    """Show what a model consists of: that of the cache, else that of the registry."""
    with Connection(**options).registry(settings, name) as registry:
        document, source = _document(registry, name, remote=remote, progress=settings.progress)
        if platform not in (None, "all") and document.media_type.endswith(("index.v1+json", "list.v2+json")):
            document = _chosen(registry, document, name, platform, source)
    if raw:
        emit(document.raw, newline=False)
        return
    fields = {"name": name, "digest": document.digest, "media_type": document.media_type, "source": source}
    heads, rows, lists = _parts(document)
    if settings.as_json:
        Output(settings).record("manifest", None, **fields, **lists, annotations=document.annotations)
        return
    facts = [("name", name), ("digest", document.digest), ("type", document.media_type), ("from", source)]
    facts += sorted(document.annotations.items())
    for line in [*lines_of(facts), "", *lines_of([heads, *rows], terminal_width(), cut=(-1, 0))]:
        emit(line)


def _document(registry: Registry, name: str, *, remote: bool, progress: bool) -> tuple[Manifest | Index, str]:
    from transferkit.errors import ManifestNotFoundError

    if not remote:
        try:
            return registry.resolve_local(name), "cache"
        except ManifestNotFoundError:
            if registry.offline:
                raise
    return registry.resolve(name), "registry"


def _chosen(registry: Registry, index: Any, name: str, platform: str, source: str) -> Manifest | Index:
    """Return the manifest of an index for a platform."""
    from transferkit.content.graph import choose
    from transferkit.names import Reference

    reference = Reference.parse(name)
    scheme = f"{reference.scheme}://" if reference.has_scheme else ""
    pinned = f"{scheme}{reference.name}@{next(iter(choose(index, platform))).digest}"
    return _document(registry, pinned, remote=source == "registry", progress=False)[0]


def _parts(document: Any) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """Return what a document names: as a table, and as the fields of an object."""
    from transferkit.content.manifest import Index
    from transferkit.models.names import path_of
    from transferkit.report import human_bytes

    def cells(part: Any) -> list[str]:
        return [human_bytes(part.size), part.digest.hex[:_SHORT], part.media_type]

    def fields(part: Any) -> dict[str, Any]:
        return {"digest": part.digest, "size": part.size, "media_type": part.media_type}

    if isinstance(document, Index):
        rows = [[part.platform or "", *cells(part)] for part in document.manifests]
        listed = [{**fields(part), "platform": part.platform} for part in document.manifests]
        return ["PLATFORM", "SIZE", "DIGEST", "TYPE"], rows, {"manifests": listed}
    rows = [[path_of(part) or "", *cells(part)] for part in document.layers]
    listed = [{**fields(part), "title": path_of(part)} for part in document.layers]
    config = None
    if document.config is not None:
        rows.append(["(config)", *cells(document.config)])
        config = fields(document.config)
    return ["TITLE", "SIZE", "DIGEST", "TYPE"], rows, {"size": document.size, "config": config, "layers": listed}


@click.command(cls=Command, short_help="List the tags of a repository.")
@click.argument("name", type=NAME)
@reading_options
@click.pass_obj
def tags(settings: Settings, /, name: str, **options: Any) -> None:
    """List the tags of a model's repository, in the registry's order. NAME needs no tag."""
    output = Output(settings)
    with Connection(**options).registry(settings, name) as registry:
        for tag in registry.tags(name):
            output.record("tag", tag, tag=tag)


@click.command(cls=Command, short_help="Remove models from the cache.")
@click.argument("names", type=NAME, nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, /, names: tuple[str, ...]) -> None:
    """Remove models from the cache, and print their names. Their blobs stay until gc."""
    from transferkit.errors import ManifestNotFoundError

    output, missing = Output(settings), []
    with Connection().registry(settings) as registry:
        for name in names:
            if registry.unlink(name):
                output.record("removed", name, name=name)
            else:
                missing.append(name)
        root = registry.cache.root
    if missing:
        raise ManifestNotFoundError(f"not in {root}: {', '.join(missing)}; transferkit ls lists what is")
    output.note("transferkit gc removes the blobs that no model names any more, an hour after they came")
