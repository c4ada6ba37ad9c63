"""The identity of a run inside the operator: kind, namespace, name."""

from typing import Literal, NamedTuple, get_args

Kind = Literal["AnomalyExperiment", "AnomalyInference"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RunKey(NamedTuple):
    """Identity of a run's resource; the work queue holds these.

    A resource that is deleted and applied again has the same key; its UID tells the two apart.
    """

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
