"""A pytest plugin that points timm's own tests/test_models.py at the sg_former models.

`make timm-tests` runs it. Deselected: tests of other models, tests that need hub weights, and
torchscript, which torch has deprecated and timm exempts models from.
"""

from typing import Any

import pytest
import timm

import sgformer.model  # noqa: F401  registers the models

all_models = timm.list_models


def list_models(filter: Any = "", module: Any = "", **options: Any) -> list[str]:
    """Replaces timm.list_models: lists only our models that match `filter`, of any module."""
    return [name for name in all_models(filter, **options) if name.startswith("sg_former")]


timm.list_models = list_models


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def is_ours(item: pytest.Item) -> bool:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        ours = str(params.get("model_name", "")).startswith("sg_former")
        return ours and "torchscript" not in item.name

    config.hook.pytest_deselected(items=[item for item in items if not is_ours(item)])
    items[:] = [item for item in items if is_ours(item)]
