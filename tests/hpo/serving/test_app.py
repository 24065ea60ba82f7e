import base64
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from served import LIMITS, make_app, noise, picture
from starlette.testclient import TestClient

from sgformer.export.onnx_classifier import OnnxClassifier

TOKEN = "a token of enough characters"


def expected(model: Path, content: bytes, folder: Path) -> dict[str, float]:
    """What `predict` says of the image."""
    path = folder / "image"
    path.write_bytes(content)
    return OnnxClassifier(model).predict(path).classes


def shares(answer: httpx2.Response) -> dict[str, float]:
    assert answer.status_code == 200, answer.text
    return {one["class"]: one["probability"] for one in answer.json()["classes"]}


def as_file(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("way", ["form", "raw", "untyped", "json"])
def test_an_image_is_classified_as_predict_does(
    client: TestClient, model: Path, tmp_path: Path, way: str
) -> None:
    content = picture(200)
    request: dict = {
        "form": {"files": {"image": content}},
        "raw": {"content": content, "headers": {"Content-Type": "image/png"}},
        "untyped": {"content": content},
        "json": {"json": {"image": base64.b64encode(content).decode()}},
    }[way]
    answer = client.post("/predict?top=8", **request)
    assert shares(answer) == pytest.approx(expected(model, content, tmp_path), abs=1e-6)
    assert list(shares(answer)) == list(expected(model, content, tmp_path))
    assert len(shares(client.post("/predict", **request))) == 3


def odd_images() -> dict[str, bytes]:
    frames = [Image.new("RGB", (40, 30), (shade, 0, 0)) for shade in (10, 250)]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels = np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8)
    deep = (pixels[..., 0].astype(np.uint16) << 8).astype(np.uint16)
    return {
        "animated": as_file(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "cmyk": as_file(Image.fromarray(pixels).convert("CMYK"), "JPEG"),
        "exif": as_file(Image.fromarray(pixels), "JPEG", exif=exif),
        "deep": as_file(Image.fromarray(deep), "PNG"),
        "long": picture(100, (20_000, 1)),
        "high": picture(100, (1, 20_000)),
    }


@pytest.mark.parametrize("name", sorted(odd_images()))
def test_odd_images_are_classified_as_predict_does(
    client: TestClient, model: Path, tmp_path: Path, name: str
) -> None:
    content = odd_images()[name]
    answer = client.post("/predict?top=8", content=content)
    assert shares(answer) == pytest.approx(expected(model, content, tmp_path), abs=1e-6)
    notes = {"animated": "several frames", "deep": "more than 8 bits"}
    assert notes.get(name, "") in " ".join(answer.json()["notes"])


def archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("a.png", picture())
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (noise((40, 40))[:-400], "cannot read the image"),
        (as_file(Image.new("RGB", (40, 40)), "JPEG")[:-2], "cannot read the image"),
        (archive(), "not an image: none of AVIF, BMP"),
        (b"", "is empty"),
        (b"text", "not an image"),
        # Radiance's format: OpenCV reads it, PIL does not know its size.
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 32000 +X 32000\n", "not an image"),
    ],
)
def test_what_is_no_image_is_a_bad_request(
    client: TestClient, content: bytes, reason: str
) -> None:
    answer = client.post("/predict", content=content)
    assert (answer.status_code, reason in answer.json()["detail"]) == (400, True), answer.text


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    bomb = as_file(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < LIMITS.body_bytes
    answer = client.post("/predict", content=bomb)
    assert answer.status_code == 413
    assert "30000 x 30000 pixels; at most 1000000 are taken" in answer.json()["detail"]


def test_a_broken_image_does_not_disturb_the_others_of_its_batch(
    client: TestClient, model: Path, tmp_path: Path
) -> None:
    contents = [b"text" if i % 3 == 0 else picture(8 * i) for i in range(30)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: client.post("/predict?top=8", content=one), contents))
    for content, answer in zip(contents, answers, strict=True):
        if content == b"text":
            assert answer.status_code == 400
        else:
            assert shares(answer) == pytest.approx(expected(model, content, tmp_path), abs=1e-6)


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"content": picture(), "headers": {"Content-Type": "text/html"}}, 415, "'text/html'"),
        ({"files": {"other": b"x"}}, 400, "no file in its field 'image'"),
        ({"data": {"image": "text"}, "files": {"a": b""}}, 400, "no file in its field 'image'"),
        ({"json": {"image": "?"}}, 400, "is not base64"),
        ({"json": {"picture": "?"}}, 400, "not JSON of the form"),
        ({"json": [1]}, 400, "not JSON of the form"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "boundary",
        ),
        ({"content": bytes(LIMITS.body_bytes + 1)}, 413, "larger than 200,000 bytes"),
        ({"content": iter([bytes(150_000)] * 2)}, 413, "larger than 200,000 bytes"),
    ],
)
def test_bad_bodies_are_refused_with_the_reason(
    client: TestClient, request_: dict, status: int, reason: str
) -> None:
    answer = client.post("/predict", **request_)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


def test_with_several_models_a_request_names_one(model: Path) -> None:
    with TestClient(make_app(model, names=("a", "b")), base_url="http://localhost") as client:
        assert client.post("/predict?model=b", content=picture()).json()["model"] == "b"
        assert [one["name"] for one in client.get("/models").json()] == ["a", "b"]
        for query in ("", "?model=c"):
            answer = client.post(f"/predict{query}", content=picture())
            assert answer.status_code == 404
            assert "takes one of: a, b" in answer.json()["detail"]


def test_metrics_count_requests_by_status_and_batches(model: Path) -> None:
    with TestClient(make_app(model), base_url="http://localhost") as client:
        client.post("/predict", content=picture())
        client.post("/predict", content=b"text")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'sgformer_requests_total{model="m",status="200"} 1.0',
        'sgformer_requests_total{model="m",status="400"} 1.0',
        'sgformer_request_seconds_count{model="m"} 2.0',
        'sgformer_batch_size_count{model="m"} 2.0',
        'sgformer_requests_present{model="m"} 0.0',
        'sgformer_images_waiting{model="m"} 0.0',
    ):
        assert line in lines


def test_without_a_token_foreign_names_of_this_machine_are_refused(client: TestClient) -> None:
    assert client.get("/models", headers={"Host": "evil.example"}).status_code == 400
    for host in ("localhost:80", "127.0.0.1:80", "[::1]:80"):
        assert client.get("/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/metrics", "/models"])
@pytest.mark.parametrize(
    ("shown", "status"),
    [(None, 401), ("Bearer wrong", 401), (f"Basic {TOKEN}", 401), ("Bearer \xe9", 401),
     (f"Bearer {TOKEN}", 200)],
)  # fmt: skip
def test_a_token_is_asked_for(model: Path, path: str, shown: str | None, status: int) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode("latin-1")}
    with TestClient(make_app(model, token=TOKEN)) as client:
        method, content = ("POST", picture()) if path == "/predict" else ("GET", b"")
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code == status
        assert client.get("/healthz").json() == {"status": "ok"}
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_has_a_form_that_takes_a_picture_and_needs_no_network(
    client: TestClient,
) -> None:
    page = client.get("/").text
    fetched = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert fetched
    for address in fetched:
        assert address.startswith("/")
        assert client.get(address).status_code == 200
    described = client.get("/openapi.json").json()
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    field = body["multipart/form-data"]["schema"]["properties"]["image"]
    assert field == {"type": "string", "format": "binary"}
