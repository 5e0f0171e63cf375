"""`rlaif constitution new`, `set` and `schema`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import counted, json_option
from rlaif.errors import InputError

_SCHEMA_FILE = "constitution.schema.json"


@click.command("new")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Its name: letters, digits, - and _.")
@click.option("--description", help="What the assistant is for, in a sentence.")
@click.option("--from", "source", metavar="NAME|FILE", help="Start as a copy of a constitution.")
@click.option("--extends", metavar="NAME|FILE", help="Write only what differs from a constitution.")
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME[:WEIGHT[:QUESTION]]",
    help="An objective, repeatable; of one that --from or --extends brings, what is given replaces.",
)
@click.option(
    "--principle",
    "principles",
    multiple=True,
    metavar="OBJECTIVE:ID:TEXT",
    help="The first principle of an objective, repeatable. If left out it is made from the question.",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="ID|PROMPT|BETTER|WORSE",
    help="A case of the principle with this id, repeatable.",
)
@click.option("--schema", metavar="PATH|URL", help=f"The editor's schema; by default a copy, {_SCHEMA_FILE}.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--yes", is_flag=True, help="Ask nothing; take the default of what is not given.")
def new_constitution(file: Path, **given: Any) -> None:
    """Write a new constitution to FILE, commented and ready to be checked.

    On a terminal it asks for what is not given. A copy of the JSON Schema is written beside FILE, so that editors
    complete the keys and mark mistakes.

    \b
    Examples:
      rlaif constitution new mine.yaml
      rlaif constitution new mine.yaml --name mine --extends hhh --objective harmlessness:0.6
      rlaif constitution new kind.yaml --name kind --objective "kindness:1:Which response is kinder?"
    """
    _check_place(file, given["force"])
    ask = sys.stdin is not None and sys.stdin.isatty() and not given["yes"]
    schema, copy = _schema_for(file, given["schema"])

    from rlaif.cli.new_questions import Questions
    from rlaif.constitution.draft import draft_text
    from rlaif.constitution.json_schema import schema_text
    from rlaif.constitution.load import parse_constitution
    from rlaif.files import replacing

    text = draft_text(Questions(file, given, ask).draft(), file, schema)
    made = parse_constitution(text, str(file))
    if copy is not None:
        with replacing(copy) as opened:
            opened.write(schema_text())
    with replacing(file) as opened:
        opened.write(text)
    also = f", and {copy} for editors" if copy is not None else ""
    count = sum(len(each.principles) for each in made.objectives.values())
    click.echo(f"Wrote {file}: {made.reference}, {', '.join(made.objectives)}, {counted(count, 'principle')}{also}.")
    click.echo("Next:")
    for step, why in (
        (f"rlaif constitution lint {file}", "every problem, with its line"),
        (f"rlaif constitution test {file}", "ask a judge each principle's cases"),
        (f"rlaif label DATA --constitution {file} --out RUN", "label with it"),
    ):
        click.echo(f"  {step}   # {why}")


@click.command("schema")
def constitution_schema() -> None:
    """Print the JSON Schema of constitution files (draft 2020-12), with which editors complete and check them.

    \b
    Example:
      rlaif constitution schema > constitution.schema.json
      # and in the first line of your file:  # yaml-language-server: $schema=constitution.schema.json
    """
    from rlaif.constitution.json_schema import schema_text

    click.echo(schema_text(), nl=False)


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


def _check_place(file: Path, force: bool) -> None:
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: a constitution is a .yaml file; add the ending.")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"{file}: cannot be a file there; give a file in a folder that exists.")
    if file.exists() and not force:
        raise InputError(f"{file}: is there already; give another name, or --force to replace it.")


def _schema_for(file: Path, given: str | None) -> tuple[str, Path | None]:
    """What the file's first line refers to, and the copy of the schema to write for it, if one is needed."""
    from rlaif.constitution.json_schema import TITLE

    if given is not None:
        return given, None
    copy = file.parent / _SCHEMA_FILE
    for beside in (file.parent / "schema.json", copy):
        if not beside.is_file():
            continue
        ours = f'"{TITLE}"' in beside.read_text(encoding="utf-8", errors="replace")
        if ours and beside != copy:
            return beside.name, None
        if not ours and beside == copy:
            raise InputError(f"{copy}: is there and is no schema of rlaif's; name the one to use with --schema.")
    return copy.name, copy
