"""LoRA adapters: loaded on their base and merged into its weights, so that they cost nothing."""

from typing import Any

from pagevec.engine.models.report import faults_in, refuse_faults
from pagevec.errors import CheckpointError


def merge_adapter(model: Any, source: str, hub: dict[str, Any], base_report: Any) -> None:
    """Add the adapter at `source` to the weights of `model`, in place, leaving plain layers.

    A base may lack weights that the adapter brings whole (such as the projection, with PEFT's
    `modules_to_save`): `base_report` is what the base's loading said.

    Raises:
        CheckpointError: tensors of the adapter found no place, places of it got no tensor, or
            neither base nor adapter had a weight.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    # Published adapters carry the tensor names of older versions of transformers; colpali-engine's
    # mapping for whole checkpoints applies to them too.
    names = getattr(type(model), "_checkpoint_conversion_mapping", {})
    try:
        report = model.load_adapter(
            source,
            weight_mapping=get_model_conversion_mapping(model, key_mapping=names),
            adapter_kwargs=hub,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the adapter {source} does not fit its base: {error}") from error
    refuse_faults(source, faults_in(vars(report)))
    brought = _merge_layers(model)
    faults = faults_in(base_report)
    faults["missing_keys"] = [
        key for key in faults.get("missing_keys", []) if key.rpartition(".")[0] not in brought
    ]
    refuse_faults(source, {kind: keys for kind, keys in faults.items() if keys})


def _merge_layers(model: Any) -> set[str]:
    """Replace every adapted layer by a plain one; return the names of those it brought whole."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    whole = set()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            model.set_submodule(name, layer.get_base_layer())
        elif isinstance(layer, ModulesToSaveWrapper):
            whole.add(name)
            model.set_submodule(name, layer.modules_to_save[layer.active_adapter])
    model._hf_peft_config_loaded = False
    return whole
