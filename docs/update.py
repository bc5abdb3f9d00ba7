"""Writes into documents and the Helm chart what is made from the code. Run it with `make docs`."""

import ast
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from pagevec.deploy.modal.settings import ModalSettings
from pagevec.engine.models.registry import FAMILIES
from pagevec.environment import (
    EnvironmentSettings,
    describe_fields,
    settings_table,
    variable_names,
)
from pagevec.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pagevec"
CHART_SCHEMA = ROOT / "deploy" / "helm" / "pagevec" / "values.schema.json"

# What the chart sets by itself, or takes from Secrets.
_OF_THE_CHART = frozenset(
    {"port", "shutdown_seconds", "service_api_key", "service_api_key_file", "huggingface_token"}
)
_OF_JSON_SCHEMA = (
    "description", "type", "enum", "pattern", "minLength", "minimum", "exclusiveMinimum", "maximum",
)  # fmt: skip


def settings_markdown(of: type[EnvironmentSettings]) -> str:
    """Return the table of settings."""
    rows = [
        f"| `{variable}` | {f'`{default}`' if default else ''} | {allowed} | {help_} |"
        for variable, default, allowed, help_ in settings_table(of)
    ]
    head = ["| variable | default | allowed | what it is |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


def map_markdown() -> str:
    """Return the table of all modules: for each room its purpose, for each module its subject."""
    lines = ["| where | what it does |", "| --- | --- |"]
    for room, modules in groupby(_modules(), key=lambda module: module.parent):
        for module in modules:
            if module.stem != "__init__":
                lines.append(f"| `{module.relative_to(PACKAGE)}` | {_subject(module)} |")
            elif room != PACKAGE:
                lines.append(f"| **`{room.relative_to(PACKAGE)}/`** | **{_subject(module)}** |")
    return "\n".join(lines)


def families_markdown() -> str:
    """Return the table of the model families."""
    rows = [
        f"| `{family.name}` | {family.checkpoints} | {family.library} | "
        f"{', '.join(f'`{one}`' for one in family.model_types)} | "
        f"{'yes' if family.packed else 'no'} |"
        for family in FAMILIES
    ]
    head = ["| family | checkpoints, such as | code of | `model_type` | packed |"]
    return "\n".join([*head, "| --- | --- | --- | --- | --- |", *rows])


def chart_schema(text: str) -> str:
    """Return the schema of the chart's values with the settings of the service in it."""
    schema = json.loads(text)
    schema["properties"]["settings"]["properties"] = {
        variable_names(name, Settings)[0]: {
            key: field[key] for key in _OF_JSON_SCHEMA if key in field
        }
        for name, field in describe_fields(Settings).items()
        if name not in _OF_THE_CHART
    }
    return json.dumps(schema, indent=2) + "\n"


def update(text: str, name: str, make: Callable[[], str]) -> str:
    """Return `text` with what `make` returns between the marks called `name`."""
    start, end = f"<!-- {name}: made by `make docs` -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    if not found or end not in rest:
        raise ValueError(f"the marks of {name!r} are missing")
    return f"{before}{start}\n\n{make()}\n\n{end}{rest.partition(end)[2]}"


def _modules() -> Iterator[Path]:
    """Yield the modules room by room: first a room's own, then those of the rooms in it."""
    yield from sorted(PACKAGE.glob("*.py"))
    for room in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        if room != PACKAGE:
            yield from sorted(room.glob("*.py"))


def _subject(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|").rstrip(".")


MADE: dict[Path, tuple[str, Callable[[], str]]] = {
    ROOT / "README.md": ("settings", lambda: settings_markdown(Settings)),
    ROOT / "docs" / "models.md": ("the families", families_markdown),
    ROOT / "docs" / "modal.md": ("settings", lambda: settings_markdown(ModalSettings)),
    ROOT / "docs" / "structure.md": ("the map", map_markdown),
}
"""What is made in which document."""

if __name__ == "__main__":
    for file, (name, make) in MADE.items():
        file.write_text(update(file.read_text(encoding="utf-8"), name, make), encoding="utf-8")
    CHART_SCHEMA.write_text(
        chart_schema(CHART_SCHEMA.read_text(encoding="utf-8")), encoding="utf-8"
    )
