"""What becomes of an accepted job: four interchangeable models, jobs in, outcomes out."""

from sim.quality.calibrated import Calibrated
from sim.quality.calibration import Calibration, read_calibration
from sim.quality.claims import Claims
from sim.quality.columns import (
    Jobs,
    Luck,
    Outcomes,
    QualityModel,
    Slot,
    draw_luck,
    reward,
    slot_of,
)
from sim.quality.config import ModelName, QualityConfig
from sim.quality.neutral import Neutral
from sim.quality.physical import Physical

__all__ = [
    "Calibration",
    "Jobs",
    "Luck",
    "ModelName",
    "Neutral",
    "Outcomes",
    "QualityConfig",
    "QualityModel",
    "Slot",
    "draw_luck",
    "models_of",
    "read_calibration",
    "reward",
    "slot_of",
]


def models_of(
    config: QualityConfig, calibration: Calibration | None = None
) -> dict[str, QualityModel]:
    """Every model that can be run, by name: ``calibrated`` only with a calibration."""
    models: dict[str, QualityModel] = {
        "claims": Claims(config),
        "physical": Physical(config),
        "neutral": Neutral(config),
    }
    if calibration is not None:
        models["calibrated"] = Calibrated(config, calibration)
    return models
