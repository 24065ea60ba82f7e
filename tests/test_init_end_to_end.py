"""A search file that `init` writes, searched to its end as a user does it, with a real Ray."""

from pathlib import Path

from command_line import load_trials, run

SHORT = (
    "study.num_trials=2",
    "space.model.name.choices=[sg_former_pico, resnet18]",
    "train.model.name=sg_former_pico",
    "train.max_epochs=2",
    "retrain.max_epochs=2",
    "retrain.seeds=0",
)


def test_a_file_of_init_is_searched_to_its_end(
    image_folder: Path, tmp_path: Path, cache_dir: Path
) -> None:
    file = tmp_path / "mine.yaml"
    run("init", image_folder, "--output", file, "--no-measure", HF_HUB_OFFLINE="1")
    settings = [*SHORT, f"train.data.cache_dir={cache_dir}"]
    options = [word for setting in settings for word in ("--set", setting)]
    run("search", file, "--output-dir", tmp_path, *options)
    folder = tmp_path / image_folder.name
    assert len(load_trials(folder)) == 2
    assert (folder / "best" / "model.onnx").exists()
