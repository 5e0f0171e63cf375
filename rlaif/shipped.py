"""Find the constitutions and prompts that come with rlaif, in a checkout or an installed wheel."""

from __future__ import annotations

from pathlib import Path

from rlaif.errors import InputError, closest


def shipped_folder(kind: str) -> Path:
    """Folder of the shipped files of a `kind`: `constitutions` or `prompts`."""
    package = Path(__file__).parent
    installed = package / "shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def find_shipped(kind: str, name: str, ending: str) -> Path:
    """Resolve `name` to a file of the user's, or to a shipped one.

    Raises:
        InputError: neither exists; the message names the nearest shipped one.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = sorted(file.stem for file in shipped_folder(kind).glob(f"*{ending}"))
    if name in known:
        return shipped_folder(kind) / f"{name}{ending}"
    if path.exists():
        raise InputError(f"{name}: not a file; give a {ending} file or one of {', '.join(known)}.")
    close = closest(name, known)
    hint = f" Did you mean {close}?" if close else ""
    raise InputError(f"{name}: no such file, and not one of the shipped {kind}: {', '.join(known)}.{hint}")
