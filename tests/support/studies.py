"""Studies as a search makes them."""

from hpo.config.schema import SearchConfig
from hpo.config.search_space import default_params
from hpo.selection.selection import selected
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary


def create_study(url: str, config: SearchConfig) -> SearchStudy:
    """A new study, with the default configuration enqueued as its first trial."""
    study = SearchStudy.create(url, config.study, config.space)
    study.enqueue_first_trials(default_params(config.train, config.space))
    return study


def best_trial(study: SearchStudy, config: SearchConfig) -> TrialSummary | None:
    """The COMPLETE trial that `study.select` delivers; None without COMPLETE trials."""
    return next(iter(selected(study.trials(), config.study)), None)
