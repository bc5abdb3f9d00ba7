"""`pagevec models`: the model families that can be served."""

import click

from pagevec.commands import with_output


@click.command("models")
@with_output
def command() -> None:
    """List the model families.

    Any checkpoint of these families can be served, LoRA adapters too.
    """
    from pagevec.engine.models.registry import DEFAULT_CHECKPOINT, FAMILIES

    click.echo(f"{'family':16}{'model':18}model_type in config.json")
    for family in FAMILIES:
        click.echo(f"{family.name:16}{family.model_class:18}{', '.join(family.model_types)}")
    click.echo(f"\ndefault on a GPU: {DEFAULT_CHECKPOINT}\nin the package: bundled (ColQwen2.5)")
