"""Throughput and latency of serving: ours, ours without batching, and LitServe with its batching.

    python -m pip install --no-deps --target build/litserve -r benchmarks/peers/litserve.txt
    python benchmarks/serving.py [--model-name sg_former_nano] [--side 32] [--seconds 10]
        [--rounds 3] [--clients 1 8 32]
    python benchmarks/serving.py --overload [--seconds 60]

All serve the same file, with untrained weights, on this machine, which the clients share. Each
client sends its own image, a part of a photograph of scikit-learn's as a JPEG in JSON, again and
again, and compares the answer with that of OnnxClassifier. Sides take turns, a round each.

`--overload` sends three times what ours reached with 32 clients, and counts statuses, wrong
answers, and the memory of all processes of the server.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIDES = ("ours", "ours, one image a request", "LitServe")
SIZE, SECONDS = 32, 0.005  # LitServe's batches
MOST_AT_A_TIME = 400
TOLERANCE = 1e-4
sys.path.insert(0, str(ROOT / "tests" / "support"))


@dataclass(frozen=True)
class Image:
    """A request's body, and the answer that it must get: the likeliest class and its share."""

    body: bytes
    name: str
    share: float


@dataclass
class Seen:
    """What clients saw: seconds of each answer 200, statuses, wrong answers."""

    seconds: list[float] = field(default_factory=list)
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: int = 0


def write_model(name: str, side: int, path: Path) -> None:
    from sgformer.config import TrainConfig
    from sgformer.export.architecture_costs import export_untrained

    data = {"data_dir": ".", "image_size": side}
    config = TrainConfig.model_validate({"model": {"name": name}, "data": data, "device": "cpu"})
    export_untrained(config, 10, path)


def make_images(model: Path, count: int) -> list[Image]:
    from PIL import Image as Pictures
    from sklearn.datasets import load_sample_images

    from sgformer.export.onnx_classifier import OnnxClassifier

    classifier, photographs = OnnxClassifier(model), load_sample_images().images
    made = []
    for i in range(count):
        photograph = photographs[i % 2]
        top, left = (37 * i) % (photograph.shape[0] - 256), (53 * i) % (photograph.shape[1] - 256)
        file = io.BytesIO()
        Pictures.fromarray(photograph[top : top + 256, left : left + 256]).save(file, "JPEG")
        image = classifier.read(file.getvalue())
        assert image is not None
        name, share = next(iter(classifier.predictions([image])[0].classes.items()))
        body = b'{"image": "%s"}' % base64.b64encode(file.getvalue())
        made.append(Image(body, name, share))
    return made


def command(side: str, model: Path, port: int) -> list[str]:
    if side == "LitServe":
        script = str(ROOT / "benchmarks" / "peers" / "litserve_server.py")
        return [sys.executable, script, str(model), str(port), str(SIZE), str(SECONDS)]
    options = [] if side == "ours" else ["--max-batch", "1"]
    program = str(ROOT / "run_search.py")
    return [sys.executable, program, "serve", str(model), "--port", str(port), *options]


@contextlib.contextmanager
def running(side: str, model: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "build" / "litserve")]
    process = subprocess.Popen(
        command(side, model, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True,
    )  # fmt: skip
    try:
        while not answers(port):
            assert process.poll() is None, f"{side} does not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/predict", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


async def ask(session: object, url: str, image: Image, seen: Seen) -> None:
    start = time.perf_counter()
    try:
        async with session.post(  # type: ignore[attr-defined]
            url, data=image.body, headers={"Content-Type": "application/json"}
        ) as answer:
            seen.statuses[str(answer.status)] += 1
            if answer.status != 200:
                await answer.read()
                return
            best = (await answer.json())["classes"][0]
    except Exception as error:  # noqa: BLE001  counted, and printed as a lost request
        seen.statuses[type(error).__name__] += 1
        return
    seen.seconds.append(time.perf_counter() - start)
    is_right = best["class"] == image.name and abs(best["probability"] - image.share) < TOLERANCE
    seen.wrong += not is_right


async def closed_loop(url: str, images: list[Image], seconds: float) -> Seen:
    """Each client asks again as soon as it has an answer."""
    import aiohttp

    seen = Seen()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client(image: Image, end: float) -> None:
            while time.perf_counter() < end:
                await ask(session, url, image, seen)

        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(image, end) for image in images))
    return seen


async def open_loop(url: str, images: list[Image], rate: float, seconds: float) -> Seen:
    """Requests at a rate, whatever the answers, of which MOST_AT_A_TIME may be outstanding."""
    import aiohttp

    seen, tasks = Seen(), set[asyncio.Task[None]]()
    start = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sent = 0
        while (now := time.perf_counter() - start) < seconds:
            while sent < now * rate and len(tasks) < MOST_AT_A_TIME:
                task = asyncio.create_task(ask(session, url, images[sent % len(images)], seen))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
    print(f"sent {sent} in {seconds:g} s, {rate:.0f} a second were wanted")
    return seen


def megabytes(pid: int) -> float:
    """Resident memory of a process and its descendants, shared pages counted once (PSS)."""
    from command_line import descendants

    total = 0
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def compare(model: Path, options: argparse.Namespace) -> None:
    images = make_images(model, max(options.clients))
    rates = collections.defaultdict[tuple[str, int], list[float]](list)
    late = collections.defaultdict[tuple[str, int], list[float]](list)
    for _ in range(options.rounds):
        for side in SIDES:
            with running(side, model) as (url, _):
                asyncio.run(closed_loop(url, images, 2))
                for count in options.clients:
                    seen = asyncio.run(closed_loop(url, images[:count], options.seconds))
                    assert set(seen.statuses) == {"200"}, seen.statuses
                    assert not seen.wrong, f"{side}: {seen.wrong} wrong answers"
                    rates[side, count].append(len(seen.seconds) / options.seconds)
                    late[side, count].append(statistics.quantiles(seen.seconds, n=20)[-1] * 1000)
    print("images a second (p95 in ms), medians of the rounds; ratio to ours")
    for count in options.clients:
        ours = statistics.median(rates["ours", count])
        for side in SIDES:
            rate = statistics.median(rates[side, count])
            p95 = statistics.median(late[side, count])
            print(f"{count:3} clients  {side:26} {rate:7.1f} ({p95:6.1f})  {rate / ours:.2f}")


def overload(model: Path, options: argparse.Namespace) -> None:
    images = make_images(model, 64)
    with running("ours", model) as (url, pid):
        asyncio.run(closed_loop(url, images[:32], 3))
        capacity = len(asyncio.run(closed_loop(url, images[:32], 5)).seconds) / 5
        memory = [megabytes(pid)]
        seen, parts = Seen(), 6
        for _ in range(parts):
            part = asyncio.run(open_loop(url, images, 3 * capacity, options.seconds / parts))
            seen.statuses += part.statuses
            seen.wrong += part.wrong
            seen.seconds += part.seconds
            memory.append(megabytes(pid))
    p95 = statistics.quantiles(seen.seconds, n=20)[-1]
    print(f"capacity {capacity:.0f} a second; answers {dict(seen.statuses)}; {seen.wrong} wrong; "
          f"p95 of 200: {p95:.2f} s; MB: {', '.join(f'{one:.0f}' for one in memory)}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="an exported file, instead of a new one")
    parser.add_argument("--model-name", default="sg_former_nano")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--overload", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder) / "model.onnx"
        if options.model is None:
            write_model(options.model_name, options.side, model)
        (overload if options.overload else compare)(model, options)


if __name__ == "__main__":
    main()
