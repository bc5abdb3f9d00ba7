"""`python -m benchmarks`: list the benchmarks; each is run as `python -m benchmarks.NAME`."""

import ast
from pathlib import Path

import click

_RUN = 'if __name__ == "__main__":'


@click.command()
def main() -> None:
    """List the benchmarks."""
    click.echo("python -m benchmarks.NAME --help\n")
    for name, summary in find_benchmarks().items():
        click.echo(f"  {name:11}{summary}")


def find_benchmarks() -> dict[str, str]:
    """Return name and first line of the docstring of each module that can be run; import none."""
    root = Path(__file__).parent
    found = {}
    for file in sorted([*root.glob("[!_]*.py"), *root.glob("*/__main__.py")]):
        source = file.read_text(encoding="utf-8")
        if _RUN in source:
            name = file.parent.name if file.stem == "__main__" else file.stem
            found[name] = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
