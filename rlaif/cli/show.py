"""`rlaif show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import json_option
from rlaif.errors import InputError


@click.command("show", short_help="Show one pair of a run with its rationales, side by side.")
@click.argument("run")
@click.argument("pair_id", metavar="[ID]", required=False)
@json_option
def show_command(run: str, pair_id: str | None, as_json: bool) -> None:
    """Show one pair: the prompt, both responses, each objective's label, and the rationales for both orders.

    Without ID: what the run was made with and what it holds.

    \b
    Examples:
      rlaif show runs/first
      rlaif show runs/first hh-harmless-test-0001
    """
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


def _show_run(run: str, manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(manifest, ensure_ascii=False))
        return
    click.echo(f"{run}: {manifest['state']}, rlaif {manifest['rlaif']}")
    for part in ("settings", "engine", "counts", "last_session"):
        click.echo(f"{part}:")
        for name, value in manifest[part].items():
            if value not in (None, {}, []):
                click.echo(f"  {name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


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
