"""`rlaif constitution new` and `schema`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import counted
from rlaif.errors import InputError, Interrupted

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

    try:
        draft = Questions(file, given, ask).draft()
    except (KeyboardInterrupt, click.Abort):
        raise Interrupted(f"{file}: stopped before the last answer; nothing was written.") from None
    text = draft_text(draft, file, schema)
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


def _check_place(file: Path, force: bool) -> None:
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: a constitution is a .yaml file; add the ending.")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"{file}: cannot be a file there; give a file in a folder that exists.")
    if file.is_symlink() and not file.exists():
        raise InputError(f"{file}: is a link that leads to no file; give another name, or remove the link.")
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
