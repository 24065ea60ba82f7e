import subprocess
import sys
from pathlib import Path

import pytest

from sgformer.catalog import ModelFacts, check_image_size, check_known, model_facts
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.validation import validate


@pytest.mark.parametrize(
    ("name", "rates", "takes_img_size", "has_batch_norm"),
    [
        ("sg_former_b0", {"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"},
         True, False),
        ("test_resnet", {"drop_rate", "drop_path_rate"}, False, True),
        ("test_convnext", {"drop_rate", "drop_path_rate"}, False, False),
        ("test_efficientnet", {"drop_rate", "drop_path_rate"}, False, True),
        ("test_vit", {"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"},
         True, False),
        ("mixer_s32_224", {"drop_rate", "proj_drop_rate", "drop_path_rate"}, True, False),
        ("densenet121", {"drop_rate", "proj_drop_rate"}, False, True),
    ],
)  # fmt: skip
def test_what_a_model_takes_is_found_out(
    name: str, rates: set[str], takes_img_size: bool, has_batch_norm: bool
) -> None:
    facts = model_facts(name)
    assert facts.rates == rates
    assert (facts.takes_img_size, facts.has_batch_norm) == (takes_img_size, has_batch_norm)


def test_preprocessing_is_that_of_the_weights_and_of_their_tag() -> None:
    assert model_facts("sg_former_pico") == ModelFacts()
    vit = model_facts("vit_tiny_patch16_224.augreg_in21k")
    assert (vit.preprocessing.mean, vit.preprocessing.crop_pct) == ((0.5, 0.5, 0.5), 0.9)
    resnet = validate(TrainConfig, {"model": {"name": "resnet18.tv_in1k"}}, "here").resolved()
    assert (resnet.data.interpolation, resnet.data.crop_pct) == ("bilinear", 0.875)
    data = {"mean": (0.1, 0.2, 0.3), "crop_pct": 1.0}
    own = validate(TrainConfig, {"model": {"name": "resnet18"}, "data": data}, "here").resolved()
    assert (own.data.mean, own.data.crop_pct) == ((0.1, 0.2, 0.3), 1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"^no such model: 'resnet81'; nearest known: .*resnet18"),
        ("sg_former_b9", r"^no such model: 'sg_former_b9'; nearest known: sg_former_b"),
        ("resnet18.a9_in1k", r"^no such weights: 'resnet18\.a9_in1k'; timm has resnet18\.a1_in1k, "
                             r"resnet18\.a2_in1k, "),
        ("resnet18.", r"^no such weights: 'resnet18\.'; timm has resnet18\.a1_in1k"),
        ("test_mambaout.a", r"^no such weights: "),
        ("timm/resnet18", r"^a model's name has no prefix .*got 'timm/resnet18'; .*as 'resnet18'"),
        ("hf-hub:timm/resnet18.a1_in1k", r"no prefix .*timm's own name, such as 'resnet18\.a1_in"),
        ("hf-hub:", r"no prefix such as 'timm/' or 'hf-hub:', got 'hf-hub:'"),
    ],
)  # fmt: skip
def test_a_name_that_timm_does_not_know_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_known(name)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "sg_former_b0", "test_vit"])
def test_a_name_may_have_the_tag_of_its_weights(name: str) -> None:
    check_known(name)


def test_a_model_without_logits_is_no_classifier() -> None:
    name = "mobilenetv5_300m_enc"  # the image encoder of a language model
    with pytest.raises(ConfigError, match=f"^'{name}' is no classifier of images"):
        model_facts(name)


def test_sizes_that_a_model_takes_are_offered() -> None:
    check_image_size("test_resnet", 50)
    check_image_size("test_vit", 48)
    with pytest.raises(ConfigError, match=r"made for 160, and of the sizes near 50 it takes 48"):
        check_image_size("test_vit", 50)
    with pytest.raises(ConfigError, match=r"multiple of 32 pixels, got 50; nearest: 32 and 64"):
        check_image_size("sg_former_b0", 50)


def test_what_was_found_out_is_kept_and_needs_no_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import dataclasses, sys; from sgformer.catalog import check_image_size, model_facts\n"
        "facts = dataclasses.asdict(model_facts('test_vit')); check_image_size('test_vit', 96)\n"
        "print(facts | {'rates': sorted(facts['rates'])})\n"
        "print('timm' in sys.modules)"
    )
    monkeypatch.setenv("HOME", str(tmp_path))

    def found() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    first, second = found(), found()
    assert (first[1], second[1]) == ("True", "False")
    assert first[0] == second[0]
    for file in (tmp_path / ".cache/sgformer-hpo/models").iterdir():
        file.write_text("damaged")
    assert found() == first
