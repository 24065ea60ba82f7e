"""A finished run is extended by new classes, as docs/training.md shows it, with a real Ray."""

import json
import re
import shutil
from pathlib import Path

import yaml
from command_line import Background, load_trials, run
from extensions import OLD, write_classes
from searches import search_values

DOCS = Path(__file__).parents[1] / "docs" / "training.md"


def test_a_run_is_extended_as_the_manual_says(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    values = search_values(write_classes(image_folder, tmp_path / "old", "01234567"), cache_dir)
    values["study"]["num_trials"] = 1
    values["scheduler"] = {"name": "none"}
    values["train"]["max_epochs"] = 1
    values["retrain"]["max_epochs"] = 30
    values["space"].pop("model.drop_rate")
    search_file = tmp_path / "digits.yaml"
    search_file.write_text(yaml.safe_dump(values))
    runs = tmp_path / "runs"
    run("search", search_file, "--output-dir", runs)
    base = runs / "digits" / "best"
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}

    write_classes(image_folder, tmp_path / "new-digits", "89")
    (command,) = re.findall(r"run_search\.py (extend runs/digits --data-dir .*)", DOCS.read_text())
    words = command.replace("runs/", f"{runs}/").replace("new-digits", f"{tmp_path}/new-digits")
    options = [*words.split(), "--output-dir", runs]
    planned = run(*options, "--dry-run")
    assert "10 classes" in planned.stdout
    assert not (runs / "digits-extended-images").exists()

    # Steps as large as these make it forget.
    options += ["--set", "train.optimizer.learning_rate=0.1", "--set", "retrain.max_epochs=12"]
    extended = runs / "digits-extended"
    process = Background(*options, log=tmp_path / "log")
    process.wait_for(lambda: any(extended.glob(".retraining/*/last.safetensors")))
    process.kill_everything()
    refused = run(*options, "--resume", expect=1)
    forgotten = re.search(
        r"which is (0\.\d+) and more than --max-forgetting 0\.02", refused.stderr
    )
    assert forgotten, refused.stderr
    assert f"{base} is untouched" in refused.stderr
    assert not (extended / "best").exists()
    shutil.rmtree(tmp_path / "old")  # the base's images are not needed
    done = run(*options, "--resume", "--max-forgetting", 1)
    assert f"forgotten {forgotten[1]} (" in re.sub(" +", " ", done.stdout)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before

    best = extended / "best"
    assert json.loads((best / "classes.json").read_text()) == [*OLD, "8", "9"]
    told = json.loads((best / "extension.json").read_text())
    assert (told["base"], told["num_old_classes"]) == ("digits/best", 8)
    metrics = json.loads((best / "metrics.json").read_text())
    assert list(metrics["val"]["per_class"]) == [*OLD, "8", "9"]
    assert metrics["test"]["num_images"] == 20
    assert load_trials(extended)[0].user_attrs
    for name in ("model.onnx", "MODEL_CARD.md", "extension.json", "exemplars/val.tar"):
        assert str(tmp_path).encode() not in (best / name).read_bytes(), name
    assert "extends: digits/best, 8 classes, by 2" in (best / "MODEL_CARD.md").read_text()
    assert "The extension</h2>" in (extended / "report.html").read_text()
    image = next((tmp_path / "new-digits" / "test" / "9").iterdir())
    assert image.name in run("predict", best / "model.onnx", image, "--format", "csv").stdout
    assert (best / "exemplars" / "herding.tar").exists()  # it can be extended again
