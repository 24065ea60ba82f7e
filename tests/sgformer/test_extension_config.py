import pytest
from configs import changed

from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

BASE = "runs/x/best"


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"extension": {"base": ""}}, r"extension\.base: names no model; .* got ''"),
        ({"extension": {"base": BASE}}, r"extension\.base: .* got 'runs/x/best', 'None' and \[\]"),
        (
            {
                "extension": {"base": BASE},
                "model": {"checkpoint": BASE},
                "distillation": {"teacher": [BASE, "runs/y"]},
            },
            r"the only teacher: .* \['runs/x/best', 'runs/y'\]",
        ),
        ({"extension": {"balanced_share": 1.5}}, r"balanced_share: .*less than or equal to 1"),
        ({"extension": {"exemplars": -1}}, r"exemplars: .*greater than or equal to 0"),
        ({"extension": {"choice": "first"}}, r"choice: .*'herding' or 'random'"),
    ],
)
def test_a_wrong_extension_is_refused(sections: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        changed(TrainConfig(), **sections)


def test_only_a_training_that_extends_has_the_extension_in_its_fingerprint() -> None:
    plain = TrainConfig()
    assert changed(plain, extension={"exemplars": 3}).fingerprint() == plain.fingerprint()
    own = {"model": {"checkpoint": BASE}, "extension": {"base": BASE}}
    started = changed(plain, model={"checkpoint": BASE}).fingerprint()
    extended = changed(plain, **own).fingerprint()
    other = changed(plain, **{**own, "extension": {"base": BASE, "exemplars": 3}}).fingerprint()
    assert len({started, extended, other}) == 3
