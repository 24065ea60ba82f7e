"""`serve` as a user starts it: Ray Serve's replicas, reload, replicas that die, the end."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import PROGRAM, Background, run
from listening import listening
from onnx_models import write_classifier
from served import noise, picture

from hpo.access import SERVE_TOKEN
from hpo.serving.deployment import OPENCV_PIXELS
from sgformer.export.onnx_classifier import OnnxClassifier

CLASSES, OTHERS = tuple("abcdefgh"), tuple("ABCDEFGH")
TOKEN = "an exemplary token"
PATIENCE_SECONDS = 120.0


class Served:
    """A server in a process of its own, with a run's model and another one."""

    def __init__(self, folder: Path) -> None:
        self.best = folder / "digits" / "best"
        self.best.mkdir(parents=True)
        write_classifier(self.best / "model.onnx", CLASSES)
        other = write_classifier(folder / "other.onnx", OTHERS[:2])
        self.program = Background(
            "serve", self.best.parent, f"small={other}", "--port", "0", "--threads", "1",
            "--max-batch", "8", "--queue", "500", "--wait-ms", "5",
            log=folder / "log", environment={SERVE_TOKEN: TOKEN, OPENCV_PIXELS: "100000"},
        )  # fmt: skip
        self.program.wait_for(lambda: "address" in self.log)
        self.address = re.findall(r"http://[\d.]+:\d+", self.log)[0]

    @property
    def log(self) -> str:
        return self.program.log.read_text()

    def ask(
        self, path: str, content: bytes | None = None, token: str = TOKEN
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
        request = urllib.request.Request(self.address + path, content, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def classes(self, content: bytes) -> dict[str, float]:
        status, text = self.ask("/predict?model=digits&top=8", content)
        assert status == 200, text
        return {one["class"]: one["probability"] for one in json.loads(text)["classes"]}

    def num_requests(self) -> float:
        """Requests of digits that have come in, answered or not."""
        text = self.ask("/metrics")[1].decode()
        found = re.findall(
            r'^sgformer_requests_(?:total|present){model="digits".*} (.+)$', text, re.M
        )
        return sum(map(float, found))

    def wait_for(self, text: str) -> None:
        self.program.wait_for(lambda: text in self.log)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.program.kill_everything()


def test_clients_get_what_predict_says_of_their_own_image(served: Served, tmp_path: Path) -> None:
    classifier = OnnxClassifier(served.best / "model.onnx")
    path, expected = tmp_path / "image.png", []
    contents = [picture((7 * i) % 256) for i in range(100)]
    for content in contents:
        path.write_bytes(content)
        expected.append(classifier.predict(path).classes)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(served.classes, contents))
    for answer, classes in zip(answers, expected, strict=True):
        assert answer == pytest.approx(classes, abs=1e-6)
    counted = served.ask("/metrics")[1].decode()
    batches = float(re.findall(r'batch_size_count{model="digits"} (\S+)', counted)[0])
    images = float(re.findall(r'batch_size_sum{model="digits"} (\S+)', counted)[0])
    assert images == 100
    assert batches < images


def test_each_model_answers_for_itself(served: Served) -> None:
    status, text = served.ask("/predict?model=small", picture())
    assert status == 200
    assert {one["class"] for one in json.loads(text)["classes"]} == {"A", "B"}
    assert served.ask("/predict", picture())[0] == 404


def test_max_pixels_decides_whatever_the_environment_says(served: Served) -> None:
    assert served.ask("/predict?model=digits", picture(0, (1000, 1000)))[0] == 200


def test_bad_images_and_tokens_are_refused(served: Served) -> None:
    assert served.ask("/predict?model=digits", b"text")[0] == 400
    assert served.ask("/predict?model=digits", bytes(17_000_000))[0] == 413
    assert served.ask("/predict?model=digits", picture(0, (10_000, 6_000)))[0] == 413
    assert served.ask("/predict?model=digits", picture(), token="another token ...")[0] == 401


def test_nothing_listens_beyond_loopback_and_no_command_line_holds_the_token(
    served: Served,
) -> None:
    pids = served.program.descendants()
    assert any("Replica" in command for command in pids.values())
    found = listening([served.program.process.pid, *pids])
    assert found
    assert all(address.is_loopback for address in found)
    assert not any(TOKEN in command for command in pids.values())
    for pid in pids:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert TOKEN.encode() not in environment


def test_a_new_model_takes_over_and_a_broken_one_does_not(served: Served) -> None:
    new = served.best.with_name(".best-new")
    shutil.copytree(served.best, new)
    (new / "model.onnx").write_bytes(b"no model")
    replace(served.best, new)
    served.wait_for("digits: the former model goes on, the new one fails: not an ONNX model")
    assert set(served.classes(picture())) == set(CLASSES)

    shutil.copytree(served.best, new)
    write_classifier(new / "model.onnx", OTHERS)
    replace(served.best, new)
    seen = set()
    end = time.monotonic() + PATIENCE_SECONDS
    while (names := frozenset(served.classes(picture()))) != set(OTHERS):
        seen.add(names)
        assert time.monotonic() < end, served.log
    assert seen <= {frozenset(CLASSES)}
    served.wait_for("digits: the new model of")
    assert served.log.count("goes on") == 1
    counted = served.ask("/metrics")[1].decode()
    for result in ("loaded", "refused"):
        assert f'sgformer_reloads_total{{model="digits",result="{result}"}} 1.0' in counted


def replace(folder: Path, new: Path) -> None:
    """Puts a new delivery in the place of the folder, as a run does."""
    old = folder.with_name(".best-old")
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)


def test_a_replica_that_dies_costs_some_answers_and_comes_back(served: Served) -> None:
    for pid, command in served.program.descendants().items():
        if "Replica:digits" in command:
            os.kill(pid, signal.SIGKILL)
    statuses, end = set(), time.monotonic() + PATIENCE_SECONDS
    while (status := served.ask("/predict?model=digits", picture())[0]) != 200:
        statuses.add(status)
        assert time.monotonic() < end, served.log
    assert statuses <= {503, 504}
    assert served.ask("/healthz")[0] in {200, 503}


def test_sigterm_ends_it_after_the_last_answer(served: Served) -> None:
    content = noise((2000, 1500))
    with ThreadPoolExecutor(8) as pool:
        before = served.num_requests()
        answers = [pool.submit(served.classes, content) for _ in range(8)]
        served.program.wait_for(lambda: served.num_requests() == before + 8)
        pids = served.program.descendants()
        served.program.process.send_signal(signal.SIGTERM)
        for answer in answers:
            assert len(answer.result()) == 8
    assert served.program.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in served.log
    end = time.monotonic() + PATIENCE_SECONDS
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none"], "no model at none"),
        (["{model}", "--replicas", "x"], "'x' is no number of replicas"),
        (["{model}", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1:8000"),
        (["{model}", "--token-file", "none"], "cannot read the token in none"),
        (["{broken}", "--port", "0"], "not an ONNX model"),
    ],
)
def test_bad_input_ends_with_2(tmp_path: Path, arguments: list[str], reason: str) -> None:
    paths = {"model": tmp_path / "m.onnx", "broken": tmp_path / "b.onnx"}
    write_classifier(paths["model"], CLASSES)
    paths["broken"].write_bytes(b"text")
    done = run("serve", *(text.format(**paths) for text in arguments), expect=2)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_token_is_printed_once(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "m.onnx", CLASSES)
    process = subprocess.Popen(
        [*PROGRAM, "serve", str(model), "--host", "0.0.0.0", "--port", "0"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    token = re.fullmatch(r"token: (\S{40,})\n", line)
    assert token is not None
    assert token[1] not in out + err
