import contextlib
import getpass
import json
import re
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from configs import changed

import sgformer
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import DataError, ExportError
from sgformer.export import onnx_file
from sgformer.export.names import METADATA_KEY
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx, metadata_of
from sgformer.export.proof import check_parity, prove_export, spread_over_classes
from sgformer.model.build import create_model
from sgformer.training.trainer import Trainer

CLASSES = tuple(str(d) for d in range(10))
Exported = tuple[torch.nn.Module, TrainConfig, Path]


@pytest.fixture(scope="module")
def exported(
    image_folder: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    config = TrainConfig.model_validate(
        {
            "model": {"name": "sg_former_pico"},
            "data": {
                "data_dir": image_folder,
                "image_size": 32,
                "crop_pct": 1.0,
                "cache_dir": cache_dir,
            },
            "augmentation": {"policy": "mild"},
            "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 1},
            "max_epochs": 8,
            "device": "cpu",
        }
    ).resolved()
    trainer = Trainer(config, load_image_data(config.data))
    list(trainer.epochs())
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    facts = {"metrics": {"val": {"top1": 0.9}}, "license": "apache-2.0"}
    export_onnx(trainer.model, path, config, CLASSES, facts=facts)
    return trainer.model, config, path


def test_the_file_is_as_the_contract_says(exported: Exported) -> None:
    proto = onnx.load(exported[2])
    (given,), (result,) = proto.graph.input, proto.graph.output
    assert (given.name, result.name) == ("input", "output")
    dims = given.type.tensor_type.shape.dim
    assert dims[0].dim_param
    assert [d.dim_value for d in dims[1:]] == [3, 32, 32]
    assert result.type.tensor_type.shape.dim[0].dim_param == dims[0].dim_param
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 20)]
    onnx.checker.check_model(exported[2], full_check=True)


def test_the_metadata_name_no_teacher(train_config: TrainConfig) -> None:
    config = changed(train_config, distillation={"teacher": ["/home/me/best", "/b"]})
    settings = metadata_of(config, CLASSES)["train"]
    assert settings["distillation"] == {"temperature": 2.0, "weight": 0.5}


def test_it_names_neither_paths_nor_the_machine(exported: Exported) -> None:
    content, data = exported[2].read_bytes(), exported[1].data
    roots = (Path(sgformer.__file__).parents[1], Path(onnx.__file__).parents[1], Path.home())
    for path in (*roots, "site-packages", data.data_dir, data.cache_dir):
        assert str(path).encode() not in content, path
    proto = onnx.load(exported[2])
    for tensor in proto.graph.initializer:  # a short name may stand among the weights by chance
        tensor.ClearField("raw_data")
    for name in (getpass.getuser(), socket.gethostname(), ".py", "torch.nn"):
        assert not re.search(rf"\b{re.escape(name)}\b".encode(), proto.SerializeToString()), name


def test_little_is_stored_beside_the_weights(exported: Exported) -> None:
    model, _, path = exported
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert path.stat().st_size - weights < 70_000
    proto = onnx.load(path)
    assert not any(node.op_type == "Constant" for node in proto.graph.node)
    tensors = [(t.data_type, tuple(t.dims), t.raw_data) for t in proto.graph.initializer]
    assert len(set(tensors)) == len(tensors)
    known = {t.name for t in proto.graph.initializer}
    assert not any(known.issuperset(n.input) for n in proto.graph.node if n.op_type != "Expand")


def test_it_carries_classes_and_preprocessing_but_no_path(exported: Exported) -> None:
    classifier = OnnxClassifier(exported[2])
    assert classifier.classes == CLASSES
    assert classifier.data.image_size == 32
    assert classifier.data.crop_pct == 1.0
    text = {p.key: p.value for p in onnx.load(exported[2]).metadata_props}["sgformer"]
    metadata = json.loads(text)
    assert metadata["version"] == sgformer.__version__
    assert metadata["license"] == "apache-2.0"
    assert metadata["metrics"]["val"]["top1"] == 0.9
    assert metadata["train"]["optimizer"]["learning_rate"] == 2e-3
    assert metadata["train"]["model"]["name"] == "sg_former_pico"
    assert {"data_dir", "cache_dir"}.isdisjoint(metadata["data"])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_it_computes_what_the_model_does(exported: Exported, batch_size: int) -> None:
    model, _, path = exported
    images = np.random.default_rng(0).standard_normal((batch_size, 3, 32, 32), np.float32)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(OnnxClassifier(path).logits(images), expected, atol=1e-3)


def test_the_proof_measures_the_file(exported: Exported) -> None:
    model, config, path = exported
    data = load_image_data(config.data)
    report = json.loads(
        json.dumps(prove_export(model, path, config, data, num_images=20).as_dict())
    )
    assert report["bytes"] == path.stat().st_size
    assert report["opset"] >= 18
    assert report["input"]["shape"][1:] == [3, 32, 32]
    assert report["parity"]["argmax_agreement"] == 1.0
    assert report["parity"]["batch_sizes"] == [1, 3, 8]
    assert report["parity"]["max_abs_diff"] < 1e-3
    assert report["num_images"] == report["parity"]["num_images"] == 20
    assert set(report["latency_ms"]) == {"1", "8"}
    assert report["latency_ms"]["1"]["p50"] <= report["latency_ms"]["1"]["p95"]


def test_the_images_of_the_proof_have_the_classes_shares() -> None:
    labels = np.repeat([0, 1, 2, 3], [600, 300, 99, 1])
    samples = np.stack([np.arange(1000), labels], axis=1)
    part = spread_over_classes(samples, 100)
    assert np.bincount(part[:, 1], minlength=4).tolist() in ([60, 30, 10, 0], [60, 30, 9, 1])
    assert (np.diff(part[:, 0]) > 0).all()
    assert np.ptp(part[:60, 0]) > 500  # not the first images of a class
    assert np.array_equal(part, spread_over_classes(samples, 100))
    assert np.array_equal(spread_over_classes(samples, 1000), samples)
    many = np.stack([np.arange(1000), np.arange(1000)], axis=1)
    assert len(np.unique(spread_over_classes(many, 64)[:, 1])) == 64


def test_a_file_of_other_weights_is_not_passed(exported: Exported) -> None:
    _, config, path = exported
    data = load_image_data(config.data)
    other = Trainer(config, data).model
    images = np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32)
    with pytest.raises(ExportError, match="the exported model disagrees with PyTorch"):
        check_parity(other, OnnxClassifier(path), images)


@dataclass(frozen=True)
class OffBy:
    """A stand-in for an exported model, whose logits differ by a share of their deviation."""

    model: torch.nn.Module
    share: float

    @torch.inference_mode()
    def logits_of(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        logits = self.model(torch.from_numpy(np.concatenate(list(batches)))).numpy()
        return logits + np.float32(self.share * logits.std())


@pytest.mark.parametrize(
    ("name", "share", "is_passed"),
    [
        ("sg_former_pico", 0.009, True),
        ("sg_former_pico", 0.05, False),
        ("test_resnet", 0.0005, True),
        ("test_resnet", 0.009, False),
        ("test_vit", 0.009, False),
    ],
)
def test_only_sg_formers_logits_may_differ_by_more_than_rounding(
    name: str, share: float, is_passed: bool
) -> None:
    config = TrainConfig.model_validate({"model": {"name": name}, "data": {"image_size": 32}})
    model = create_model(config, 10).eval()
    images = np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32)
    refused = contextlib.nullcontext() if is_passed else pytest.raises(ExportError, match="logits")
    with refused:
        check_parity(model, OffBy(model, share), images)  # type: ignore[arg-type]


def test_a_model_that_pytorch_cannot_export_is_named(tmp_path: Path) -> None:
    model = {"name": "test_maxvit"}
    config = TrainConfig.model_validate({"model": model, "data": {"image_size": 64}}).resolved()
    with pytest.raises(ExportError, match=r"^PyTorch cannot export test_maxvit to ONNX: .*view"):
        export_onnx(create_model(config, 10), tmp_path / "model.onnx", config, CLASSES)


def test_images_are_classified_most_likely_first(exported: Exported) -> None:
    _, config, path = exported
    assert config.data.data_dir is not None
    image = config.data.data_dir / "train" / "4" / "0.png"
    probabilities = OnnxClassifier(path).predict(image).classes
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    assert sum(probabilities.values()) == pytest.approx(1.0)
    assert set(probabilities) == set(CLASSES)


def test_what_is_no_exported_model_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*gone\.onnx"):
        OnnxClassifier(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(DataError, match=r"not an ONNX model: .*text\.onnx"):
        OnnxClassifier(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(DataError, match=r"not an ONNX model: .*empty\.onnx"):
        OnnxClassifier(tmp_path / "empty.onnx")
    proto = onnx.load(exported[2])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(DataError, match=r"foreign\.onnx was not exported by this program"):
        OnnxClassifier(tmp_path / "foreign.onnx")
    for metadata in ("no JSON", '{"classes": 3}', '{"classes": [], "data": {"later": 1}}'):
        onnx.helper.set_model_props(proto, {METADATA_KEY: metadata})
        onnx.save(proto, tmp_path / "damaged.onnx")
        with pytest.raises(DataError, match=r"damaged\.onnx has metadata that this version"):
            OnnxClassifier(tmp_path / "damaged.onnx")


def test_an_image_that_cannot_be_read_is_named(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read image: .*none\.png"):
        OnnxClassifier(exported[2]).predict(tmp_path / "none.png")


def test_large_weights_lie_in_a_file_beside_the_model(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config, whole = exported
    # Models of 2 GiB are too large for a test, so the limit is lowered.
    monkeypatch.setattr(onnx_file, "MOST_BYTES_OF_WEIGHTS", 100_000)
    path, moved = tmp_path / "model.onnx", tmp_path / "moved"
    moved.mkdir()
    for _ in range(2):
        export_onnx(model, path, config, CLASSES)
        assert (tmp_path / "model.onnx.data").stat().st_size < whole.stat().st_size
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    np.testing.assert_array_equal(
        OnnxClassifier(path).logits(images), OnnxClassifier(whole).logits(images)
    )
    onnx_file.move(path, moved)
    assert sorted(file.name for file in moved.iterdir()) == ["model.onnx", "model.onnx.data"]
    report = prove_export(model, moved / "model.onnx", config, load_image_data(config.data), 20)
    assert report.bytes == sum(file.stat().st_size for file in moved.iterdir())
    assert set(report.sha256) == {"model.onnx", "model.onnx.data"}
    (moved / "model.onnx.data").unlink()
    with pytest.raises(DataError, match=r"keeps its weights in .*model\.onnx\.data, which is not"):
        OnnxClassifier(moved / "model.onnx")
    shutil.copyfile(whole, tmp_path / "model.onnx")
    (moved / "model.onnx.data").touch()
    onnx_file.move(tmp_path / "model.onnx", moved)
    assert [file.name for file in moved.iterdir()] == ["model.onnx"]
