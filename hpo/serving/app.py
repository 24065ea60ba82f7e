"""The HTTP interface of served models: a FastAPI application."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hpo.serving.access import token_check
from hpo.serving.batching import ReplicaError
from hpo.serving.body import BoundedBodies, read_image, request_body_schema
from hpo.serving.metrics import Metrics
from hpo.serving.model import ServedModel
from hpo.serving.runner import Question, Refusal
from hpo.serving.settings import Limits

Models = Mapping[str, ServedModel]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
NUM_LIKELIEST: Final = 3
MOST_LIKELIEST: Final = 1000
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1", "[::1]")
RETRY_AFTER: Final = {"Retry-After": "1"}
TEXT: Final = "Classifies an image with an exported model. Choose a file below and send it."


class ErrorBody(BaseModel):
    """Why there is no answer."""

    detail: str


class ClassShare(BaseModel):
    """A class and its probability."""

    name: str = Field(serialization_alias="class")
    probability: float


class PredictionBody(BaseModel):
    """What a model says of an image, the likeliest class first; notes say what is odd in it."""

    model: str
    classes: list[ClassShare]
    notes: list[str]


class ModelBody(BaseModel):
    """A model that is served."""

    name: str
    num_classes: int
    max_batch_size: int
    replicas: int


REASONS: Final = {
    400: "The body holds no image that can be read.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "Body or image are too large.",
    415: "The body is of another type.",
    503: "Too many requests are present, or a replica has failed. Retry-After says when to retry.",
    504: "There was no answer in time.",
}


def create_app(
    models: Models,
    limits: Limits,
    metrics: Metrics,
    token: str | None = None,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The application.

    Args:
        models: The served models by name.
        limits: Limits of requests.
        metrics: Counts the requests.
        token: What a client must show; None: anybody on this machine may ask, by a loopback name.
        lifespan: Runs beside the application.
    """
    app = FastAPIOffline(
        title="sgformer-hpo", description=TEXT, redoc_url=None, lifespan=lifespan or _nothing
    )
    guard = [] if token is None else [Depends(token_check(token))]
    refused: dict[int | str, dict[str, Any]] = {} if token is None else {401: _error("No token.")}
    if token is None:
        # Else a page of elsewhere could have its own name resolve to 127.0.0.1.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES, www_redirect=False)
    app.add_middleware(BoundedBodies, most_bytes=limits.body_bytes, seconds=limits.seconds)
    _add_pages(app, models, metrics, guard, refused)

    @app.post(
        "/predict",
        response_model=PredictionBody,
        responses=refused | {status: _error(text) for status, text in REASONS.items()},
        openapi_extra={"requestBody": request_body_schema()},
        dependencies=guard,
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description=f"One of: {', '.join(models)}.")] = next(
            iter(models)
        )
        if len(models) == 1
        else None,
        top: Annotated[
            int, Query(ge=1, le=MOST_LIKELIEST, description="How many classes.")
        ] = NUM_LIKELIEST,
    ) -> Response:
        """Classes of an image with their probabilities."""
        served = _find(models, model)
        start, status = time.monotonic(), 500
        try:
            answer = await _answer(served, request, top)
            status = 200
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            metrics.requests.labels(served.name, status).inc()
            metrics.seconds.labels(served.name).observe(time.monotonic() - start)
        return JSONResponse(answer)

    return app


async def _answer(model: ServedModel, request: Request, top: int) -> dict[str, Any]:
    """The answer's JSON; raises HTTPException if there is none."""
    if model.is_full:
        raise HTTPException(
            503, f"{model.most_requests} requests of {model.name} are present", RETRY_AFTER
        )
    with model.counted():
        sent = await read_image(request)
        try:
            result = await model.classify(Question(sent.content, top, sent.features))
        except TimeoutError:
            raise HTTPException(504, "no answer in time (--timeout)") from None
        except ReplicaError as error:
            raise HTTPException(503, f"a replica failed: {error}", RETRY_AFTER) from None
    if isinstance(result, Refusal):
        raise HTTPException(result.status, result.reason)
    classes = [{"class": name, "probability": share} for name, share in result.classes]
    return {"model": model.name, "classes": classes, "notes": list(result.notes)}


def _find(models: Models, name: str | None) -> ServedModel:
    if name is not None and name in models:
        return models[name]
    listed = ", ".join(models)
    raise HTTPException(404, f"no model {name!r}; ?model= takes one of: {listed}")


def _add_pages(
    app: FastAPI,
    models: Models,
    metrics: Metrics,
    guard: list[Any],
    refused: dict[int | str, dict[str, Any]],
) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("docs")

    @app.get("/healthz", responses={503: _error("A model has no replica that runs.")})
    async def healthz() -> dict[str, str]:
        """Whether every model has a replica that runs."""
        gone = [model.name for model in models.values() if not model.num_replicas]
        if gone:
            raise HTTPException(503, f"no replica runs of: {', '.join(gone)}", RETRY_AFTER)
        return {"status": "ok"}

    @app.get("/models", dependencies=guard, responses=refused)
    async def list_models() -> list[ModelBody]:
        """The models that are served."""
        return [
            ModelBody(
                name=model.name,
                num_classes=model.num_classes,
                max_batch_size=model.batching.max_size,
                replicas=model.num_replicas,
            )
            for model in models.values()
        ]

    text: dict[int | str, Any] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", dependencies=guard, response_class=Response, responses=refused | text)
    async def show_metrics() -> Response:
        """Counters, as Prometheus reads them."""
        for model in models.values():
            metrics.present.labels(model.name).set(model.num_present)
            metrics.waiting.labels(model.name).set(model.num_waiting)
            metrics.replicas.labels(model.name).set(model.num_replicas)
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorBody, "description": description}


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield
