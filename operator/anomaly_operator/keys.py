"""How a run is named inside the operator: kind, namespace, name."""

from typing import Literal, NamedTuple, get_args

Kind = Literal["AnomalyExperiment", "AnomalyInference"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RunKey(NamedTuple):
    """Which resource; what is queued."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
