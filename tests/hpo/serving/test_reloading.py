"""Reloads with stand-ins for Ray Serve, which cannot be made to fail at will.

tests/hpo/serving/test_served_on_ray.py has real ones.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import RunError
from hpo.serving import reloading
from hpo.serving.batching import Result
from hpo.serving.deployment import ModelFacts
from hpo.serving.files import ModelFile
from hpo.serving.metrics import Metrics
from hpo.serving.reloading import Deployed
from hpo.serving.runner import Answer, Question
from hpo.serving.settings import Batching, Limits, Replicas
from sgformer.errors import DataError


class Deployment:
    """Answers with the content of the file that it was made of."""

    is_removed, is_lost = False, False

    def __init__(self, app: str, model: Path) -> None:
        self.app, self.text = app, model.read_text()
        self.facts = ModelFacts(len(self.text), Batching(4, 0.0))

    async def send(self, questions: list[Question]) -> Sequence[Result]:
        return [Answer(((self.text, 1.0),), ())] * len(questions)

    def num_replicas(self) -> int:
        if self.is_lost:
            raise ConnectionError("Ray is gone")
        return 1

    def remove(self) -> None:
        self.is_removed = True


class Made(list[Deployment]):
    """Stands for `deploy`; the first starts of an `unlucky` file fail."""

    num_failures = 0

    def __init__(self) -> None:
        super().__init__()
        self.failed = list[str]()

    def __call__(self, app: str, model: Path, *_: Any, measures: bool) -> Deployment:
        if model.read_text() == "broken":
            raise DataError(f"no model: {model}")
        if model.read_text() == "unlucky" and len(self.failed) < self.num_failures:
            self.failed.append(app)
            raise RunError("Ray broke it")
        self.append(Deployment(app, model))
        return self[-1]


def deployed_in(folder: Path, told: list[str]) -> Deployed:
    return Deployed(
        ModelFile("m", folder / "m.onnx"), Replicas(1, 1, 1), Limits(),
        lambda _: Batching(4, 0.0), Metrics(), folder / "copies", told.append,
    )  # fmt: skip


@pytest.mark.parametrize(("num_failures", "starts"), [(2, True), (3, False)])
def test_a_start_that_ray_breaks_is_repeated_twice(
    made: Made, tmp_path: Path, num_failures: int, starts: bool
) -> None:
    (tmp_path / "m.onnx").write_text("unlucky")
    made.num_failures = num_failures
    if starts:
        deployed_in(tmp_path, [])
        assert made[0].app == "m-3"
    else:
        with pytest.raises(RunError, match="Ray broke it"):
            deployed_in(tmp_path, [])
    assert made.failed == [f"m-{i + 1}" for i in range(num_failures)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(reloading, "deploy", made)
    monkeypatch.setattr(reloading, "SECONDS_BETWEEN_LOOKS", 0.01)
    return made


def test_a_model_that_cannot_be_deployed_changes_nothing_and_a_later_one_is_taken(
    made: Made, tmp_path: Path
) -> None:
    file, told = tmp_path / "m.onnx", list[str]()
    file.write_text("first")

    def put(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)

    async def test() -> None:
        deployed = deployed_in(tmp_path, told)

        async def answer() -> str:
            result = await deployed.model.classify(Question(b"x", 1))
            assert isinstance(result, Answer)
            return result.classes[0][0]

        watching = asyncio.create_task(deployed.watch())
        put("broken")
        while not told:
            await asyncio.sleep(0.01)
        assert await answer() == "first"
        file.unlink()
        await asyncio.sleep(0.05)
        assert await answer() == "first"
        put("later")
        while not made[0].is_removed:
            await asyncio.sleep(0.01)
        assert await answer() == "later"
        await asyncio.sleep(0.05)
        made[-1].is_lost = True
        while deployed.model.num_replicas:
            await asyncio.sleep(0.01)
        made[-1].is_lost = False
        while not deployed.model.num_replicas:
            await asyncio.sleep(0.01)
        assert not watching.done()
        watching.cancel()

    asyncio.run(asyncio.wait_for(test(), 60))
    assert told == [
        f"m: the former model goes on, the new one fails: no model: {file}",
        f"m: the new model of {file} answers",
        "m: cannot look after its replicas: Ray is gone",
    ]
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [made[-1].app]
