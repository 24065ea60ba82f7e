"""The documents of models and their answers."""

from pydantic import Field

from hpo.cli.documents.base import Document, told


class OfClass(Document):
    precision: float
    recall: float
    f1: float
    support: int = told("images of the class")


class Confusion(Document):
    true: str
    predicted: str
    num_images: int


class CalibrationBin(Document):
    confidence: float = told("mean confidence of the bin's images, 0 to 1")
    accuracy: float = told("share of them that is predicted rightly")
    num_images: int


class Calibration(Document):
    ece: float | None = told("expected calibration error, 0 to 1")
    bins: list[CalibrationBin] = told("of 15 equal ranges of confidence, those with images")


class Evaluated(Document):
    top1: float = told("share of the images, 0 to 1")
    top5: float = told("share of the images, 0 to 1")
    macro_f1: float
    loss: float | None = told("mean cross-entropy, in nats")
    per_class: dict[str, OfClass] = told("by the class's name")
    confusion_matrix: list[list[int]] | None = told(
        "rows are true classes; `null` above 200 classes"
    )
    most_confused: list[Confusion] = told("100 at most, the most frequent first")
    calibration: Calibration
    num_images: int
    notes: list[str] = told("what to know of the images")


class Likely(Document):
    class_: str = Field(alias="class")
    probability: float | None


class Predicted(Document):
    image: str = told("its path")
    classes: list[Likely] = told("three at most, the likeliest first")
    notes: list[str] = told("what its pixels lost, such as transparency")


class Latency(Document):
    p50: float = told("milliseconds a batch")
    p95: float = told("milliseconds a batch")


class Compared(Document):
    bytes: int
    top1: float = told("share of the images, 0 to 1")
    low: float = told("end of top1's 95 % interval")
    high: float = told("end of top1's 95 % interval")
    class_agreement: float = told("share of images with the class that the first file names")
    latency_ms: dict[str, Latency] = told("by batch size")
    images_per_second: float = told("in batches of 8")


class Benchmarked(Document):
    files: dict[str, Compared] = told("by format")
    num_cpus: int
    notes: list[str] = told("what to know of the images and files")
