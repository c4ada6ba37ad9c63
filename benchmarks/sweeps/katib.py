"""What Katib v1beta1 writes for a trial that succeeds, counted in its sources and not measured.

The sources are kubeflow/katib at commit 33c8ff4e (June 2026); places are below pkg/controller.v1beta1. Every call of
the client's Create, Update, Status().Update and Delete, and of the event recorder, on the way of one trial is a write.
"""

import json

WRITES = {
    "create trials: experiment/experiment_controller.go, createTrials": 1,
    "update trials, a finalizer: trial/trial_controller_util.go, updateFinalizers": 1,
    "update_status trials, created, running, succeeded: trial/trial_controller.go, Reconcile": 3,
    "create jobs: trial/trial_controller.go, reconcileJob": 1,
    "delete jobs, unless the template retains them: trial/trial_controller.go, reconcileJob": 1,
    "create events, of the Job: trial/trial_controller.go, trial/trial_controller_util.go": 4,
}
"""Those that each trial has for itself."""
SHARED = {
    "update suggestions: experiment/experiment_controller.go, ReconcileSuggestions": 1,
    "update_status suggestions, with all points: suggestion/suggestion_controller.go, Reconcile": 1,
    "update_status experiments, its counts: experiment/experiment_controller.go, Reconcile": 3,
}
"""Those that trials share which change in the same moment; where each changes alone, it has them for itself."""
DATABASE = {
    "INSERT of the metric's values, by the collector: pkg/db/v1beta1/mysql/mysql.go, RegisterObservationLog": 1,
    "SELECT of them: trial/trial_controller_util.go, UpdateTrialStatusObservation": 1,
}
"""Statements of a trial in the database that Katib keeps metrics in, through its own gRPC server."""
OBJECTS = {"Trial": 1, "Job": 1, "Pod, with a container that collects metrics": 1, "Event": 4}
"""Objects of a trial."""
OBJECTS_OF_A_SWEEP = ("Experiment", "Suggestion", "Deployment", "ReplicaSet", "Service", "Pod of the algorithm")


def suggestion_bytes(trials: int, values: dict[str, object]) -> int:
    """Return the JSON size of status.suggestions, which has the points of all trials and is written with each batch.

    Args:
        trials: how many there are.
        values: the point of one, by parameter (suggestion_types.go, TrialAssignment).
    """
    assignments = [{"name": path, "value": json.dumps(value)} for path, value in values.items()]
    one = {"name": "sweep000-a1b2c3d4", "parameterAssignments": assignments}
    return trials * (len(json.dumps(one, separators=(",", ":"))) + 1)


def print_counts(trials: int, values: dict[str, object]) -> None:
    """Print the counts beside which ours stand."""
    own, shared = sum(WRITES.values()), sum(SHARED.values())
    print("Katib: writes a trial, counted".ljust(34), f"{own} of its own, and up to {shared} shared with others")
    for name, number in (WRITES | SHARED).items():
        print(f"  {number} {name}")
    print("Katib: statements of a database".ljust(34), sum(DATABASE.values()))
    print("Katib: objects a trial".ljust(34), ", ".join(f"{count} {name}" for name, count in OBJECTS.items()))
    print("Katib: objects a sweep".ljust(34), ", ".join(OBJECTS_OF_A_SWEEP))
    size = suggestion_bytes(trials, values) / 1024
    print("Katib: points in the Suggestion".ljust(34), f"{size:.0f} KiB, written anew with each batch")
