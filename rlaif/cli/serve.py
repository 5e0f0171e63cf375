"""`rlaif reward serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import counted, json_option
from rlaif.cli.score import precision_option, weights_option

if TYPE_CHECKING:
    from rlaif.serving.settings import Served


@click.command("serve", short_help="Serve scores over HTTP.")
@click.argument("heads")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; any but this machine's own needs a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8100, show_default=True, metavar="N", help="0: any free one."
)
@click.option(
    "--token-file", metavar="FILE", help="A file with the token to ask for.  [default: RLAIF_TOKEN, else none]"
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens of a batch, padding counted.  [default: what suits the device]",
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0, 60_000),
    default=5.0,
    show_default=True,
    metavar="MS",
    help="Longest wait of a request for others to be scored with.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Most responses that wait; what comes beyond is answered 429.",
)
@click.option(
    "--max-responses", type=click.IntRange(1), default=1024, show_default=True, metavar="N", help="Of one request."
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds to finish what waits when told to stop.",
)
@click.option(
    "--policy",
    metavar="MODEL",
    help="Whose chat template wrote the texts that come to /get_reward.  [default: that of the heads]",
)
@weights_option
@click.option("--device", metavar="cpu|cuda|…", help="The GPU where there is one, else the CPU.")
@precision_option
@json_option
def serve_command(heads: str, as_json: bool, token_file: str | None, **options: Any) -> None:
    """Serve the scores of HEADS, the folder that `rlaif train-heads` wrote, until Ctrl-C or SIGTERM.

    \b
    POST /score        {"prompt": TEXT|MESSAGES, "responses": [TEXT, …]}, or [{"prompt": …, "response": …}, …]
    POST /v1/score     vLLM's score API: {"text_1": PROMPT, "text_2": [TEXT, …]}
    POST /get_reward   OpenRLHF's --remote_rm_url: {"query": […], "prompts": […], "labels": […]}
    GET  /health, /metrics (Prometheus), /v1/models

    Requests that come within milliseconds are scored together. When too much waits the answer is 429 with Retry-After.
    On SIGTERM nothing new is taken, and what waits is finished. The address is this machine's alone; for any other give
    a token, which clients send as Authorization: Bearer TOKEN.

    \b
    Examples:
      rlaif reward serve heads
      RLAIF_TOKEN=$(openssl rand -hex 32) rlaif reward serve heads --host 0.0.0.0 --port 8100
    """
    from rlaif.serving.settings import ServeSettings, read_token

    settings = ServeSettings(heads=heads, token=read_token(token_file), **options)
    from rlaif.serving.run import serve

    def opened(what: Served) -> None:
        if as_json:
            click.echo(what.model_dump_json())
            return
        who = "with the token" if what.token else "on this machine"
        click.echo(f"Serving {what.model} ({', '.join(what.objectives)}) {who} at {what.url} (Ctrl-C ends)")

    summary = serve(settings, opened)
    if as_json:
        click.echo(summary.model_dump_json())
        return
    click.echo(f"{counted(summary.requests, 'request')}, {counted(summary.responses, 'response')} scored")
    if summary.unfinished:
        click.echo(f"Note: {counted(summary.unfinished, 'request')} not finished within the grace.", err=True)
