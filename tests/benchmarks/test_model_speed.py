"""Tests of benchmarks/model_speed.py's comparison with released code, on a stand-in for it."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "model_speed.py"
# Like the released code, this code registers with timm and imports a module from its own folder.
RELEASED = """
from timm.models import register_model
from torch import nn
from parts_of_released import Layer

@register_model
def sgformer_s(pretrained=False, **kwargs):
    from more_parts import pool
    return nn.Sequential(Layer(), pool())
"""
PARTS = """
from torch import nn

class Layer(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 32, stride=32)
"""
MORE_PARTS = """
from torch import nn

def pool():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    (tmp_path / "sgformer.py").write_text(RELEASED)
    (tmp_path / "parts_of_released.py").write_text(PARTS)
    (tmp_path / "more_parts.py").write_text(MORE_PARTS)
    return tmp_path


@pytest.fixture
def model_speed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_speed", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_released_code_that_registers_with_timm_is_run(
    model_speed: ModuleType, reference: Path
) -> None:
    model = model_speed.load_released(reference)()
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 8)


def test_released_code_does_not_hide_our_package(model_speed: ModuleType, reference: Path) -> None:
    before = list(sys.path)
    model_speed.load_released(reference)()
    assert sys.path == before  # child processes inherit sys.path
    assert importlib.import_module("sgformer.model").SGFormer


def test_a_folder_without_released_code_is_refused(
    model_speed: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"no sgformer\.py in .*; --reference is a copy"):
        model_speed.load_released(tmp_path)


def test_memory_of_released_code_is_measured_in_a_fresh_process(
    model_speed: ModuleType, reference: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; import model_speed\n"
        "if __name__ == '__main__':\n"
        "    model_speed.load_released(Path(sys.argv[1]))\n"
        "    print(model_speed.in_fresh_process('released', Path(sys.argv[1]), 2, False))\n"
    )
    command = [sys.executable, "-c", script, str(reference)]
    done = subprocess.run(
        command, cwd=BENCHMARK.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 0
