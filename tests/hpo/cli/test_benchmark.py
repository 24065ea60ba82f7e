from pathlib import Path

import pytest
from commands import Call, refused


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.onnx", "--data-dir is needed"),
        ("", "is no exported file and no run with a delivered model"),
        ("missing", "is no exported file and no run with a delivered model"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    name: str, reason: str, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert reason in refused(call("benchmark", tmp_path / name))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("model.onnx", "not an ONNX model"), ("model.engine", "runs on its GPU only")],
)
def test_a_file_that_is_no_model_is_refused(
    name: str, reason: str, tmp_path: Path, image_folder: Path, call: Call
) -> None:
    (tmp_path / name).write_bytes(b"no model")
    said = refused(call("benchmark", tmp_path / name, "--data-dir", image_folder))
    assert reason in said
