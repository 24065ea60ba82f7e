"""Studies as a search makes them."""

from hpo.config import SearchConfig
from hpo.search_space import default_params
from hpo.study import SearchStudy


def create_study(url: str, config: SearchConfig) -> SearchStudy:
    """A new study with the default configuration waiting to be tried."""
    study = SearchStudy.create(url, config.study, config.space)
    study.enqueue_first_trials(default_params(config.train, config.space))
    return study
