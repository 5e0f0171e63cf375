"""The peers' virtual environments: one each, as what they ask for may conflict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# The newest of each, with the clients that decide their speed as they were installed with them.
PINS: dict[str, tuple[str, ...]] = {
    # It imports requests, and gets it no longer from what it asks for.
    "distilabel": ("distilabel[openai]==1.5.3", "openai==3.54.0", "requests"),
    "alpaca_eval": ("alpaca_eval==0.6.6", "openai==3.54.0"),
    "prometheus": ("prometheus-eval==0.1.20", "litellm==1.106.2"),
}


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of a peer's environment; made and filled where it is not there."""
    home = folder / name
    python = home / "bin" / "python"
    done, pins = home / ".installed", "\n".join(PINS[name]) + "\n"
    if done.is_file() and done.read_text() == pins:
        return python
    print(f"installing {', '.join(PINS[name])} into {home}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS[name]], check=True)
    done.write_text(pins)
    return python
