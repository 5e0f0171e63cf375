"""`rlaif constitution lint` and `rlaif prompt lint`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rlaif.cli.options import counted
from rlaif.errors import InputError

if TYPE_CHECKING:
    from rlaif.findings import Finding

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS = (
    click.argument("files", nargs=-1, required=True, metavar="NAME|FILE..."),
    click.option(
        "--format",
        "layout",
        type=click.Choice(["text", "json", "github"]),
        default="text",
        show_default=True,
        help="github: workflow commands, which GitHub shows beside the lines of a change.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
    click.option("--strict", is_flag=True, help="Warnings fail too."),
)


def _lint_options(command: _F) -> _F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("lint")
@_lint_options
@click.option(
    "--context",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="The judge's context in tokens; an objective's texts may fill half of it.",
)
@click.option("--tokenizer", metavar="MODEL", help="Count tokens as this model does; else 4 characters are one.")
def lint_constitutions(
    files: tuple[str, ...], layout: str, as_json: bool, strict: bool, context: int, tokenizer: str | None
) -> None:
    """Print all problems of constitutions at once, each with its file and line; exit 2 if any is an error.

    Errors keep a file from being loaded; warnings say what is probably not meant.

    \b
    Examples:
      rlaif constitution lint my.yaml
      rlaif constitution lint constitutions/*.yaml --strict --format github
    """
    from rlaif.constitution.lint import lint_constitution

    count = _counter(tokenizer) if tokenizer else None
    _report(files, lambda name: lint_constitution(name, context=context, count_tokens=count), layout, as_json, strict)


@click.command("lint")
@_lint_options
def lint_prompts(files: tuple[str, ...], layout: str, as_json: bool, strict: bool) -> None:
    """Print all problems of prompt templates at once, each with its file and line; exit 2 if any is an error.

    \b
    Example:
      rlaif prompt lint pairwise-cot my-template.j2
    """
    from rlaif.prompts_lint import lint_template

    _report(files, lint_template, layout, as_json, strict)


def _report(
    files: Sequence[str], lint: Callable[[str], Sequence[Finding]], layout: str, as_json: bool, strict: bool
) -> None:
    # A parent that several files extend is told of once.
    findings = list(dict.fromkeys(each for name in dict.fromkeys(files) for each in lint(name)))
    errors = sum(each.severity == "error" for each in findings)
    warnings = len(findings) - errors
    if as_json or layout == "json":
        listed = [each.model_dump(mode="json") for each in findings]
        click.echo(json.dumps({"findings": listed, "errors": errors, "warnings": warnings}, ensure_ascii=False))
    else:
        for each in findings:
            click.echo(each.github if layout == "github" else str(each))
        click.echo(f"{counted(len(set(files)), 'file')}: {_summary(errors, warnings)}.", err=True)
    if errors or (strict and warnings):
        sys.exit(InputError.exit_code)


def _summary(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "no problem found"
    return f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"


def _counter(name: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        fact = " ".join(str(error).split())[:200]
        raise InputError(f"--tokenizer {name}: cannot be loaded ({fact}); give a folder or a hub id.") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
