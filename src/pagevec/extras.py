"""What an installation lacks: the extra of pagevec that brings a missing module."""

import re

# Modules whose distribution has another name than they.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "dotenv": "python-dotenv",
    "haystack": "haystack-ai",
    "llama_index": "llama-index-core",
    "resvg_py": "resvg-py",
}
_REQUIREMENT = re.compile(r"^([\w.-]+).*\bextra\s*==\s*[\"'](\w+)[\"']")


def how_to_install(extra: str) -> str:
    """Return the command that installs `extra`, of an index or of a checkout."""
    return f"`pip install 'pagevec[{extra}]'` (in a checkout: `pip install '.[{extra}]'`)"


def explain_missing(error: ImportError, wanted: str | None = None) -> str:
    """Return a sentence that says which module is missing, and which extra brings it.

    Args:
        error: of the import.
        wanted: the extra that is needed for what was asked, where that is known; otherwise the
            smallest one that brings the module is named.
    """
    module = (error.name or "").partition(".")[0]
    extras = _extras_with(module)
    if not isinstance(error, ModuleNotFoundError) or not extras:
        return f"this installation is damaged: {error}"
    extra = wanted if wanted in extras else extras[0]
    return f"this needs {module}, which is not installed here: {how_to_install(extra)}"


def _extras_with(module: str) -> list[str]:
    """Return the extras that bring `module`, the one with the fewest requirements first."""
    from importlib import metadata  # which takes as long to import as all of click

    name = _DISTRIBUTIONS.get(module, module).replace("_", "-").lower()
    required = metadata.requires("pagevec") or []
    pairs = [match.groups() for one in required if (match := _REQUIREMENT.match(one))]
    extras = [extra for _, extra in pairs]
    bringing = {extra for distribution, extra in pairs if distribution.lower() == name}
    return sorted(bringing - {"dev"}, key=extras.count)
