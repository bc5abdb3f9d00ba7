"""What `modal deploy` is about to do, printed before it does it."""

import sys
from collections.abc import Mapping
from pathlib import PurePosixPath

import modal

from pagevec.deploy.modal.settings import ModalSettings

_CONFIGS = {"config.json", "adapter_config.json"}


def announce(
    deployed: ModalSettings, environment: Mapping[str, str], weights: modal.Volume
) -> None:
    """Print the plan, if this process is `modal deploy`.

    Args:
        deployed: the settings of the deployment.
        environment: variables that containers get.
        weights: the volume; it is looked into.
    """
    if modal.is_local() and _is_deploying():
        model = environment["PAGEVEC_MODEL"]
        print(describe(deployed, model, _say_what_is_there(model, weights)), flush=True)


def describe(deployed: ModalSettings, model: str, there: str) -> str:
    """Return the plan, a line for each decision.

    Args:
        deployed: the settings of the deployment.
        model: which is served.
        there: what the volume holds.
    """
    lines = {
        "model": model,
        "machine": f"{deployed.gpu}, {deployed.cpu:g} cores, {deployed.memory:,} MiB; "
        f"{deployed.min_containers} to {deployed.max_containers} containers, each ends "
        f"{deployed.scaledown_window} s after its last request",
        "weights": f"volume {deployed.volume}: {there}",
        "secrets": f"{deployed.huggingface_secret} (HUGGINGFACE_TOKEN), "
        f"{deployed.api_key_secret} (SERVICE_API_KEY)",
        "address": f"https://<workspace>--{deployed.label}.modal.run (in full below)",
    }
    return "\n".join(
        [f"pagevec deploys {deployed.app}", *(f"  {name:<8}{said}" for name, said in lines.items())]
    )


def _is_deploying() -> bool:
    import click  # Modal's command line is made of it; containers have none

    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "deploy"


def _say_what_is_there(model: str, weights: modal.Volume) -> str:
    if "/" not in model:
        return "not needed, the model is part of the package"
    snapshots = f"hub/models--{model.replace('/', '--')}/snapshots"
    try:
        files = weights.listdir(snapshots, recursive=True)
    except modal.exception.NotFoundError:
        files = []
    except (modal.exception.AuthError, modal.exception.ConnectionError) as error:
        sys.exit(f"pagevec: {error}")  # the deployment would end in the same way, a minute later
    except Exception as error:  # the deployment itself may work
        return f"cannot be looked into ({error})"
    if _CONFIGS & {PurePosixPath(file.path).name for file in files}:
        return "holds them already"
    return "does not hold them yet; the first start fetches them, which takes minutes"
