"""Hyper-parameter sweeps: a search space over fields of the spec, how it is searched, and when the search ends."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.model import MODEL_NAMES, ONE_PASS_MODELS
from anomaly_api.primitives import Name
from anomaly_api.rules import Rule, SchemaRule, exactly_one, only_when
from anomaly_api.sweep_space import SearchParameter, SpecPath, Value, Values, leads_into, searchable

AlgorithmName = Literal["grid", "random", "sobol", "tpe", "cmaes"]
MetricPath = Literal[
    "image.AUROC",
    "image.AUPR",
    "image.F1Score",
    "image.F1Max",
    "image.Precision",
    "image.Recall",
    "image.Accuracy",
    "pixel.AUROC",
    "pixel.AUPR",
    "pixel.F1Score",
    "pixel.F1Max",
    "pixel.Precision",
    "pixel.Recall",
    "pixel.AUPRO",
    "pixel.IoU",
    "pixel.Dice",
    "synthetic.imageAUROC",
    "synthetic.imageAUPR",
    "synthetic.pixelAUROC",
    "synthetic.pixelAUPR",
    "synthetic.pixelAUPRO",
    "performance.latencyMilliseconds",
    "performance.latencyMillisecondsP90",
    "performance.imagesPerSecond",
    "performance.modelBytes",
    "performance.peakMemoryBytes",
    "performance.peakGpuMemoryBytes",
    "performance.trainSeconds",
]
"""A metric of ``status.metrics``: its group, and its name there. Those of synthetic defects are for good parts."""

MODEL_NAME = "model.name"
VALIDATED_METRICS = ("image.AUROC", "image.F1Max", "pixel.AUROC", "synthetic.imageAUROC", "synthetic.pixelAUROC")
"""Metrics that a validation computes during training, so that a curve shows them."""

MAX_PARAMETERS = 32
MAX_TRIALS = 100_000
USUAL_TRIALS = 20
"""Points of a sweep that does not say how many, unless they are those of a grid."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class TpeSettings(Contract):
    """Settings of the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

    startup_trials: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Results it waits for; until then, points spread evenly over the space are tried."""
    candidates: Annotated[int, Field(ge=1, le=10_000)] = 24
    """Points that are drawn and compared for each that is suggested."""


class CmaesSettings(Contract):
    """Settings of the covariance matrix adaptation evolution strategy (Hansen, arXiv 1604.00772)."""

    sigma: Annotated[float, Field(gt=0, le=1)] | None = None
    """First step size, as a share of each parameter's range; unset means a sixth."""
    population_size: Annotated[int, Field(ge=2, le=10_000)] | None = None
    """Trials of a generation; unset means 4 + 3 ln(number of parameters)."""


class Algorithm(Contract):
    """How points are found, and its settings."""

    rules = (only_when("tpe", "name", "tpe"), only_when("cmaes", "name", "cmaes"))

    name: AlgorithmName = "tpe"
    """grid: every point, where each range has a step. random: independent draws. sobol: points spread evenly over the
    space. tpe: tree-structured Parzen estimator. cmaes: covariance matrix adaptation, for ranges alone."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of all draws: the same spec and results give the same points."""
    tpe: TpeSettings | None = None
    """Settings of tpe."""
    cmaes: CmaesSettings | None = None
    """Settings of cmaes."""


class Objective(Contract):
    """What is optimised."""

    metric: MetricPath
    """A metric of the trials' status.metrics."""
    goal: Literal["maximize", "minimize"]
    """Direction."""
    target: Number | None = None
    """A value that is good enough: the sweep ends when a point reaches the targets of all objectives that have one."""


class Constraint(Contract):
    """A bound on a metric. A point that violates it is infeasible, and teaches the search where not to look."""

    rules = (exactly_one("min", "max"),)

    metric: MetricPath
    """A metric of the trials' status.metrics."""
    min: Number | None = None
    """Smallest value allowed."""
    max: Number | None = None
    """Largest value allowed."""


class ReplicatePath(Contract):
    """A field, and the values at which each point is measured."""

    rules = (searchable(),)

    path: SpecPath
    """Field of the spec, such as dataset.seed or dataset.category."""
    values: Values
    """Its values."""


class ReplicatePruning(Contract):
    """When the remaining replicates of a point are saved because its first ones are hopeless."""

    method: Literal["wilcoxon", "none"] = "wilcoxon"
    """wilcoxon: Wilcoxon's signed-rank test of the point's replicates against the same ones of the best point; for one
    objective, as several have no single best. none: every replicate runs, as a complete table needs."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Probability with which one test may give up a point that is as good as the best. Of n replicates, no test can say
    less than 1 / 2^n: at 0.1, four must have run."""
    after_replicates: Annotated[int, Field(ge=1, le=4096)] = 2
    """Replicates that always run."""


class Replicates(Contract):
    """Run each point several times, once for each combination of the values."""

    paths: Annotated[tuple[ReplicatePath, ...], Field(min_length=1, max_length=4)]
    """Fields that differ between the runs of a point."""
    aggregate: Literal["mean", "median", "min", "max"] = "mean"
    """How the values of the runs become the point's; mean also gives its standard error."""
    pruning: ReplicatePruning = ReplicatePruning()
    """Save the replicates of hopeless points."""


class Fidelity(Contract):
    """Look at every point cheaply first, and go on with the best (asynchronous successive halving, Li et al., MLSys
    2020)."""

    rules = (
        searchable(),
        Rule(
            cel="self.values.isSorted() && self.values.all(v, self.values.exists_one(w, w == v))",
            message="values must be ascending, from the cheapest to the full one",
            field="values",
            holds=lambda owner: all(low < high for low, high in zip(owner.values, owner.values[1:], strict=False)),
        ),
    )

    path: SpecPath
    """Field of the spec that makes a run cheaper, such as dataset.fraction or training.maxEpochs."""
    values: Annotated[tuple[Number, ...], Field(min_length=2, max_length=8)]
    """Its values, ascending; results at the last one count, those at earlier ones choose what goes on."""
    reduction: Annotated[int, Field(ge=2, le=100)] = 4
    """One in so many points goes on from each value to the next."""


class Pruning(Contract):
    """Stop trials whose validation curve falls behind, for models that are trained by gradient."""

    method: Literal["median"] = "median"
    """median: a trial stops if its best value so far is worse than the median of the other trials' at that epoch."""
    after_trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Trials that must have finished before any is stopped."""
    after_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    """Epochs at whose end no trial is stopped yet."""


class EarlierExperiment(Contract):
    """A sweep whose trials are known already."""

    name: Name
    """Name of an AnomalyExperiment in the same namespace, with a sweep."""
    top: Annotated[int, Field(ge=1, le=64)] = 5
    """How many of its best points are tried first, those alone that the space holds."""


Point = Annotated[dict[str, Value], Field(max_length=MAX_PARAMETERS)]
"""Values by path. Keys are any text for the API server, which cannot see into maps of values of any type."""


class Start(Contract):
    """Points that are tried before the algorithm's own."""

    points: Annotated[tuple[Point, ...], Field(min_length=1, max_length=64)] | None = None
    """Values by path: {model.name: padim, model.padim.nFeatures: 50}. What a point leaves out is filled in."""
    from_experiment: EarlierExperiment | None = None
    """The best points of an earlier sweep."""


class TrialLimits(Contract):
    """How many trials there are."""

    max: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Most points, however many runs each takes; unset means all of a grid, or 20. May be raised at any time."""
    parallel: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Runs at the same time. May change at any time; trials at work are never stopped for it."""
    max_failed: Annotated[int, Field(ge=0, le=MAX_TRIALS)] = 3
    """Failed trials that are tolerated; one more ends the sweep. Points that cannot work (out of memory, diverged,
    invalid together) are infeasible, not failed."""


class SweepBudget(Contract):
    """Limits on what the sweep may use; it ends at the first of them."""

    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    """GPU-hours over all trials, of the time that their pods are on nodes."""
    wall_clock_seconds: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Seconds since the run of the sweep began; one that goes on after its end has them anew."""
    without_improvement: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Points tried since the best one."""


_PLACES = f"[{', '.join(map(str, range(MAX_PARAMETERS)))}]"
_WHEN_IS_EARLIER = Rule(
    # Lists of literals and no map(): of that, the API server's estimate of the cost knows no bound.
    cel=f"{_PLACES}.all(i, i >= size(self.parameters) || !has(self.parameters[i].when) || "
    f"{_PLACES}.exists(j, j < i && self.parameters[j].path == self.parameters[i].when.path))",
    message="when must name the path of a parameter that is listed earlier",
    field="parameters",
    holds=lambda owner: all(
        parameter.when is None or parameter.when.path in [earlier.path for earlier in owner.parameters[:index]]
        for index, parameter in enumerate(owner.parameters)
    ),
)
_SEARCHED_ONCE = Rule(
    cel="self.parameters.all(p, self.parameters.exists_one(q, (p.path + '.').startsWith(q.path + '.')))",
    message="no two parameters may have the same path, or one below the other's",
    field="parameters",
    holds=lambda owner: _apart([parameter.path for parameter in owner.parameters]),
)
_REPLICATES_ARE_NOT_SEARCHED = Rule(
    cel="!has(self.replicates) || self.replicates.paths.all(r, "
    "self.replicates.paths.exists_one(q, (r.path + '.').startsWith(q.path + '.')) && "
    "!self.parameters.exists(p, (p.path + '.').startsWith(r.path + '.') || (r.path + '.').startsWith(p.path + '.')))",
    message="a field of replicates may be neither searched nor listed twice, nor lie below such a field",
    field="replicates",
    holds=lambda owner: (
        owner.replicates is None
        or _apart([path for place in (owner.parameters, owner.replicates.paths) for path in (p.path for p in place)])
    ),
)
_FIDELITY_IS_NOT_SEARCHED = Rule(
    cel="!has(self.fidelity) || ("
    "!self.parameters.exists(p, (p.path + '.').startsWith(self.fidelity.path + '.') || "
    "(self.fidelity.path + '.').startsWith(p.path + '.')) && "
    "(!has(self.replicates) || !self.replicates.paths.exists(r, (r.path + '.').startsWith(self.fidelity.path + '.') || "
    "(self.fidelity.path + '.').startsWith(r.path + '.'))))",
    message="the field of fidelity may be neither searched nor one of replicates",
    field="fidelity",
    holds=lambda owner: (
        owner.fidelity is None
        or not any(
            leads_into(other.path, owner.fidelity.path) or leads_into(owner.fidelity.path, other.path)
            for other in (*owner.parameters, *(owner.replicates.paths if owner.replicates else ()))
        )
    ),
)
_GRID_HAS_AN_END = Rule(
    cel="self.algorithm.name != 'grid' || self.parameters.all(p, !has(p.float) || has(p.float.step))",
    message="algorithm grid needs a step for every float",
    field="parameters",
    holds=lambda owner: (
        owner.algorithm.name != "grid"
        or all(parameter.float is None or parameter.float.step is not None for parameter in owner.parameters)
    ),
)
_CMAES_NEEDS_NUMBERS = Rule(
    cel="self.algorithm.name != 'cmaes' || self.parameters.all(p, !has(p.when) && (has(p.float) || has(p.int)))",
    message="algorithm cmaes needs ranges that are always searched: no choices and no when",
    field="algorithm",
    holds=lambda owner: (
        owner.algorithm.name != "cmaes"
        or all(parameter.when is None and parameter.choices is None for parameter in owner.parameters)
    ),
)
_OBJECTIVES_DIFFER = Rule(
    cel="self.objectives.all(o, self.objectives.exists_one(q, q.metric == o.metric))",
    message="each objective needs a metric of its own",
    field="objectives",
    holds=lambda owner: len({objective.metric for objective in owner.objectives}) == len(owner.objectives),
)
_CMAES_HAS_ONE_OBJECTIVE = Rule(
    cel="self.algorithm.name != 'cmaes' || size(self.objectives) == 1",
    message="algorithm cmaes needs a single objective",
    field="algorithm",
    holds=lambda owner: owner.algorithm.name != "cmaes" or len(owner.objectives) == 1,
)
_PRUNING_SEES_ITS_METRIC = Rule(
    cel=f"!has(self.pruning) || self.objectives.all(o, o.metric in [{', '.join(map(repr, VALIDATED_METRICS))}])",
    message=f"pruning needs an objective that validations compute: {', '.join(VALIDATED_METRICS)}",
    field="pruning",
    holds=lambda owner: (
        owner.pruning is None or all(objective.metric in VALIDATED_METRICS for objective in owner.objectives)
    ),
)
_MODELS_WITH_EPOCHS = tuple(name for name in MODEL_NAMES if name not in ONE_PASS_MODELS)
_PRUNED_MODELS_HAVE_EPOCHS = SchemaRule(
    schema={
        "anyOf": [
            {"not": {"required": ["pruning"]}},
            {
                "properties": {
                    "parameters": {
                        "items": {
                            "anyOf": [
                                {"not": {"properties": {"path": {"enum": [MODEL_NAME]}}}},
                                {"properties": {"choices": {"items": {"enum": list(_MODELS_WITH_EPOCHS)}}}},
                            ]
                        }
                    }
                }
            },
        ]
    },
    message=f"pruning needs models that are trained in epochs: {', '.join(_MODELS_WITH_EPOCHS)}",
    field="pruning",
    holds=lambda owner: (
        owner.pruning is None
        or not any(
            parameter.path == MODEL_NAME and any(name not in _MODELS_WITH_EPOCHS for name in parameter.choices or ())
            for parameter in owner.parameters
        )
    ),
)


def _single_objective(field: str) -> Rule:
    """Allow the field only with a single objective."""
    return Rule(
        cel=f"!has(self.{field}) || size(self.objectives) == 1",
        message=f"{field} needs a single objective: several have no order in which one trial is worse than another",
        field=field,
        holds=lambda owner: getattr(owner, field) is None or len(owner.objectives) == 1,
    )


def _apart(paths: list[str]) -> bool:
    """Return whether no path is another one or a field below it."""
    return all(sum(leads_into(path, other) for other in paths) == 1 for path in paths)


class Sweep(Contract):
    """Search for the best values of some fields: many trials, each an experiment of its own with this spec and other
    values, and at the end the experiment itself with the best ones."""

    rules = (
        _SEARCHED_ONCE,
        _WHEN_IS_EARLIER,
        _REPLICATES_ARE_NOT_SEARCHED,
        _FIDELITY_IS_NOT_SEARCHED,
        _GRID_HAS_AN_END,
        _CMAES_NEEDS_NUMBERS,
        _CMAES_HAS_ONE_OBJECTIVE,
        _OBJECTIVES_DIFFER,
        _single_objective("fidelity"),
        _single_objective("pruning"),
        _PRUNING_SEES_ITS_METRIC,
        _PRUNED_MODELS_HAVE_EPOCHS,
    )

    parameters: Annotated[tuple[SearchParameter, ...], Field(min_length=1, max_length=MAX_PARAMETERS)]
    """The search space."""
    algorithm: Algorithm = Algorithm()
    """How points are found."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=4)]
    """What is optimised. With several, the points that no other one beats in all of them are found (the Pareto front);
    of these, the best by the first objective is trained at the end."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=8)] = ()
    """What a point must fulfil."""
    replicates: Replicates | None = None
    """Run each point several times, over seeds or categories."""
    fidelity: Fidelity | None = None
    """Look at points cheaply first."""
    pruning: Pruning | None = None
    """Stop bad trials while they train."""
    start: Start | None = None
    """Points that are tried first."""
    trials: TrialLimits = TrialLimits()
    """How many trials there are."""
    budget: SweepBudget | None = None
    """What the sweep may use."""
    final: Literal["train", "report"] = "train"
    """train: train the best point in full at the end, under this experiment's name. report: a leaderboard, and nothing
    trained."""

    @property
    def most_trials(self) -> int:
        """Largest number of points that are tried."""
        return self.trials.max or (MAX_TRIALS if self.algorithm.name == "grid" else USUAL_TRIALS)
