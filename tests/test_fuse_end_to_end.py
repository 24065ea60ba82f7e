"""The example of docs/fusion.md, run as a user runs it, with a real Ray; killed once."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import Background, run

pytestmark = pytest.mark.fuse

PAGE = Path(__file__).parents[1] / "docs" / "fusion.md"


def block(language: str) -> str:
    """The page's only block of code in a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example, with its images, texts and search file."""
    folder = tmp_path_factory.mktemp("example")
    subprocess.run([sys.executable, "-c", block("python")], cwd=folder, check=True)
    values = yaml.safe_load(block("yaml"))
    values["resources"] = {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent_trials": 1}
    values["train"]["device"] = "cpu"
    values["train"]["data"]["cache_dir"] = str(folder / "cache")
    values["export"] = {"uint8": True}
    (folder / "numbers.yaml").write_text(yaml.safe_dump(values))
    return folder


def commands(folder: Path) -> list[list[str]]:
    """The arguments of the example's commands; all paths lie in the folder."""
    found = []
    for line in block("sh").strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "run_search.py"
        places = ("numbers", "texts", "runs/")
        found.append([str(folder / a) if a.startswith(places) else a for a in arguments])
    return found


def test_numbers_are_told_by_image_and_text_and_a_killed_search_goes_on(example: Path) -> None:
    search, predict, evaluate, by_image = commands(example)
    search = [*search, "--output-dir", str(example / "runs")]
    run_dir, texts = example / "runs" / "numbers", example / "texts.csv"
    begun = Background(*search, log=example / "log")
    begun.wait_for(lambda: any(run_dir.glob("trials/*/last.safetensors")))
    begun.kill_everything()

    told = texts.read_bytes()
    texts.write_bytes(told.replace(b"seventy", b"eighty"))
    refused = run(*search, "--resume", expect=2)
    assert "the study was made over other images: the table of features has another content" in (
        refused.stderr
    )
    texts.write_bytes(told)
    done = run(*search, "--resume")
    shown = dict(re.findall(r"^(test [\w -]+?)  +(\S+)", done.stdout, re.MULTILINE))
    assert float(shown["test top-1"]) > float(shown["test by image alone"])
    metrics = json.loads((run_dir / "best" / "metrics.json").read_text())["test"]
    assert metrics["top1"] > metrics["features_alone"]["top1"]
    assert metrics["image_alone"]["num_images"] == metrics["num_images"] == 200

    config = yaml.safe_load((run_dir / "best" / "config.yaml").read_text())
    assert config["model"]["fusion"]["num_features"] == 256
    card = (run_dir / "best" / "MODEL_CARD.md").read_text()
    assert "| test | image alone | 200 |" in card
    assert "text (text of 256), texts encoded by hashing" in card
    page = (run_dir / "report.html").read_text()
    assert "Image and features" in page
    for name in ("model.onnx", "model.uint8.onnx", "MODEL_CARD.md", "export.json"):
        assert str(example).encode() not in (run_dir / "best" / name).read_bytes(), name

    both = json.loads(run(*evaluate, "--json").stdout)
    image = json.loads(run(*by_image, "--json").stdout)
    assert both["top1"] == pytest.approx(metrics["top1"], abs=0.01)
    assert image["top1"] == pytest.approx(metrics["image_alone"]["top1"], abs=0.01)
    assert image["notes"] == ["images alone: the model also takes text (text of 256) (--features)"]
    rows = list(csv.DictReader(run(*predict, "--format", "csv").stdout.splitlines()))
    first = [row["class"] for row in rows if row["rank"] == "1"]
    assert sum(name.startswith("2") for name in first) > 0.8 * len(first)
