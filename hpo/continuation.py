"""Finds or creates a run's study, and refuses to resume a search that differs from its study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.config.results_url import WORKING_FOLDER, is_url
from hpo.config.resumed import differences, with_former_defaults
from hpo.config.schema import SearchConfig, StudyConfig
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung
from hpo.study.storage import storage_exists, with_absolute_path, without_password
from hpo.study.study import SearchStudy
from sgformer.errors import ConfigError, listed
from sgformer.validation import validate


def with_storage(config: SearchConfig, storage: str | None) -> SearchConfig:
    """The config with this storage URL; the path of a file-based storage becomes absolute."""
    url = None if storage is None else with_absolute_path(storage)
    study = config.study.model_copy(update={"storage": url})
    return config.model_copy(update={"study": study})


def with_output(config: SearchConfig, output_dir: Path | str) -> tuple[SearchConfig, Path]:
    """The config, and the folder that gets the run's folder.

    If `output_dir` is a URL, that becomes the config's `study.deliver_to`, and the folder is runs.
    """
    if not is_url(str(output_dir)):
        return config, Path(output_dir)
    study = validate(
        StudyConfig, config.study.model_dump() | {"deliver_to": str(output_dir)}, "--output-dir"
    )
    return config.model_copy(update={"study": study}), WORKING_FOLDER


def check_continuation(
    config: SearchConfig, folder: RunFolder, storage: str | None, *, resume: bool
) -> SearchConfig:
    """The config with the storage URL that the run has, or will have; writes nothing.

    Args:
        config: The config of the search that starts or resumes now.
        folder: The run's folder; it may be empty.
        storage: The storage URL that the user gave, password included; None: none was given.
        resume: Whether the run may exist already.

    Raises:
        StudyError: The run exists and `resume` is not set.
        ConfigError: The config differs from the run's in a setting that would make old and new
            trials incomparable.
    """
    own = config.study.storage
    config = with_storage(config, without_password(storage) if storage else own)
    if not folder.search_file.exists():
        return config
    if not resume:
        raise StudyError(
            f"study {config.study.name!r} exists already: {folder.path}; continue it with "
            "--resume, or choose another --study-name"
        )
    known = folder.load_config()
    if config.study.storage is None:
        config = with_storage(config, known.study.storage)
    kept = {
        name: getattr(known.study, name)
        for name in ("deliver_to", "checkpoint_to")
        if getattr(config.study, name) is None
    }
    study, tracking = config.study.model_copy(update=kept), config.tracking.after(known.tracking)
    config = config.model_copy(update={"study": study, "tracking": tracking})
    known = with_storage(known, known.study.storage)
    config = with_former_defaults(known, config)
    _refuse_differences(known, config, str(folder.search_file))
    return config


def find_study(
    config: SearchConfig, folder: RunFolder, storage: str | None, *, resume: bool
) -> SearchStudy | None:
    """The run's study; None if it does not exist yet.

    Raises:
        StudyError: The study exists and `resume` is not set, or its storage cannot be used.
        ConfigError: The config differs from the study's in a setting that must stay the same.
    """
    url = folder.storage_url(config, storage)
    if not storage_exists(url):
        return None
    study = SearchStudy.find(url, config.study, config.space)
    if study is None:
        return None
    if not resume:
        raise StudyError(
            f"study {config.study.name!r} exists already in {without_password(url)}: continue it "
            "with --resume, or choose another --study-name"
        )
    if study.metadata.search_config is not None:
        known = SearchConfig.model_validate(study.metadata.search_config)
        known = with_storage(known, known.study.storage)
        _refuse_differences(
            known, with_former_defaults(known, config), f"study {config.study.name!r}"
        )
    return study


def config_of_study(study: SearchStudy, config: SearchConfig) -> SearchConfig:
    """The config, in which settings at their default keep the former default of the study."""
    if study.metadata.search_config is None:
        return config
    return with_former_defaults(SearchConfig.model_validate(study.metadata.search_config), config)


def create_study(
    config: SearchConfig,
    folder: RunFolder,
    storage: str | None,
    images: Mapping[str, Any],
    first_rung: FirstRung | None = None,
) -> SearchStudy:
    """Creates the run's study, which stores the config and a description of the images.

    Args:
        config: The config of the search.
        folder: The run's folder.
        storage: The storage URL that the user gave, password included; None: the config's.
        images: Classes, numbers of images by split, and a digest of the images' content.
        first_rung: The first rung that earlier studies suggest; None: they suggest none.

    Raises:
        StudyError: The folder holds checkpoints of trials that belong to no study.
    """
    if folder.trials.is_dir() and any(folder.trials.iterdir()):
        raise StudyError(
            f"{folder.trials} holds checkpoints of a study that is gone; move them away, or "
            "choose another --study-name"
        )
    study = SearchStudy.create(folder.storage_url(config, storage), config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    study.metadata.images = dict(images)
    if first_rung is not None:
        study.metadata.first_levels = [first_rung.model_dump(mode="json")]
    return study


def refuse_other_images(study: SearchStudy, images: Mapping[str, Any]) -> None:
    """Raises StudyError if the study has other images; their folder may have moved."""
    changes = changes_of_images(study, images)
    if changes is not None:
        raise StudyError(
            f"the study was made over other images: {changes} (--data-dir); choose another "
            "--study-name"
        )


def changes_of_images(study: SearchStudy, images: Mapping[str, Any]) -> str | None:
    """The differences between the study's images and these, in words; None: they are the same."""
    known = study.metadata.images
    return None if known is None or known == images else _changes(known, images)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The differences between two descriptions of images, as one line of text."""
    changes = []
    for name in sorted({*before, *after} - {"classes", "content", "features"}):
        if before.get(name) != after.get(name):
            changes.append(f"{name} had {before.get(name, 0)} images and has {after.get(name, 0)}")
    if before.get("features") != after.get("features"):
        changes.append("the table of features has another content (--features)")
    gone, new = (
        sorted(set(a.get("classes", ())) - set(b.get("classes", ())))
        for a, b in ((before, after), (after, before))
    )
    changes += [f"{listed(gone)} is no class any more"] if gone else []
    changes += [f"{listed(new)} is a new class"] if new else []
    return "; ".join(changes) or "as many images, but not the same files"


def _refuse_differences(known: SearchConfig, config: SearchConfig, where: str) -> None:
    """Raises ConfigError if the configs differ in settings that a resumed search must keep.

    A changed space alone leads to a new study, so the message lists the space's changes only if
    no other setting differs.
    """
    changed = differences(known, config)
    changed = tuple(line for line in changed if not line.startswith("space.")) or changed
    if changed:
        raise ConfigError(
            "a resumed search cannot change what its trials have in common; changed since "
            f"{where} was written:\n" + "\n".join(f"  {line}" for line in changed)
        )
