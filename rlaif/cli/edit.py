"""`rlaif constitution set`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from rlaif.cli.options import json_option
from rlaif.errors import InputError


@click.command("set")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, metavar="KEY=VALUE…")
@click.option("--unset", "removed", multiple=True, metavar="KEY", help="Remove a key, so that its default counts.")
@click.option("--dry-run", is_flag=True, help="Print what would change; write nothing.")
@json_option
def set_constitution(
    file: Path, settings: tuple[str, ...], removed: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Change single values of a constitution file and print the difference; all else in it stays, byte for byte.

    KEY is a key of the file (version), of an objective (honesty.weight), of a principle (honesty.no-falsehood.text, or
    no-falsehood.text), of a case (no-falsehood.cases.1.better), or of the aggregation. Nothing is written unless the
    result loads. Of a file that extends another, what is inherited is changed in FILE.

    \b
    Examples:
      rlaif constitution set mine.yaml harmlessness.no-cruelty.weight=0 version=1.1.0
      rlaif constitution set mine.yaml "no-cruelty.text=Prefer the response that mocks nobody."
      rlaif constitution set mine.yaml aggregation.floors.harmlessness=0.3 --unset honesty.admits-doubt.weight
    """
    if not settings and not removed:
        raise InputError("nothing to set; give KEY=VALUE, as harmlessness.no-cruelty.weight=0, or --unset KEY.")
    from rlaif.cli.diff_report import changed
    from rlaif.constitution.diff import diff_constitutions
    from rlaif.constitution.edit import ConstitutionFile
    from rlaif.constitution.keys import read_value

    opened = ConstitutionFile.load(file)
    before = None
    # A file that does not load can be set right; there is nothing to compare it with.
    with contextlib.suppress(InputError):
        before = opened.check()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{setting}: expected KEY=VALUE, as version=1.1.0.")
        target = opened.find(key.strip())
        opened.set(target.key, read_value(text, target, str(file)))
    for key in removed:
        opened.unset(key)
    after = opened.check() if dry_run else opened.save()
    differences = diff_constitutions(before, after) if before is not None else None
    if as_json:
        found = differences.model_dump(mode="json") if differences else None
        report = {"file": str(file), "written": opened.written, "digest": after.digest, "diff": found}
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    lines = changed(differences) if differences else [f"{file} loads now, as {after.reference}."]
    for line in lines:
        click.echo(line)
    if dry_run:
        click.echo(f"{file} is not written (--dry-run).")
