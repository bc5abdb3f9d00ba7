"""`pagevec serve`: the HTTP service on this machine."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pagevec.environment import describe_fields, option_name, variable_names
from pagevec.settings import Settings
from pagevec.terminal import echo

_ENVIRONMENT_ONLY = ("service_api_key", "huggingface_token", "hf_home")


@click.pass_context
def _serve(
    context: click.Context, /, demo: tuple[Path, ...], ray: bool, replicas: int | None, **_: Any
) -> None:
    """Serve a model over HTTP.

    Every setting is an environment variable too, also in .env; the option wins. Without a key in
    SERVICE_API_KEY or SERVICE_API_KEY_FILE it makes one, on loopback only, prints it, and keeps it
    for the next start where no other user can read it.
    """
    settings = Settings.from_environment(options=_typed_settings(context))
    if replicas and not ray:
        raise click.UsageError("--replicas needs --ray")
    if ray and (settings.store is not None or demo):
        raise click.UsageError("--ray serves no store: leave out --store and --demo")
    from pagevec.commands.hosting import serve

    serve(settings, demo, ray, replicas)


def _typed_settings(context: click.Context) -> dict[str, Any]:
    return {
        name: value
        for name, value in context.params.items()
        if name in Settings.model_fields
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


class _Setting(click.Option):
    """An option whose help shows the variable; `Settings` reads it, with `.env` below it."""

    def resolve_envvar_value(self, ctx: click.Context) -> None:
        return None


def _make_option(name: str, schema: dict[str, Any]) -> click.Option:
    option, type_, help_ = option_name(name), _click_type(schema), schema["description"]
    expects = f" Expects {schema['expected']}." if "expected" in schema else ""
    return _Setting(
        [f"{option}/--no-{option[2:]}" if type_ is click.BOOL else option],
        type=type_,
        default=schema["default"],
        show_default=True,
        envvar=variable_names(name, Settings)[0],
        show_envvar=True,
        help=f"{help_[0].upper()}{help_[1:]}.{expects}",
    )


def _click_type(schema: dict[str, Any]) -> "click.ParamType[Any]":
    match schema:
        case {"enum": choices}:
            return click.Choice(choices)
        case {"type": "integer" | "number" as kind}:
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            number = click.IntRange if kind == "integer" else click.FloatRange
            return number(low, schema.get("maximum"), min_open="exclusiveMinimum" in schema)
        case {"format": "path"}:
            return click.Path(path_type=Path)
    return click.BOOL if schema["type"] == "boolean" else click.STRING


def _epilog() -> str:
    fields = describe_fields(Settings)
    named = [
        f"{variable_names(n, Settings)[0]}: {fields[n]['description']}" for n in _ENVIRONMENT_ONLY
    ]
    return "Environment only: " + "; ".join(named) + "."


class _ServeCommand(click.Command):
    """Accepts `--offline true`, which version 0.1 wanted, with a warning."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for index, argument in enumerate(args):
            flag, _, value = argument.partition("=")
            words = [argument] if value else args[index : index + 2]
            new = {"true": "--offline", "false": "--no-offline"}.get(value or words[-1])
            if flag == "--offline" and new:
                echo(f"warning: `{' '.join(words)}` is deprecated: write `{new}`", err=True)
                args = [*args[:index], new, *args[index + len(words) :]]
                break
        return super().parse_args(ctx, args)


command = _ServeCommand(
    "serve",
    callback=_serve,
    help=_serve.__doc__,
    epilog=_epilog(),
    params=[
        *(
            _make_option(name, schema)
            for name, schema in describe_fields(Settings).items()
            if name not in _ENVIRONMENT_ONLY
        ),
        click.Option(
            ["--demo"],
            multiple=True,
            type=click.Path(exists=True, path_type=Path),
            help="Document or folder to show and search on the page; without --store, with uploads "
            "and in a store below ./pagevec-demo, one for each model.",
        ),
        click.Option(["--ray"], is_flag=True, help="Run replicas on this machine with Ray Serve."),
        click.Option(
            ["--replicas"],
            type=click.IntRange(1),
            help="Number of replicas with --ray; default: one for each GPU.",
        ),
    ],
)
