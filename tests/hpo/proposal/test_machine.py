import huggingface_hub
import pytest
import torch

from hpo.proposal.machine import Weights, this_machine, weights_of
from sgformer.cpus import usable_cpus


def test_this_machine_has_what_a_search_would_find() -> None:
    machine = this_machine()
    assert machine.cpus == usable_cpus()
    assert machine.gpus == torch.cuda.device_count()
    assert (machine.gpu_bytes > 0) is (machine.gpu_name is not None) is (machine.gpus > 0)
    assert machine.memory_bytes > 2**30


def test_weights_are_told_with_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "file")
    kept, released = weights_of(("convnext_atto.d2_in1k", "sg_former_m"))
    assert kept == Weights("convnext_atto.d2_in1k", "on this machine")
    assert released.whereabouts == "out of reach"
    assert "get the file from the authors" in released.problem
