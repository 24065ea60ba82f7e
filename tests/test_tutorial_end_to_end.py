"""docs/tutorial.md is true: its commands are run from top to bottom, and print what it shows."""

import re
import sys
from pathlib import Path

from command_line import run

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEEDS = re.compile(r"on \d fresh seeds")
LABEL = re.compile(r"^ *(\S+( \S+)*?)(?=:|  |$| \d)")


def label_of(line: str) -> str:
    """What a line of output begins with, before values that another machine may not have."""
    found = LABEL.match(line)
    assert found is not None, line
    return found[1]


def test_the_tutorial_is_true_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("run_search.py", "search_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks].count("sh") > 5

    printed = ""
    for kind, text in blocks:
        if kind == "sh":
            script = f"set -e\ncd {tmp_path}\n{text}"
            printed = run(script, program=("bash", "-c")).stdout
            continue
        for line in text.splitlines():
            if line != "..." and not line.startswith("WARN"):  # warnings depend on the numbers
                assert label_of(line) in printed, f"{line}\n{printed}"
            seeds = SEEDS.findall(line)  # on which finalists were compared
            assert all(words in printed for words in seeds), f"{line}\n{printed}"

    best = tmp_path / "runs" / "photos" / "best"
    assert {"model.onnx", "model.uint8.onnx", "MODEL_CARD.md"} <= {p.name for p in best.iterdir()}
