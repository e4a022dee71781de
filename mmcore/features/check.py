"""Whether a run's encoders can read what its shards will hold; known before any work."""

from __future__ import annotations

from mmcore.config import RunConfig
from mmcore.errors import ConfigError, Problem


def check_encoders(config: RunConfig) -> list[str]:
    """What works and is probably not meant, in sentences.

    Raises ConfigError with every model that is not there or may not be used, and every modality that is stored in a way
    which its encoder cannot read.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    for name, encoder in config.features.items():
        modality = config.data.modalities[name]
        try:
            if found := encoder.problems(name, modality):
                problems += found
                continue
            encoder.sources()
            warnings += encoder.warnings(name, modality)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return warnings
