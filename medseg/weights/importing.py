"""Import an original system's checkpoint file as weights of medseg's network."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.settings import File, takes
from medseg.weights.files import read_state_dict, save_file
from medseg.weights.notice import write_notice
from medseg.weights.original import ImportReport, import_with_report, licence_notice, read_config

__all__ = ["ImportWeightsSettings", "import_weights"]


@dataclass(frozen=True, kw_only=True)
class ImportWeightsSettings:
    """Which checkpoint is imported where.

    Attributes:
        system: original system, such as sshunet.
        architecture: class of the original's network (default: the config's, or the only one).
        config: JSON or YAML of its constructor's arguments, or the original's own config.
        checkpoint: checkpoint of the original.
        output: file for medseg's weights.
    """

    system: str
    architecture: str | None = None
    config: File
    checkpoint: File
    output: File = "models/model.pt"


@takes(ImportWeightsSettings)
def import_weights(settings: ImportWeightsSettings) -> ImportReport:
    """Turn an original system's checkpoint into weights of medseg's network (models/model.pt), and report every key.

    Whose they are and on what terms is written into the bundle's docs, and into those of runs that start from them.

    Raises:
        ConfigError: unknown system, architecture or argument, or a config that cannot be read.
        ModelError: keys or shapes that do not fit, or a tensor that holds NaN or infinity.
    """
    architecture, constructor = read_config(settings.config, settings.system, settings.architecture)
    network, report = import_with_report(
        settings.system, architecture, constructor, read_state_dict(settings.checkpoint)
    )
    save_file(network.state_dict(), settings.output)
    write_notice(settings.output, licence_notice(report))
    return report
