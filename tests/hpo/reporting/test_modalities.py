import pytest

from hpo.reporting.modalities import HEAD, modality_rows

pytestmark = pytest.mark.fuse


def of(top1: float, num: int = 100) -> dict:
    return {"top1": top1, "macro_f1": top1, "loss": 0.5, "num_images": num}


def test_both_and_each_alone_have_a_row() -> None:
    metrics = {
        "val": of(0.9) | {"image_alone": of(0.5), "features_alone": of(0.3, 80)},
        "test": None,
    }
    rows = list(modality_rows(metrics))
    assert [row[:3] for row in rows] == [
        ("val", "both", "100"), ("val", "image alone", "100"), ("val", "features alone", "80"),
    ]  # fmt: skip
    assert all(len(row) == len(HEAD) for row in rows)
    assert rows[0][3].startswith("0.9000 (0.8")


def test_a_split_without_features_has_no_row_of_features_alone() -> None:
    rows = list(modality_rows({"test": of(0.9) | {"image_alone": of(0.5)}}))
    assert [row[1] for row in rows] == ["both", "image alone"]


def test_a_model_of_images_alone_has_no_rows() -> None:
    assert list(modality_rows({"val": of(0.9), "test": of(0.9)})) == []
