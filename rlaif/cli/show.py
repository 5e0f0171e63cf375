"""`rlaif show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import json_option
from rlaif.errors import InputError


@click.command("show", short_help="Show one pair of a run with its rationales, or what its principles did.")
@click.argument("run")
@click.argument("pair_id", metavar="[ID]", required=False)
@click.option("--principles", is_flag=True, help="Show what each principle did in the run, instead of a pair.")
@click.option(
    "--constitution",
    metavar="NAME|FILE",
    help="With --principles: the run's constitution, where it is no longer as the run was given it.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 0.5, max_open=True),
    help="With --principles: how far from 0.5 p_a must be for a principle to have decided.  [default: 0.1]",
)
@json_option
def show_command(
    run: str, pair_id: str | None, principles: bool, constitution: str | None, margin: float | None, as_json: bool
) -> None:
    """Show one pair: the prompt, both responses, each objective's label, and the rationales for both orders.

    Without ID: what the run was made with and what it holds. With --principles: how often each principle decided, how
    often it went against the others of its objective, which of them are in conflict and which never matter. Of a run
    made with --principles sample this is measured; else it is an estimate read from the rationales.

    \b
    Examples:
      rlaif show runs/first
      rlaif show runs/first hh-harmless-test-0001
      rlaif label pairs.jsonl --principles sample --samples 4 --temperature 0.7 --out runs/drawn
      rlaif show --principles runs/drawn
    """
    if principles:
        if pair_id is not None:
            raise InputError(f"--principles is about the whole run; drop {pair_id!r}, or drop --principles.")
        _show_principles(run, constitution, margin, as_json)
        return
    if constitution is not None or margin is not None:
        option = "--constitution" if constitution is not None else "--margin"
        raise InputError(f"{option} has a meaning only with --principles; add it, or drop {option}.")
    from rlaif.labeling.manifest import read_manifest

    manifest = read_manifest(Path(run))
    if manifest is None:
        raise InputError(f"{run}: no manifest.json; give the folder of a labelling run.")
    if pair_id is None:
        _show_run(run, manifest.model_dump(mode="json"), as_json)
        return
    from rlaif.store import read_judgments

    label = _find_label(Path(run) / "labels.jsonl", pair_id)
    judgments = read_judgments(Path(run) / "judgments.db", pair_id)
    if label is None and not judgments:
        raise InputError(f"{run}: holds no pair {pair_id!r}; the ids stand in {run}/labels.jsonl.")
    if as_json:
        click.echo(json.dumps({"label": label, "judgments": [vars(j) for j in judgments]}, ensure_ascii=False))
        return
    from rlaif.cli.render import render_pair

    render_pair(pair_id, label, judgments)


def _show_principles(run: str, constitution: str | None, margin: float | None, as_json: bool) -> None:
    from rlaif.labeling.attribution import MARGIN
    from rlaif.labeling.principles import read_principles

    report = read_principles(Path(run), constitution, MARGIN if margin is None else margin)
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), ensure_ascii=False))
        return
    from rlaif.cli.principles_report import principles_shown

    for line in principles_shown(run, report):
        click.echo(line)


def _show_run(run: str, manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False))
        return
    click.echo(f"{run}: {manifest['state']}, rlaif {manifest['rlaif']}")
    for part in ("settings", "engine", "counts", "last_session"):
        click.echo(f"{part}:")
        for name, value in manifest[part].items():
            if value not in (None, {}, []) and not (part == "counts" and name == "cascade"):
                click.echo(f"  {name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    if manifest["counts"].get("cascade"):
        from rlaif.cli.cascade import cascade_shown
        from rlaif.labeling.cascade_results import CascadeReport

        click.echo("\n".join(["", *cascade_shown(CascadeReport.model_validate(manifest["counts"]["cascade"]))]))


def _find_label(path: Path, pair_id: str) -> dict[str, Any] | None:
    needle = json.dumps(pair_id, ensure_ascii=False)
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if needle in line and (label := json.loads(line))["id"] == pair_id:
                    return dict(label)
    except FileNotFoundError:
        pass
    return None
