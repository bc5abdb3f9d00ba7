"""Writes into the documents what is made from the code. Run it with `make docs`."""

from pathlib import Path

from pagevec.deploy.modal.settings import ModalSettings
from pagevec.settings import EnvironmentSettings, Settings, settings_table

README = Path(__file__).parents[1] / "README.md"
MODAL = Path(__file__).parent / "modal.md"
START = "<!-- settings: made by `make docs` -->"
END = "<!-- end of settings -->"


def with_settings(text: str, of: type[EnvironmentSettings] = Settings) -> str:
    """Return `text` with the table of settings between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{settings_markdown(of)}\n\n{END}{after}"


def settings_markdown(of: type[EnvironmentSettings]) -> str:
    """Return the table of settings."""
    rows = [
        f"| `{variable}` | {f'`{default}`' if default else ''} | {allowed} | {help_} |"
        for variable, default, allowed, help_ in settings_table(of)
    ]
    head = ["| variable | default | allowed | what it is |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


if __name__ == "__main__":
    for file, of in ((README, Settings), (MODAL, ModalSettings)):
        file.write_text(with_settings(file.read_text(encoding="utf-8"), of), encoding="utf-8")
