"""What a threshold is to achieve: a share of false alarms, a share of the defects, or the lowest cost.

An experiment finds such a threshold on its validation images (``evaluation.threshold``), an inference on its labelled
ones (``threshold``).
"""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.names import camel
from anomaly_api.rules import Rule, only_when, required_when

ThresholdGoal = Literal["falseAlarmRate", "recall", "cost"]

_FIELDS = ("false_alarm_rate", "recall", "cost")


class DecisionCosts(Contract):
    """What wrong decisions cost, in any unit."""

    miss: Annotated[float, Field(gt=0, le=1e12)]
    """Cost of a defective part that is taken for good."""
    false_alarm: Annotated[float, Field(gt=0, le=1e12)]
    """Cost of a good part that is taken for anomalous."""
    defect_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of defective parts where the model will work: labelled images often have many more. Unset means the share
    among the labelled images. It is about images; pixels count as they are."""


class GoalSettings(Contract):
    """The number that goes with each goal."""

    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """falseAlarmRate: the share of new good images that may be false alarms, 0.01 for one of a hundred."""
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """recall: the share of the defects that has to be found."""
    cost: DecisionCosts | None = None
    """cost: what a miss and a false alarm cost."""


def goal_rules(discriminator: str) -> tuple[Rule, ...]:
    """The rules of ``GoalSettings``: each field goes with the discriminator's value of the same name, and only then."""
    return tuple(rule(field, discriminator, camel(field)) for field in _FIELDS for rule in (required_when, only_when))
