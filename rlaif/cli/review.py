"""`rlaif review`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import counted, data_options, json_option, objectives_option

if TYPE_CHECKING:
    from rlaif.review.serve import Opened


@click.command("review", short_help="Label pairs by hand, on a local page.")
@click.argument("pairs")
@click.option("--out", required=True, metavar="LABELS", help="Human labels (.jsonl). Answers are in LABELS.db first.")
@click.option("--annotator", metavar="NAME", help="Who labels.  [default: the page asks]")
@click.option(
    "--constitution",
    metavar="NAME|FILE",
    help='Ask the question of each of its objectives.  [default: one, "overall": Which response is better?]',
)
@objectives_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Port on this machine; 0: any free one.  [default: that of last time, at first 8710 if it is free]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of which response is shown on the left.")
@click.option("--strict", is_flag=True, help="Exit 2 if a row cannot be used, before the page opens.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@data_options
@json_option
def review_command(pairs: str, out: str, as_json: bool, open_browser: bool, **options: Any) -> None:
    """Serve a page on this machine on which people say which response of each pair is better.

    PAIRS is what `rlaif label` takes, what `rlaif select` wrote, or a RUN, of which no label is shown. The page is
    blind: no judge, generator, tag or id, and a coin toss says which response stands on the left. Each answer is on
    the disk in LABELS.db before the next pair is shown; LABELS is written from it as answers come, and at the end.

    Each address that is printed is good for one browser; when it is used, the next one is printed. The server listens
    on 127.0.0.1 alone. On a machine far away, forward the same port: ssh -L 8710:127.0.0.1:8710 HOST. Ctrl-C ends it,
    and the same command goes on; more pairs may have been added to PAIRS by then.

    \b
    Examples:
      rlaif review pairs.jsonl --out human.jsonl --annotator ada
      rlaif review runs/first --constitution hhh --objective honesty --out human.jsonl
    """
    from pathlib import Path

    from rlaif.data.pairs import parse_columns
    from rlaif.labeling.settings import DataSettings
    from rlaif.review.serve import ReviewSettings, checked_name, review

    names = {name: options.pop(name) for name in ("split", "config", "limit")}
    source = DataSettings(data=pairs, columns=parse_columns(options.pop("columns")), **names)
    annotator = options.pop("annotator")
    settings = ReviewSettings(
        source=source,
        out=Path(out),
        annotator=None if annotator is None else checked_name(annotator),
        **options,
    )
    first = True

    def opened(what: Opened) -> None:
        if as_json:
            click.echo(what.model_dump_json())
            return
        click.echo(
            f"{counted(what.pairs, 'pair')}, {counted(what.questions, 'question')} a person, "
            f"{counted(what.rejected, 'row')} rejected; {counted(what.labels, 'label')} so far -> {what.out}"
        )
        if what.rejected:
            click.echo(f"Why, with their lines: {what.rejects_file}", err=True)

    def address(url: str) -> None:
        nonlocal first
        if as_json:
            click.echo(json.dumps({"url": url}))
        elif first:
            click.echo(f"Open in a browser (Ctrl-C ends): {url}")
        else:
            click.echo(f"Opened. For one more browser: {url}")
        if first and open_browser:
            import webbrowser

            webbrowser.open(url)
        first = False

    summary = review(settings, opened, address)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    if not summary.labels:
        click.echo(f"No labels yet; the same command goes on with {summary.database}")
        return
    click.echo(f"{counted(summary.labels, 'label')} of {counted(summary.annotators, 'annotator')} -> {summary.out}")
