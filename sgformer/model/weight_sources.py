"""Finds the weights that a configuration asks for: a file, the authors' file, or timm's hub."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sgformer.catalog import is_ours, model_facts
from sgformer.config import ModelConfig
from sgformer.errors import CheckpointError, ConfigError
from sgformer.model.weight_files import Weights, file_of, read_weights
from sgformer.validation import nearest_known

FOLDER_VARIABLE: Final = "SGFORMER_WEIGHTS"
DEFAULT_FOLDER: Final = Path("~/.cache/sgformer-hpo/weights")
# The sizes of the authors' released files: S, M and B of the paper.
RELEASED: Final = ("sg_former_s", "sg_former_b2", "sg_former_m", "sg_former_b3", "sg_former_b")
HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")
SECONDS_TO_ANSWER: Final = 5.0  # a hub that has not answered by then counts as unreachable


class Whereabouts(StrEnum):
    """Where a model's pretrained weights are."""

    HERE = "on this machine"
    HUB = "on the hub, to be downloaded once"
    NOWHERE = "out of reach"


def whereabouts(name: str) -> tuple[Whereabouts, str]:
    """Where the pretrained weights of a model are; nothing is downloaded.

    Args:
        name: An SG-Former, or a model of timm whose weights are on the Hugging Face hub, which is
            asked whether it answers.

    Returns:
        The place, and why they are out of reach, with how to get them; else an empty text.
    """
    try:
        if is_ours(name):
            released_file(name)
            return Whereabouts.HERE, ""
        from timm.models import get_pretrained_cfg

        config: Any = get_pretrained_cfg(name, allow_unregistered=False)
        if _kept_by_hub(config.hf_hub_id) is not None:
            return Whereabouts.HERE, ""
        _files_on_hub(config.hf_hub_id)
    except CheckpointError as error:
        return Whereabouts.NOWHERE, str(error)
    except Exception as error:
        if not _is_of_network(error):
            raise
        return Whereabouts.NOWHERE, _unreachable(name, error)
    return Whereabouts.HUB, ""


def source_file(model: ModelConfig) -> Path | None:
    """The file of the weights that a configuration asks for; None: timm's hub has them.

    Raises:
        CheckpointError: There is no such file.
        ConfigError: There are no pretrained weights of this model.
    """
    if model.checkpoint is not None:
        return file_of(model.checkpoint)
    if is_ours(model.name):
        return released_file(model.name)
    _check_has_weights(model.name)
    return None


def load_weights(model: ModelConfig) -> Weights | None:
    """The weights that a training begins with; None: newly initialised ones.

    Raises:
        CheckpointError: The weights cannot be found, read or downloaded.
        ConfigError: There are no pretrained weights of this model.
    """
    if not model.pretrained and model.checkpoint is None:
        return None
    path = source_file(model)
    return _of_hub(model.name) if path is None else read_weights(path)


def released_file(name: str) -> Path:
    """The authors' released weights of an SG-Former, in the folder of weights.

    Raises:
        CheckpointError: There is no such file; the message says where to get it.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()
    for suffix in (".pth", ".safetensors", ".pt"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    if name not in RELEASED:
        raise CheckpointError(
            f"no weights were released for {name}, and none are on this machine: put a file at "
            f"{folder / name}.pth (or set {FOLDER_VARIABLE} to its folder), name a run of your "
            f"own with model.checkpoint, such as runs/x/best, or take {', '.join(RELEASED)}"
        )
    raise CheckpointError(
        f"no pretrained weights of {name} on this machine: get the file from the authors "
        f"(OliverRensu/SG-Former on GitHub) and put it at {folder / name}.pth, or set "
        f"{FOLDER_VARIABLE} to its folder"
    )


def _check_has_weights(name: str) -> None:
    if model_facts(name).has_weights:
        return
    import timm

    base = name.partition(".")[0]
    known = timm.list_pretrained(f"{base}.*") or timm.list_models(pretrained=True)
    raise ConfigError(f"timm has no pretrained weights of {name}; {nearest_known(base, known)}")


def _of_hub(name: str) -> Weights:
    """Timm's own weights of a model, with the names and shapes of the model as timm builds it."""
    import timm
    from timm.models import get_pretrained_cfg

    config: Any = get_pretrained_cfg(name, allow_unregistered=False)
    overlay: dict[str, Any] = {}
    try:
        if config.hf_hub_id:
            # The hub has PyTorch's format also of models whose original file needs `custom_load`.
            tensors = read_weights(_downloaded(config.hf_hub_id)).tensors
            overlay = {"state_dict": tensors, "custom_load": False}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        if not _is_of_network(error):
            raise
        raise CheckpointError(_unreachable(name, error)) from None
    tag = f"{config.architecture}.{config.tag}" if config.tag else name
    return Weights(dict(model.state_dict()), f"timm's weights {tag}")


def _downloaded(hub_id: str) -> Path:
    """The model's file in the hub's cache, which it is downloaded to if it is not there yet.

    The hub's own download repeats each question to an unreachable hub for 48 seconds (measured),
    so one question with a short limit comes first.
    """
    import huggingface_hub

    if (kept := _kept_by_hub(hub_id)) is not None:
        return kept
    repository, _, revision = hub_id.partition("@")
    there = _files_on_hub(hub_id)
    file = next((file for file in HUB_FILES if file in there), HUB_FILES[0])
    return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))


def _kept_by_hub(hub_id: str) -> Path | None:
    """The model's file in the hub's cache; None: it is not there."""
    import huggingface_hub

    repository, _, revision = hub_id.partition("@")
    for file in HUB_FILES:
        known = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(known, str):
            return Path(known)
    return None


def _files_on_hub(hub_id: str) -> set[str]:
    """The names of the files that the hub has of a model."""
    import huggingface_hub

    repository, _, revision = hub_id.partition("@")
    info = huggingface_hub.HfApi().model_info(
        repository, revision=revision or None, timeout=SECONDS_TO_ANSWER
    )
    return {sibling.rfilename for sibling in info.siblings or ()}


def _is_of_network(error: BaseException) -> bool:
    """Whether an error, or one that caused it, comes from the network or from the hub.

    huggingface_hub raises its own errors and those of its HTTP library, which it has changed.
    """
    ours = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib")
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ConnectionError) or type(chain).__module__.startswith(ours):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _unreachable(name: str, error: BaseException) -> str:
    reason = " ".join(str(error).split()).partition(". ")[0][:200] or type(error).__name__
    return (
        f"pretrained weights of {name} are not in the hub's cache on this machine and cannot be "
        f"downloaded: {reason}; download them where there is a network (HF_HOME is the cache's "
        "folder), or name a file with model.checkpoint"
    )
