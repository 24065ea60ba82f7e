"""What is counted while models are served, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "sgformer_requests", "Requests by model and HTTP status.", ("model", "status"),
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "sgformer_request_seconds", "Time from a request's headers to its answer.", ("model",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_sizes = Histogram(
            "sgformer_batch_size", "Images of a batch.", ("model",),
            buckets=SIZES, registry=registry,
        )  # fmt: skip
        self.present = Gauge(
            "sgformer_requests_present", "Requests that are read, wait or are computed.",
            ("model",), registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "sgformer_images_waiting", "Images that are in no batch yet.", ("model",),
            registry=registry,
        )  # fmt: skip
        self.replicas = Gauge(
            "sgformer_replicas", "Replicas that run.", ("model",), registry=registry
        )
        self.reloads = Counter(
            "sgformer_reloads", "New model files, loaded or refused.", ("model", "result"),
            registry=registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)
