"""Options that several commands share, and the progress display."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rlaif.starter import JUDGE_NOTE, POLICY_NOTE, STARTER

if TYPE_CHECKING:
    from rlaif.labeling.ask import Tally, Watcher

_F = TypeVar("_F", bound=Callable[..., Any])


def key_values(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Read repeated `K=V` options."""
    pairs: dict[str, str] = {}
    for item in value:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item}: expected NAME=VALUE, as in dtype=float32.")
        pairs[name.strip().replace("-", "_")] = text
    return pairs


_ENGINES = ("auto", "transformers", "vllm", "server")
_AUTO = "auto: the server if --base-url names one, else vLLM if it can run here, else transformers."
_REPLICAS = "ray: --replicas of vLLM or transformers, on one machine or a cluster."

_ENGINE_OPTIONS = (
    click.option(
        "--base-url",
        metavar="URL",
        multiple=True,
        help="An OpenAI-compatible server, as http://127.0.0.1:8000. Given several times, the load is spread over "
        "servers of one model, and goes on without one that fails until it is back.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1),
        default=128,
        show_default=True,
        help="Requests in flight; with several servers at all of them together, so N servers want N times as many.",
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        metavar="K=V",
        multiple=True,
        callback=key_values,
        help="An engine's own option, repeatable. vllm: any of vllm.LLM. transformers: dtype, device, max_model_len, "
        "batch_tokens. server: timeout, patience (seconds, 600 each).",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw."),
)

_CLUSTER_OPTIONS = (
    click.option(
        "--replicas",
        type=click.IntRange(1),
        metavar="N",
        help="With --engine ray: how many processes load the judge and share the work.  [default: 1]",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT",
        help="With --engine ray: the cluster, or auto for the one of this machine. Without it Ray is started here for "
        "as long as the run takes.",
    ),
)

_RATIONALE_OPTIONS = (
    click.option(
        "--temperature", type=click.FloatRange(0, 10), default=0.0, show_default=True, help="Of the rationale."
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(1),
        default=512,
        show_default=True,
        help="Longest rationale; a cut one is still read.",
    ),
)

_DATA_OPTIONS = (
    click.option("--columns", metavar="N=C,…", help="Which column is which, as prompt=question,response_a=first."),
    click.option("--split", help="Split of a saved or hub dataset."),
    click.option("--config", help="Configuration of a hub dataset."),
    click.option("--limit", type=click.IntRange(1), help="Use the first N usable rows."),
)


def _engine_option(names: tuple[str, ...], told: str) -> Callable[[_F], _F]:
    return click.option(
        "--engine",
        type=click.Choice(names),
        default="auto",
        show_default=True,
        help=f"Where the model runs. {told}",
    )


def engine_options(command: _F) -> _F:
    """Add the options that say where a model runs."""
    for option in reversed(_ENGINE_OPTIONS):
        command = option(command)
    return _engine_option(_ENGINES, _AUTO)(command)


def cluster_options(command: _F) -> _F:
    """Add the options that say where a model runs, replicas on a cluster among them."""
    for option in reversed((*_ENGINE_OPTIONS, *_CLUSTER_OPTIONS)):
        command = option(command)
    return _engine_option((*_ENGINES, "ray"), f"{_AUTO} {_REPLICAS}")(command)


def rationale_options(command: _F) -> _F:
    """Add the options that say how a judge's rationale is sampled."""
    for option in reversed(_RATIONALE_OPTIONS):
        command = option(command)
    return command


def data_options(command: _F) -> _F:
    """Add the options that say how data is read."""
    for option in reversed(_DATA_OPTIONS):
        command = option(command)
    return command


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
objectives_option = click.option(
    "--objective", "objectives", multiple=True, metavar="NAME", help="Only this objective; repeatable."
)
policy_base_url_option = click.option(
    "--policy-base-url",
    metavar="URL",
    multiple=True,
    help="Server of the policy, where it is not the judge's; repeatable as --base-url.",
)
update_option = click.option(
    "--update", is_flag=True, help="Go on with changed settings: ask only what the change touches."
)


def starter_note(options: Mapping[str, Any]) -> str | None:
    """The line to tell where rlaif's own model is asked; with a server its name stands for what is served."""
    server = options["base_url"]
    if options.get("judge") == STARTER and not server:
        return JUDGE_NOTE
    return POLICY_NOTE if options.get("policy") == STARTER and not (server or options.get("policy_base_url")) else None


@contextmanager
def progress(noun: str, note: str | None = None) -> Iterator[Watcher | None]:
    """Show progress on stderr while the block runs, and once the note; where stderr is no terminal only the note.

    The note comes with the first answers: an error before them stays one line.
    """
    told = False

    def tell(tally: Tally) -> None:
        nonlocal told
        if note and not told:
            click.echo(note, err=True)
        told = True

    if sys.stderr is None or not sys.stderr.isatty():
        yield tell if note else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[rows]:,} " + noun),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,}/{task.fields[of]} answers"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("{task.fields[tokens]:,.0f} tokens/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[abstained]:,} abstained"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows=0, of="?", rate=0.0, tokens=0.0, abstained=0)

        def watch(tally: Tally) -> None:
            tell(tally)
            done = tally.answered
            seconds = max(tally.seconds, 1e-3)
            bar.update(
                task,
                total=tally.total,
                completed=done,
                rows=done // tally.per_row,
                of=f"{tally.total:,}" if tally.total else "?",
                rate=tally.asked / seconds,
                tokens=(tally.prompt_tokens + tally.completion_tokens) / seconds,
                abstained=tally.abstained,
            )

        yield watch
