"""Requests that schemathesis makes from the OpenAPI document, valid ones and others."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import make_app

from hpo.serving.settings import Limits

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
HOST = {"Host": "localhost"}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_names(model: Path, mode: GenerationMode) -> None:
    app = make_app(model, Limits(body_bytes=100_000, seconds=20.0))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    seen = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.path != "/predict":
            continue  # the others take nothing that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=80, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: schemathesis.Case) -> None:
            answer = case.call(headers=HOST)
            assert answer.status_code not in {500, 501, 502}
            case.validate_response(answer, checks=CHECKS)
            seen.add((case.path, answer.status_code))

        check()
    assert ("/predict", 400) in seen
