"""Which model a server serves, and whether several serve the same one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.engines.base import BaseUrl, ModelIdentity
from rlaif.engines.http import AnsweredError, HttpClient, ServerDown, all_down
from rlaif.errors import InputError, RunError

# Once a server has answered, others get so long: a command does not wait for a server that is off.
_OTHERS_S = 2.0
_SAME_MODEL = "serve the same model from the same place there, or leave this --base-url out."

Listing = Mapping[str, Mapping[str, Any]]


def normalize_url(base_url: str) -> str:
    """Drop a trailing `/v1`: both forms name the same server.

    Raises:
        InputError: not an http address.
    """
    url = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        usable = re.match(r"https?://[^/\s]+", url) and urllib.parse.urlsplit(url).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--base-url {base_url}: expected an address such as http://127.0.0.1:8000.")
    return url


def server_urls(base_url: BaseUrl) -> tuple[str, ...]:
    """The addresses of one server or several, in the order given.

    Raises:
        InputError: one is no http address, or is given twice.
    """
    given = (base_url,) if isinstance(base_url, str) else tuple(base_url)
    found: dict[str, str] = {}
    for each in given:
        url = normalize_url(each)
        # Scheme and host read the same in any case.
        place = urllib.parse.urlsplit(url)
        key = f"{place.scheme}://{place.netloc.lower()}{place.path}"
        if key in found:
            raise InputError(f"--base-url {each}: the same server is given twice; give each once.")
        found[key] = url
    return tuple(found.values())


def token() -> str | None:
    """The key to send, from the environment."""
    key = os.environ.get("RLAIF_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    # A key read from a file brings its line's end, which no header may hold.
    return key.strip() or None


def identify_served(
    base_url: BaseUrl, model: str | None, *, patience_s: float = 10.0, option: str = "--judge"
) -> ModelIdentity:
    """Ask each server which models it serves, and pick `model`, or its only one.

    Of several servers those that do not answer are passed over: they are looked at again when they do.

    Raises:
        RunError: no server answers.
        InputError: one serves no such model or another one than the others, or several and none was named.
    """
    urls = server_urls(base_url)
    listings = asyncio.run(_list_all(urls, patience_s))
    if model is None and len(listings) > 1:
        model = _in_common(listings, option)
    (first, listing), *others = listings.items()
    identity = pick_model(first, listing, model, option)
    for url, listing in others:
        check_model(url, listing, identity, first)
    return identity


def models_of(listed: Any) -> Listing:
    """The models in an answer of `/v1/models`, by name."""
    entries = listed.get("data", []) if isinstance(listed, dict) else []
    return {str(entry.get("id")): entry for entry in entries}


def pick_model(url: str, served: Listing, model: str | None, option: str) -> ModelIdentity:
    """The model that is named, by its name or by what it was loaded from, or the only one.

    Raises:
        InputError: it is not served, or several are and none was named.
    """
    if model is None and len(served) == 1:
        model = next(iter(served))
    for name, entry in served.items():
        if model is not None and model in (name, entry.get("root")):
            return ModelIdentity(name=name, digest=_digest(name, entry))
    raise InputError(f"{url}: serves {_names(served)}, not {model or 'one model'}; name one with {option}.")


def check_model(url: str, served: Listing, model: ModelIdentity, others: str) -> None:
    """See that one of several servers serves the model: no label may depend on who was asked.

    Raises:
        InputError: it serves another than `others`, or the same name loaded from elsewhere.
    """
    entry = served.get(model.name)
    if entry is None:
        raise InputError(f"{url}: serves {_names(served)}, and {others} {model.name}; {_SAME_MODEL}")
    if _digest(model.name, entry) != model.digest:
        place = entry.get("root")
        raise InputError(f"{url}: serves {model.name} loaded from {place}, and {others} from elsewhere; {_SAME_MODEL}")


def _digest(name: str, entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"served:{name}:{entry.get('root')}".encode()).hexdigest()


def _names(served: Listing) -> str:
    return ", ".join(served) or "no model"


def _in_common(listings: Mapping[str, Listing], option: str) -> str:
    """The one model that every server serves."""
    (first, reference), *others = listings.items()
    shared = dict(reference)
    for url, listing in others:
        left = {name: entry for name, entry in shared.items() if name in listing}
        if not left:
            raise InputError(f"{url}: serves {_names(listing)}, and {first} {_names(shared)}; {_SAME_MODEL}")
        shared = left
    if len(shared) > 1:
        raise InputError(f"{first}: serves {_names(shared)}, not one model; name one with {option}.")
    return next(iter(shared))


async def _list_all(urls: Sequence[str], patience_s: float) -> dict[str, Listing]:
    """What each server serves, of those that answer.

    Raises:
        RunError: none does, or one is something else.
    """
    asked = {url: asyncio.ensure_future(_list(url, patience_s)) for url in urls}
    waiting = set(asked.values())
    answered = False
    while waiting and not answered:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answered = any(task.exception() is None for task in done)
    if waiting:
        _, late = await asyncio.wait(waiting, timeout=_OTHERS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    found: dict[str, Listing] = {}
    down: dict[str, str] = {}
    for url, task in asked.items():
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, ServerDown):
            down |= fault.faults
        elif fault is not None:
            raise fault
        elif not task.cancelled():
            found[url] = task.result()
    if found:
        return found
    raise all_down(down, patience_s)


async def _list(url: str, patience_s: float) -> Listing:
    client = HttpClient(url, timeout_s=10, patience_s=patience_s, connections=1, token=token())
    await client.open()
    try:
        return models_of(await client.get("/v1/models"))
    except AnsweredError as error:
        raise RunError(
            f"{url}: /v1/models answers {error.status} ({error.message}); is it an OpenAI-compatible server?"
        ) from None
    finally:
        await client.close()
