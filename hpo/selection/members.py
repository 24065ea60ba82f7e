"""The trainings that a soup or an ensemble may have as members beside the winner's."""

from collections.abc import Sequence

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.selection.finalists import (
    Finalists,
    as_asked,
    read_finalists,
    retrain_config,
    training_name,
    trainings_of,
)
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import TrainConfig

Numbered = tuple[int, TrainConfig]  # a trial's number, and its configuration on a fresh seed


def may_be_member(config: SearchConfig, finalists: Finalists, train: TrainConfig) -> bool:
    """Whether the weights of a finalist's training may be wanted when the winner is delivered.

    Where val is split off train, each seed has its own val, on which other seeds are trained; then
    only trainings on the first seed may be combined.
    """
    is_first = train.seed == config.train.seed + 1
    return config.retrain.deliver != "winner" and (finalists.fold_ratio is None or is_first)


def member_candidates(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary], winner: int
) -> tuple[Numbered, ...]:
    """The trainings of which a combination with the winner's model may be made, that one first.

    A soup is of one architecture, whose input has one size and normalisation.
    """
    params = {trial.number: trial.params for trial in trials}
    own = retrain_config(config, params[winner])
    finalists, done = read_finalists(study), study.metadata.fresh_trainings
    if config.retrain.deliver == "winner" or finalists is None:
        return ((winner, own),)
    others = [
        (number, train)
        for number, train in trainings_of(as_asked(config, finalists), trials, finalists)
        if may_be_member(config, finalists, train)
        and done.get(training_name(number, train), {}).get("value") is not None
        and (number, train.seed) != (winner, own.seed)
        and (config.retrain.deliver == "ensemble" or _is_alike(train, own))
    ]
    return ((winner, own), *others)


def is_delivered_as_asked(config: SearchConfig, files: ModelFiles, winner: TrialSummary) -> bool:
    """Whether a folder has the winner's model, in the form that `retrain.deliver` asks for."""
    wanted = retrain_config(config, winner.params).fingerprint()
    return files.fingerprint() == wanted and files.asked_to_be == config.retrain.deliver


def _is_alike(train: TrainConfig, own: TrainConfig) -> bool:
    """Whether two trainings have equal weights by name, and read images alike."""
    one, other = train.resolved(), own.resolved()
    same_input = one.data.preprocessing == other.data.preprocessing
    same_size = one.data.image_size == other.data.image_size
    return one.model.name == other.model.name and same_input and same_size
