"""The commands that look after the cache: verify, gc and partials."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from transferkit.cli.connecting import Connection, fetching_options
from transferkit.cli.output import Output, age, moment, plural
from transferkit.cli.program import Command
from transferkit.cli.settings import Settings
from transferkit.cli.types import DURATION, EXISTING_FOLDER, NAME


@click.command(cls=Command, short_help="Hash what the cache has, and mend it.")
@click.argument("names", type=NAME, nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch what is wrong or missing again, and nothing else.")
@fetching_options
@click.pass_obj
def verify(settings: Settings, /, names: tuple[str, ...], repair: bool, **options: Any) -> None:
    """Hash the blobs of the cache, or of some models, and list those that are wrong or missing.

    With --repair those that were fetched again are listed, and the command fails where one could not be.
    """
    from transferkit.names import Reference

    output = Output(settings)
    with Connection(**options).registry(settings, *names) as registry:
        references = [Reference.parse(name, registry.mask) for name in names]
        if repair:
            healed = [each for name in names or (None,) for each in registry.repair(name, progress=settings.progress)]
            for digest in healed:
                output.record("blob", f"{digest}   repaired", digest=digest, state="repaired")
            output.note(f"{plural(len(healed), 'blob')} repaired; the rest is right")
            return
        count = _verify(settings, registry.cache, [reference.name for reference in references] or None)
    output.note(f"{count} verified, and all of it is right")


def _verify(settings: Settings, /, cache: Any, names: list[Any] | None) -> str:
    """Hash, and return how much was; VerificationError: some of it is wrong."""
    from transferkit.errors import VerificationError
    from transferkit.report import human_bytes
    from transferkit.storage.inventory import inventory

    models = inventory(cache, names)
    wrong = cache.verify(names, progress=settings.progress)
    output = Output(settings)
    missing = {blob.digest: blob for model in models for blob in model.missing}
    for entry in wrong:
        output.record("blob", f"{entry.digest}   wrong", digest=entry.digest, state="wrong", path=entry.path)
    for blob in missing.values():
        output.record(
            "blob", f"{blob.digest}   missing", digest=blob.digest, state="missing", path=cache.path(blob.digest)
        )
    if wrong or missing:
        where = [] if settings.cache is None else ["--cache", shlex.quote(str(settings.cache))]
        again = " ".join(["transferkit verify --repair", *where, *map(str, names or ())])
        raise VerificationError(f"{len(wrong)} wrong and {len(missing)} missing in {cache.root}; mend it with: {again}")
    size = cache.size() if names is None else sum(cache.size(name) for name in names)
    return human_bytes(size)


@click.command(cls=Command, short_help="Remove the blobs that no model names.")
@click.option("-n", "--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@click.option(
    "--grace",
    type=DURATION,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="What is younger stays: another program may be about to name it.",
)
@click.pass_obj
def gc(settings: Settings, /, dry_run: bool, grace: float) -> None:
    """Remove the blobs of the cache that no model names, and list them."""
    from transferkit.report import human_bytes
    from transferkit.storage.cache import DiskCache

    cache, output = DiskCache(settings.cache), Output(settings)
    found = cache.gc(grace=grace, dry_run=dry_run)
    for entry in found:
        line = entry.path if settings.quiet else f"{human_bytes(entry.size):>10}   {entry.path}"
        output.record("garbage", line, digest=entry.digest, size=entry.size, path=entry.path, removed=not dry_run)
    verb = "would be freed" if dry_run else "freed"
    output.note(f"{plural(len(found), 'blob')}, {human_bytes(sum(entry.size for entry in found))} {verb}")
    gone = {entry.digest for entry in found}
    young = [entry for entry in cache.gc(grace=0.0, dry_run=True) if entry.digest not in gone] if grace else []
    if young:
        stay = f"{plural(len(young), 'blob')}, {human_bytes(sum(entry.size for entry in young))}"
        output.note(f"{stay} of no model stay: they are new, and may be a running pull's; --grace 0 removes them")


@click.command(cls=Command, short_help="List what interrupted transfers have left.")
@click.argument("folder", type=EXISTING_FOLDER, required=False, metavar="[DIR]")
@click.option("--discard", is_flag=True, help="Remove them, but those that a running transfer fills.")
@click.option(
    "--older-than",
    type=DURATION,
    default="0",
    metavar="TIME",
    help="Only what nobody has written to for so long. Default: 0 to list, 24h to discard.",
)
@click.option("--digest", "digests", multiple=True, metavar="DIGEST", help="Only this blob. May be repeated.")
@click.pass_context
def partials(
    context: click.Context, folder: Path | None, discard: bool, older_than: float, digests: tuple[str, ...]
) -> None:
    """List what interrupted transfers have left, to be continued by the next ones.

    That of the cache, or of DIR: another cache, a folder of blobs, or one that a model was pulled into.
    """
    import time

    from transferkit.content.digest import Digest
    from transferkit.report import human_bytes
    from transferkit.storage import partials as storage
    from transferkit.storage.cache import DiskCache

    settings: Settings = context.obj
    places = [DiskCache(settings.cache).blobs.path] if folder is None else _with_partials(folder)
    wanted = {Digest(digest) for digest in digests}
    is_given = context.get_parameter_source("older_than") is not click.core.ParameterSource.DEFAULT
    if discard:
        least = older_than if is_given else 24 * 3600.0
        found = [each for place in places for each in storage.discard(place, wanted or None, older_than=least)]
    else:
        found = [each for place in places for each in storage.partials(place)]
        found = [each for each in found if each.age >= older_than and (not wanted or each.digest in wanted)]
    now, rows = time.time(), []
    for each in found:
        cells = [each.digest, human_bytes(each.stored), age(now - each.age, now)]
        fields = {"digest": each.digest, "size": each.stored, "path": each.path, "written": moment(now - each.age)}
        rows.append((cells, {**fields, "removed": discard}))
    output = Output(settings)
    if rows or settings.as_json:
        output.table("partial", ("DIGEST", "SIZE", "WRITTEN"), rows)
    done = "removed" if discard else "can be continued"
    output.note(f"{plural(len(found), 'file')}, {human_bytes(sum(each.stored for each in found))} {done}")


def _with_partials(folder: Path) -> list[Path]:
    """Return where transfers into a folder of blobs, a pulled one, or a cache leave what they have begun."""
    places = [folder, folder / ".transferkit", folder / "blobs"]
    return [place for place in places if (place / ".partial").is_dir()] or [folder]
