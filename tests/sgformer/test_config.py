import pytest
import timm

import sgformer.model  # noqa: F401
from sgformer.catalog import MODEL_NAMES
from sgformer.config import TrainConfig, maximises
from sgformer.errors import ConfigError
from sgformer.validation import fields_at, validate


def test_the_model_names_are_those_registered_with_timm() -> None:
    assert set(MODEL_NAMES) == set(timm.list_models("sg_former*"))


def test_numbers_may_be_written_as_text_as_yaml_gives_them() -> None:
    config = validate(TrainConfig, {"optimizer": {"learning_rate": "1e-3"}}, "file.yaml")
    assert config.optimizer.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimzer": {}}, r"optimzer: unknown key; nearest known: optimizer.* \(here\.yaml\)"),
        ({"model": {"drop": 0.1}}, r"model\.drop: unknown key; nearest known: .*drop_rate"),
        ({"model": {"name": "sg_former_b9"}}, r"model\.name: no such model: 'sg_former_b9'; near"),
        ({"data": {"image_size": 100}}, r"multiple of 32 pixels, got 100; nearest: 96 and 128"),
        ({"data": {"text_encoder": "hashing"}}, r"data\.text_encoder: there are no texts to enc"),
        (
            {"data": {"text_encoder": " ", "features": "a.csv"}},
            r"data\.text_encoder: takes 'hashing' or a folder, got an empty text",
        ),
        ({"data": {"image_size": 1}}, r"multiple of 32 pixels, got 1; nearest: 32 and 64"),
        (
            {"model": {"drop_rate": 1.5}},
            r"model\.drop_rate: input should be less than 1, got 1\.5",
        ),
        ({"max_epochs": 0}, r"max_epochs: input should be greater than or equal to 1, got 0"),
        ({"optimizer": {"learning_rate": "nan"}}, r"learning_rate: .*finite.*, got 'nan'"),
        ({"data": {"std": [1, 0, 1]}}, r"data\.std\.1: input should be greater than 0, got 0"),
        ({"data": {"crop_pct": 0.01}}, r"crop_pct: .*greater than or equal to 0\.1, got 0\.01"),
        (
            {"data": {"image_size": 64, "decode_size": 63}},
            r"data\.decode_size: must be at least image_size=64, got 63",
        ),
        ({"distillation": {"teacher": ""}}, r"distillation\.teacher: names no file; .* got ''"),
        ({"distillation": {"weight": 2}}, r"distillation\.weight: .*less than or equal to 1, got"),
        ({"distillation": {"temperature": 0}}, r"temperature: .*greater than 0, got 0"),
        ({"data": {"cache_format": "png"}}, r"cache_format: .*'auto', 'raw' or 'jpeg', got 'png'"),
        (
            {"epoch_images": 10},
            r"epoch_images: an epoch has whole batches: at least optimizer\.batch_size=64, got 10",
        ),
        ({"seed": 2**63}, r"seed: input should be less than"),
        ({"device": "tpu"}, r"device: input should be 'auto', 'cpu' or 'cuda', got 'tpu'"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(
    values: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(TrainConfig, values, "here.yaml")


def test_images_are_decoded_to_the_size_that_is_set_or_to_what_evaluation_needs() -> None:
    def decoded(**data: object) -> int:
        return TrainConfig.model_validate({"data": data}).resolved().data.decoded_pixels

    assert decoded(image_size=224) == 256
    assert decoded(image_size=224, crop_pct=1.0) == 224
    assert decoded(image_size=224, decode_size=320) == 320


def test_the_size_to_which_images_are_decoded_belongs_to_the_training() -> None:
    own = TrainConfig.model_validate({"data": {"decode_size": 320}})
    raw = TrainConfig.model_validate({"data": {"cache_format": "raw"}})
    assert own.fingerprint() != TrainConfig().fingerprint() == raw.fingerprint()


def test_every_mistake_gets_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(TrainConfig, {"max_epochs": 0, "seed": -1}, "f")
    assert len(str(caught.value).splitlines()) == 2


def test_a_config_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().max_epochs = 3  # type: ignore[misc]


def test_a_training_of_the_first_release_keeps_its_fingerprint() -> None:
    former = {
        "precision": "float32",
        "channels_last": False,
        "data": {
            "crop_pct": 0.875,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
    }
    # Of TrainConfig() in the first release.
    assert TrainConfig.model_validate(former).fingerprint() == "2a9673c674215f50"


def test_what_only_saves_memory_is_not_in_the_fingerprint() -> None:
    values = {"grad_checkpointing": True, "optimizer": {"micro_batch_size": 4}}
    assert TrainConfig.model_validate(values).fingerprint() == TrainConfig().fingerprint()


def test_the_fingerprint_ignores_where_things_lie_and_sees_what_counts() -> None:
    base = TrainConfig()
    elsewhere = validate(
        TrainConfig, {"data": {"data_dir": "/x", "num_workers": 3}, "device": "cpu"}, "f"
    )
    other = validate(TrainConfig, {"data": {"image_size": 64}}, "f")
    assert base.fingerprint() == elsewhere.fingerprint()
    assert base.fingerprint() != other.fingerprint()


def test_a_shorter_training_clips_its_warm_up() -> None:
    assert TrainConfig().with_epochs(4).optimizer.warmup_epochs == 2
    assert TrainConfig().with_epochs(4).max_epochs == 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [(["model"], True), (["model", "name"], False), (["nothing"], False)],
)
def test_fields_at_gives_the_settings_of_sections_only(path: list[str], expected: bool) -> None:
    assert bool(fields_at(TrainConfig, path)) is expected


def test_only_loss_is_to_fall() -> None:
    assert [maximises(m) for m in ("val_top1", "val_macro_f1", "val_loss")] == [True, True, False]
