"""A simulated lack of memory, for processes that Ray starts."""

MAX_IMAGES = 5


def set_up() -> None:
    """Makes trainings on more than MAX_IMAGES images at a time fail, as if memory ran out."""
    import torch

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        is_training = type(module).__name__ == "SGFormer" and module.training
        if is_training and len(inputs[0]) > MAX_IMAGES:
            raise MemoryError

    torch.nn.modules.module.register_module_forward_pre_hook(check)
