"""Tests of relative paths in a search file, which start at the current folder."""

from pathlib import Path

import pytest

from hpo.config.loading import check_paths_absolute, load_search_config
from sgformer.errors import ConfigError

CHOICES = "space.model.checkpoint={{type: categorical, choices: [null, {}]}}"


def test_a_relative_checkpoint_is_absolute_wherever_it_is_named(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    smoothing = "{type: float, low: 0, high: 0.2, when: {model.checkpoint: [./a.pth, null]}}"
    config, _ = load_search_config(
        search_file,
        [
            CHOICES.format("a.pth"),
            f"space.label_smoothing={smoothing}",
            "study.enqueue=[{model.checkpoint: a.pth}, {model.checkpoint: null}]",
        ],
    )
    path = str(tmp_path / "a.pth")
    assert config.space["model.checkpoint"].examples() == (None, path)
    assert config.space["label_smoothing"].when == {"model.checkpoint": (path, None)}
    assert config.study.enqueue == ({"model.checkpoint": path}, {"model.checkpoint": None})


def test_two_spellings_of_one_file_are_refused(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for spelling in ("./a.pth", str(tmp_path / "a.pth"), "other/../a.pth"):
        with pytest.raises(ConfigError, match=r"checkpoint: choices must be different .*tiny"):
            load_search_config(search_file, [CHOICES.format(f"a.pth, {spelling}")])


def test_a_checkpoint_without_a_name_is_refused(search_file: Path) -> None:
    for override in ("train.model.checkpoint=''", CHOICES.format("''")):
        with pytest.raises(ConfigError, match=r"model\.checkpoint: names no file; .* \(.*tiny"):
            load_search_config(search_file, [override])


def test_the_home_of_an_unknown_user_is_refused(search_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^space\.model\.checkpoint: ~nobody-here/a\.pth: "):
        load_search_config(search_file, [CHOICES.format("~nobody-here/a.pth")])


def test_a_relative_teacher_is_absolute(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = load_search_config(search_file, ["train.distillation.teacher=[runs/x, /y]"])
    assert config.train.distillation.teacher == (tmp_path / "runs" / "x", Path("/y"))


@pytest.mark.fuse
def test_a_relative_table_of_features_is_absolute(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["train.data.features=a.csv", "train.data.text_encoder=words"]
    config, _ = load_search_config(search_file, overrides)
    assert config.train.data.features == tmp_path / "a.csv"
    assert config.train.data.text_encoder == str(tmp_path / "words")
    with pytest.raises(ConfigError, match=r"train\.data\.features is 'a\.csv'"):
        check_paths_absolute(search_file, ["train.data.features=a.csv"])
