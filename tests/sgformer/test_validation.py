"""Tests of the words in which wrong names and values are told."""

import pytest

from sgformer.catalog import check_known
from sgformer.errors import ConfigError
from sgformer.validation import nearest_known


def test_a_name_that_is_known_twice_is_listed_once() -> None:
    assert nearest_known("alpa", ["alpha", "beta", "alpha"]) == "nearest known: alpha"
    assert nearest_known("zzz", ["alpha", "alpha"]) == "nearest known: alpha"


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest_known("ALPHA", ["beta", "alpha"]) == "nearest known: alpha"
    assert nearest_known("alpha", ["BETA", "Alpha"]) == "nearest known: Alpha"
    with pytest.raises(ConfigError, match="nearest known: resnet18"):
        check_known("RESNET18")


def test_of_many_names_the_first_are_listed() -> None:
    names = [f"{i:03}" for i in range(100)]
    assert nearest_known("x", names).endswith(", 019 and 80 more")
