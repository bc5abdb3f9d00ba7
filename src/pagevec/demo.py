"""A first look at a service: what to type to see an answer."""

import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from shlex import join, quote

# Its words stand on the fourth page of that example.
_EXAMPLE, _EXAMPLE_QUERY = "annual-report.pdf", "parcels and punctuality"


def next_steps(address: str, key: str | None, paths: Sequence[Path]) -> list[str]:
    """Return lines to copy into another terminal, which show an answer of a service.

    Args:
        address: of the service.
        key: for the lines to set; None where its user has set it.
        paths: documents to ask; without any, the user's own.
    """
    program = _program()
    lines = [f"cd {quote(str(Path.cwd()))}", f"export PAGEVEC_URL={quote(address)}"]
    if key is not None:
        lines.append(f"export SERVICE_API_KEY={quote(key)}")
    if paths:
        is_example = any((path / _EXAMPLE).is_file() for path in paths)
        query = _EXAMPLE_QUERY if is_example else "words that stand on a page"
        return [*lines, f"{program} ingest {join(map(str, paths))}", f'{program} search "{query}"']
    lines.append(f"{program} check")
    if importlib.util.find_spec("pypdfium2") is not None:
        lines += [
            f"{program} ingest FOLDER   # with documents of your own",
            f'{program} search "words that stand on a page"',
        ]
    return lines


def _program() -> str:
    """Return what another terminal knows `pagevec` by."""
    script, found = Path(sysconfig.get_path("scripts"), "pagevec"), shutil.which("pagevec")
    if not script.exists():
        return f"{quote(sys.executable)} -m pagevec"
    # An environment that is activated here need not be activated there.
    is_activated = sys.prefix != sys.base_prefix and found == str(script)
    if found is not None and script.samefile(found) and not is_activated:
        return "pagevec"
    is_below = script.is_relative_to(Path.cwd())
    return quote(str(script.relative_to(Path.cwd()) if is_below else script))
