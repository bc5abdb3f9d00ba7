"""`pagevec models`: the model families that can be served."""

import click

from pagevec.commands import with_output


@click.command("models")
@with_output
def command() -> None:
    """List the model families.

    Any checkpoint of these families can be served, LoRA adapters too. Which one a checkpoint is of
    is read from `model_type` in its config.json.
    """
    from pagevec.engine.models.registry import DEFAULT_CHECKPOINT, ENCODER, FAMILIES

    click.echo(f"{'family':20}{'model':28}{'code of':18}model_type in config.json")
    for family in FAMILIES:
        types = ", ".join(family.model_types)
        click.echo(f"{family.name:20}{family.model_class:28}{family.library:18}{types}")
    click.echo(f"{ENCODER:20}  (serves other multi-vector models: PAGEVEC_FAMILY={ENCODER})")
    click.echo(f"\ndefault on a GPU: {DEFAULT_CHECKPOINT}\nin the package: bundled (ColQwen2.5)")
