"""A simulated lack of memory, for processes that Ray starts."""

MAX_IMAGES = 5


def set_up() -> None:
    """Makes trainings on too many images at a time fail, as if memory ran out.

    For an SG-Former these are more than MAX_IMAGES, for a ResNet two.
    """
    import torch

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        most = {"SGFormer": MAX_IMAGES, "ResNet": 1}.get(type(module).__name__)
        if most is not None and module.training and len(inputs[0]) > most:
            raise MemoryError

    torch.nn.modules.module.register_module_forward_pre_hook(check)
