"""The contract at its limits: rules in both forms, values of ranges, names, cuts to fit, and a sweep's end; expected
values are by hand."""

from collections.abc import Callable
from types import SimpleNamespace as Owner
from typing import Any

import pytest
from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.resource import describe_invalid
from anomaly_api.rules import (
    Rule,
    SchemaRule,
    at_most,
    at_most_one,
    default_when,
    exactly_one,
    immutable_once_started,
    not_yet,
    only_when,
    only_with,
    required_when,
    unset_when,
)
from anomaly_api.run import TERMINATION_LIMIT, RunSummary, ca_path, mount_path, registry_env, s3_env
from anomaly_api.status import Artifacts, Curve, Device, MetricValues, Stage, StepFailure
from anomaly_api.storage import LocationRole
from anomaly_api.sweep_check import Fault, check_sweep, describe_faults
from anomaly_api.sweep_end import failure_at_end, remeasured, unused_seed, winners_spec
from anomaly_api.sweep_exchange import (
    InvalidTrial,
    RunOfPoint,
    SweepEnd,
    TrialRecord,
    epochs_of,
    filled,
    gpu_hours,
    trial_name,
    watched_metric,
)
from anomaly_api.sweep_fields import offer, searchable_paths, unknown_field
from anomaly_api.sweep_points import points
from anomaly_api.sweep_space import FloatRange, IntRange, When, canonical, leads_into
from anomaly_api.sweep_status import BestTrial, StopReason, SweepStatus
from anomaly_api.sweep_trial import put, remove
from anomaly_api.sweep_values import Candidate, Dimension, dimensions
from anomaly_api.threshold_goals import goal_rules
from support.optional import not_none
from support.sweep_specs import sweep_spec

FEATURES = {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}
SEED = {"path": "dataset.seed", "int": {"low": 0, "high": 9}}

# Rules between fields

WHERE = (("the_model", "its_name"), ("x", "y"), "it cannot")
AT_WORK = (
    "!has(oldSelf.status) || !has(oldSelf.status.startTime) || "
    "(has(oldSelf.status.phase) && oldSelf.status.phase in ['Complete', 'Failed', 'Suspended']) || "
    "(has(self.spec.theBlock) == has(oldSelf.spec.theBlock) && (!has(self.spec.theBlock) || ({})))"
)
CANNOT_CHANGE = (
    "spec.theBlock cannot change while the run is at work: wait for its end, or suspend it (runPolicy.suspend) and "
    "change it then; it runs again from the beginning"
)


@pytest.mark.parametrize(
    ("make", "cel", "message", "field"),
    [
        (
            lambda: exactly_one("s3", "own_disk"),
            "(has(self.s3) ? 1 : 0) + (has(self.ownDisk) ? 1 : 0) == 1",
            "exactly one of s3, ownDisk must be set",
            None,
        ),
        (
            lambda: at_most_one("a_b", "c_d"),
            "!has(self.aB) || !has(self.cD)",
            "at most one of aB, cD may be set",
            None,
        ),
        (
            lambda: required_when("a_b", "c_d", "x"),
            "self.cD != 'x' || has(self.aB)",
            "aB is required when cD is x",
            None,
        ),
        (
            lambda: only_when("a_b", "c_d", "x", "y"),
            "!has(self.aB) || self.cD in ['x', 'y']",
            "aB may be set only when cD is x or y",
            "aB",
        ),
        (
            lambda: only_with("a_b", "c_d"),
            "!has(self.aB) || has(self.cD)",
            "aB may be set only together with cD",
            "aB",
        ),
        (lambda: at_most("a_b", "c_d"), "self.aB <= self.cD", "aB may be at most cD", "aB"),
        (
            lambda: not_yet("a_b"),
            "!has(self.aB)",
            "aB is not supported by this version of anomaly-operator; remove it",
            "aB",
        ),
        (
            lambda: unset_when("in_block", "a_b", *WHERE),
            "!has(self.inBlock.aB) || !(self.theModel.itsName in ['x', 'y'])",
            "aB cannot be set for this model: it cannot",
            "inBlock.aB",
        ),
        (
            lambda: default_when("in_block.a_b", "z", *WHERE),
            "self.inBlock.aB == \"z\" || !(self.theModel.itsName in ['x', 'y'])",
            "aB cannot be set for this model: it cannot",
            "inBlock.aB",
        ),
        (
            lambda: immutable_once_started("the_block"),
            AT_WORK.format("self.spec.theBlock == oldSelf.spec.theBlock"),
            CANNOT_CHANGE,
            "spec.theBlock",
        ),
        (
            lambda: immutable_once_started("the_block", fields=("a_b",), of_lists=("items.key",)),
            AT_WORK.format(
                "has(self.spec.theBlock.aB) == has(oldSelf.spec.theBlock.aB) && "
                "(!has(self.spec.theBlock.aB) || self.spec.theBlock.aB == oldSelf.spec.theBlock.aB) && "
                "self.spec.theBlock.items.map(one, has(one.key) ? [one.key] : []) == "
                "oldSelf.spec.theBlock.items.map(one, has(one.key) ? [one.key] : [])"
            ),
            CANNOT_CHANGE,
            "spec.theBlock",
        ),
    ],
)
def test_what_the_api_server_is_told(make: Callable[[], Rule], cel: str, message: str, field: str | None) -> None:
    rule = make()
    assert (rule.cel, rule.message, rule.field) == (cel, message, field)
    where = {"fieldPath": f".{field}"} if field else {}
    assert rule.to_crd() == {"rule": cel, "message": message, "reason": "FieldValueInvalid"} | where
    assert rule.located_message() == (f"{field}: {message}" if field else message)


def owner(a_b: Any = None, c_d: Any = None, name: str = "w") -> Owner:
    """Return an object with two fields, the first one also in a block, and a model of this name."""
    return Owner(a_b=a_b, c_d=c_d, in_block=Owner(a_b=a_b), the_model=Owner(its_name=name))


@pytest.mark.parametrize(
    ("make", "kept", "broken"),
    [
        (lambda: exactly_one("a_b", "c_d"), [owner(0), owner(None, "")], [owner(), owner(1, 1)]),
        (lambda: at_most_one("a_b", "c_d"), [owner(), owner(1), owner(None, 1)], [owner(0, 0)]),
        (lambda: required_when("a_b", "c_d", "x"), [owner(), owner(1, "x"), owner(None, "y")], [owner(None, "x")]),
        (
            lambda: only_when("a_b", "c_d", "x", "y"),
            [owner(), owner(1, "x"), owner(1, "y"), owner(None, "z")],
            [owner(0, "z")],
        ),
        (lambda: only_with("a_b", "c_d"), [owner(), owner(1, 0), owner(None, 1)], [owner(0)]),
        (lambda: at_most("a_b", "c_d"), [owner(1, 2), owner(2, 2)], [owner(3, 2)]),
        (lambda: not_yet("a_b"), [owner()], [owner(0)]),
        (lambda: unset_when("in_block", "a_b", *WHERE), [owner(1), owner(name="x")], [owner(0, name="y")]),
        (
            lambda: default_when("in_block.a_b", "z", *WHERE),
            [owner("v"), owner("z", name="x")],
            [owner("v", name="x"), owner(None, name="y")],
        ),
    ],
)
def test_what_a_rule_refuses_without_a_cluster(
    make: Callable[[], Rule], kept: list[Owner], broken: list[Owner]
) -> None:
    holds = not_none(make().holds)
    assert all(map(holds, kept))
    assert not any(map(holds, broken))


def test_what_only_the_api_server_can_compare_is_not_checked_without_it() -> None:
    assert immutable_once_started("model").holds is None


def test_a_rule_of_the_schema_may_have_no_field() -> None:
    assert SchemaRule({}, "one of them", bool).located_message() == "one of them"
    assert SchemaRule({}, "one of them", bool, "aB").located_message() == "aB: one of them"


def test_each_goal_needs_its_number_and_no_other() -> None:
    assert [rule.message for rule in goal_rules("method")] == [
        "falseAlarmRate is required when method is falseAlarmRate",
        "falseAlarmRate may be set only when method is falseAlarmRate",
        "recall is required when method is recall",
        "recall may be set only when method is recall",
        "cost is required when method is cost",
        "cost may be set only when method is cost",
    ]
    holds = [
        not_none(rule.holds)(Owner(method="recall", recall=None, cost=1, false_alarm_rate=None))
        for rule in goal_rules("method")
    ]
    assert holds == [True, True, False, True, True, False]


# Values of a search


def dimension(values: list[Any] | None = None, of: FloatRange | IntRange | None = None, **fields: Any) -> Dimension:
    return Dimension("a.b", "here", tuple(map(Candidate, values or ())), of, **fields)


@pytest.mark.parametrize(
    ("space", "held", "others"),
    [
        (dimension([1, "a", [1, 2.0], None]), [1, 1.0, "a", [1, 2], None], [True, "1", [2, 1], 0]),
        (dimension(of=IntRange(low=2, high=4)), [2, 3, 4, 4.0], [1, 5, 2.5, True, "3", None]),
        (dimension(of=IntRange(low=1, high=7, step=3)), [1, 4, 7], [2, 3, 6]),
        (dimension(of=IntRange(low=1, high=2**40)), [2**30], [2**30 + 0.5]),
        (dimension(of=FloatRange(low=0, high=1)), [0, 1, 0.123], [-1e-12, 1.0001, False, "0.5"]),
        (dimension(of=FloatRange(low=0, high=1, step=0.1)), [0, 0.3, 0.1 + 0.2, 1.0], [0.35, 0.05, 0.3001]),
        (dimension(of=FloatRange(low=1, high=2, step=0.5)), [1 + 2e-10], [1 + 1e-8]),
        (dimension(of=FloatRange(low=0.1, high=1, step=0.3)), [0.1, 0.4, 1], [0.2, 0.3, 0.9]),
    ],
)
def test_the_values_of_a_dimension(space: Dimension, held: list[Any], others: list[Any]) -> None:
    assert [value for value in held if not space.holds(value)] == []
    assert [value for value in others if space.holds(value)] == []


def test_a_dimension_exists_where_an_earlier_one_has_a_wanted_value() -> None:
    dependent = dimension([1], when=When.model_validate({"path": "c.d", "in": [1, "x"]}))
    assert dependent.exists({"c.d": 1.0})
    assert dependent.exists({"c.d": "x"})
    assert not dependent.exists({"c.d": True})
    assert not dependent.exists({}), "nor where that one does not exist itself"
    assert dimension([1]).exists({})


def test_each_value_that_an_earlier_one_equals_is_repeated() -> None:
    assert [str(each) for each in dimension([{"a": 1, "b": 2}, 3, {"b": 2.0, "a": 1}, 3.0, 3, True]).repeated()] == [
        '{"b": 2.0, "a": 1}',
        "3.0",
        "3",
    ]
    ends = (Candidate(0), Candidate(0.0))
    assert list(Dimension("a.b", "here", ends, FloatRange(low=0, high=1)).repeated()) == []


@pytest.mark.parametrize(
    ("space", "tried"),
    [
        ({"int": {"low": 0, "high": 9}}, [(0, ".int.low"), (1, ".int"), (9, ".int.high")]),
        ({"int": {"low": 4, "high": 66, "step": 4}}, [(4, ".int.low"), (8, ".int"), (64, ".int.high")]),
        ({"int": {"low": 1, "high": 5, "step": 2}}, [(1, ".int.low"), (3, ".int"), (5, ".int.high")]),
        ({"int": {"low": 1, "high": 4, "step": 3}}, [(1, ".int.low"), (4, ".int.high")]),
        ({"float": {"low": 1, "high": 3}}, [(1, ".float.low"), (1.763932, ".float"), (3, ".float.high")]),
        (
            {"float": {"low": 0, "high": 0.3, "step": 0.1}},
            [(0, ".float.low"), (0.1, ".float"), (0.3, ".float.high")],
        ),
        (
            {"float": {"low": 0.09, "high": 1, "step": 0.07}},
            [(0.09, ".float.low"), (0.16, ".float"), (1, ".float.high")],
        ),
        ({"choices": ["a", "b"]}, [("a", ".choices[0]"), ("b", ".choices[1]")]),
    ],
)
def test_the_values_at_which_a_parameter_is_checked(space: dict[str, Any], tried: list[tuple[Any, str]]) -> None:
    (found,) = dimensions(not_none(sweep_spec({"path": "transforms.a", **space}).sweep))
    assert [(each.value, each.place) for each in found.candidates] == tried


def test_what_a_sweep_sets_has_its_place() -> None:
    paths = [{"path": "dataset.category", "values": ["a"]}, {"path": "dataset.seed", "values": [3, 4]}]
    fidelity = {"path": "dataset.fraction", "values": [0.5, 1.0]}
    spec = sweep_spec(FEATURES, replicates={"paths": paths}, fidelity=fidelity)
    found = dimensions(not_none(spec.sweep))
    assert [(each.path, each.place, each.searched, each.values()) for each in found] == [
        ("model.padim.nFeatures", "spec.sweep.parameters[0]", True, [1, 2, 64]),
        ("dataset.category", "spec.sweep.replicates.paths[0]", False, ["a"]),
        ("dataset.seed", "spec.sweep.replicates.paths[1]", False, [3, 4]),
        ("dataset.fraction", "spec.sweep.fidelity", False, [0.5, 1]),
    ]
    assert [each.place for each in found[2].candidates] == [".values[0]", ".values[1]"]
    assert [each.place for each in found[3].candidates] == [".values[0]", ".values[1]"]
    assert isinstance(found[3].values()[1], int), "as the field is in JSON"


def test_a_path_leads_into_itself_and_what_it_is_below() -> None:
    assert leads_into("dataset.seed", "dataset")
    assert leads_into("dataset.seed", "dataset.seed")
    assert not leads_into("dataset.seeds", "dataset.seed")
    assert not leads_into("dataset", "dataset.seed")


def test_one_text_for_all_ways_to_write_a_value() -> None:
    assert canonical({"b": (1.0, [True]), "a": 0.5}) == '{"a": 0.5, "b": [1, [true]]}'


def space_of(*sizes: int) -> list[Dimension]:
    return [
        Dimension(f"a.f{index}", "here", [Candidate(value) for value in range(size)])
        for index, size in enumerate(sizes)
    ]


def test_few_points_are_all_tried() -> None:
    found = [tuple(point.values()) for point in points(space_of(10, 20), {})]
    assert found == [(first, second) for first in range(10) for second in range(20)]


def test_of_many_points_those_that_differ_in_one_value_come_first() -> None:
    found = [tuple(point.values()) for point in points(space_of(3, 67), {})]
    assert found[:4] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert found[68] == (0, 66)
    assert len(found) == 69 + 100, "then as many at random"
    assert found == [tuple(point.values()) for point in points(space_of(3, 67), {})], "the same each time"
    assert len(list(points(space_of(150, 2), {}))) == 200


def test_allowed_values_take_the_place_of_a_dimensions_own() -> None:
    assert list(points(space_of(2, 2), {"a.f1": [Candidate(7)]})) == [{"a.f0": 0, "a.f1": 7}, {"a.f0": 1, "a.f1": 7}]


@pytest.mark.parametrize(
    ("path", "known", "offered"),
    [
        ("a.seeds", ("a.seed", "b.other"), "; did you mean a.seed?"),
        ("abcd", ("abce", "abcf", "abcg", "abch"), "; did you mean abch or abcg or abcf?"),
        ("zzz", ("a.seed",), ""),
        ("abxyz", ("abcde",), ""),
    ],
)
def test_paths_that_are_much_alike_are_offered(path: str, known: tuple[str, ...], offered: str) -> None:
    """Two of five characters in common are 0.4: too few."""
    assert offer(path, known) == offered


def test_every_field_that_a_sweep_may_set_is_known() -> None:
    paths = searchable_paths.__wrapped__()
    assert [path for path in paths if path.startswith("transforms.")] == [
        "transforms.inputSize",
        "transforms.inputSize.height",
        "transforms.inputSize.width",
        "transforms.normalization",
        "transforms.bitDepth",
        "transforms.augmentations",
        "transforms.augmentations.horizontalFlip",
        "transforms.augmentations.verticalFlip",
        "transforms.augmentations.rotationDegrees",
        "transforms.augmentations.brightness",
        "transforms.augmentations.contrast",
    ]
    blocks = {"dataset", "transforms", "model", "training", "evaluation", "export", "scheduling"}
    assert {path.partition(".")[0] for path in paths} == blocks


def test_a_map_of_a_spec_has_any_key() -> None:
    assert unknown_field("scheduling.resources.limits.some/thing") is None
    assert unknown_field("scheduling.resources.limits.some.more") is not None


def test_fields_are_set_and_removed_by_path() -> None:
    document: dict[str, Any] = {"a": {"b": 1}}
    put(document, "a.c.d", 2)
    put(document, "a.b", 3)
    assert document == {"a": {"b": 3, "c": {"d": 2}}}
    for path in ("a.c.d", "a.c.x", "a.b.x", "x.y"):
        remove(document, path)
    assert document == {"a": {"b": 3, "c": {}}}


def faults(*parameters: dict[str, Any], change: dict[str, Any] | None = None, **sweep: Any) -> list[str]:
    return list(map(str, check_sweep(sweep_spec(*parameters, change=change, **sweep))))


@pytest.mark.parametrize(
    ("change", "metric", "remedy"),
    [
        ({}, "image.F1Max", "add F1Max to evaluation.metrics.image"),
        ({}, "pixel.AUROC", "dataset.task is classification, which has image metrics alone"),
        ({}, "synthetic.pixelAUPR", "add dataset.splits.syntheticDefects"),
        (
            {"dataset": {"splits": {"syntheticDefects": {}}}},
            "synthetic.pixelAUPR",
            "dataset.task is classification, which has image metrics alone",
        ),
        (
            {"dataset": {"splits": {"syntheticDefects": {}}}, "evaluation": {"metrics": {"image": ["F1Max"]}}},
            "synthetic.imageAUPR",
            "add AUPR to evaluation.metrics.image",
        ),
    ],
)
def test_a_metric_that_no_trial_computes_comes_with_what_helps(
    change: dict[str, Any], metric: str, remedy: str
) -> None:
    wanted = [{"metric": metric, "min": 0.5}]
    computed = {"objectives": [{"metric": "performance.trainSeconds", "goal": "minimize"}]}
    assert faults(SEED, change=change, constraints=wanted, **computed) == [
        f"spec.sweep.constraints[0].metric: {metric} is not computed: {remedy}"
    ]


@pytest.mark.parametrize(
    ("path", "choices", "metric"),
    [
        ("evaluation.metrics.image", [["F1Max"], ["AUROC"]], "image.F1Max"),
        ("dataset.task", ["classification", "segmentation"], "pixel.AUROC"),
        ("dataset.splits.syntheticDefects.images", [10, 20], "synthetic.imageAUROC"),
    ],
)
def test_where_the_metrics_are_searched_none_is_missed(path: str, choices: list[Any], metric: str) -> None:
    metrics = {"evaluation": {"metrics": {"image": ["AUROC"]}}}
    wanted = [{"metric": metric, "goal": "maximize"}]
    assert faults(SEED, {"path": path, "choices": choices}, change=metrics, objectives=wanted) == []


@pytest.mark.parametrize(("count", "more"), [(0, ""), (5, ""), (6, " (and 1 more)"), (7, " (and 2 more)")])
def test_five_faults_of_a_sweep_are_told(count: int, more: str) -> None:
    told = "; ".join(f"f{index}: bad" for index in range(min(count, 5)))
    assert describe_faults([Fault(f"f{index}", "bad") for index in range(count)]) == told + more


def test_all_models_that_lack_a_parameter_are_named() -> None:
    names = {"path": "model.name", "choices": ["padim", "patchcore", "dfm"]}
    assert faults(names, {"path": "model.patchcore.numNeighbors", "choices": [3, 9]}) == [
        "spec.sweep.parameters[1]: model.patchcore.numNeighbors exists for patchcore alone, and padim, dfm would have "
        "it too: add when: {path: model.name, in: [patchcore]}"
    ]


# A sweep's end

FOUND = SweepStatus(best=(BestTrial(number=1, objectives={"image.AUROC": 0.5}),))


@pytest.mark.parametrize(
    ("end", "found", "failure"),
    [
        (SweepEnd(StopReason.MAX_TRIALS, "all done"), FOUND, None),
        (
            SweepEnd(StopReason.DEADLINE_EXCEEDED, "d" * 1025),
            FOUND,
            StepFailure(reason=Reason.DEADLINE_EXCEEDED, message="d" * 1024),
        ),
        (
            SweepEnd(StopReason.MAX_FAILED, "f" * 1025),
            FOUND,
            StepFailure(reason=Reason.TRIALS_FAILED, message="f" * 1024),
        ),
        (
            SweepEnd(StopReason.EXHAUSTED, "all done"),
            SweepStatus(),
            StepFailure(reason=Reason.TRIALS_FAILED, message="no trial can be used: all done"),
        ),
        (
            SweepEnd(StopReason.EXHAUSTED, "e" * 1024),
            SweepStatus(),
            StepFailure(reason=Reason.TRIALS_FAILED, message="no trial can be used: " + "e" * 1002),
        ),
    ],
)
def test_why_a_search_ended_without_a_point(end: SweepEnd, found: SweepStatus, failure: StepFailure | None) -> None:
    assert failure_at_end(end, found) == failure


def test_values_of_other_replicated_fields_are_no_seeds() -> None:
    paths = [
        {"path": "dataset.limits.maxUnreadableImages", "values": [43, 44]},
        {"path": "dataset.seed", "values": [45, 46.0]},
    ]
    sweep = not_none(sweep_spec(FEATURES, replicates={"paths": paths}).sweep)
    assert unused_seed(42, sweep) == 43
    assert unused_seed(44, sweep) == 47, "46.0 is 46 in JSON"


def test_one_searched_seed_among_other_parameters_is_kept() -> None:
    trained = winners_spec(sweep_spec(FEATURES, SEED), {"model.padim.nFeatures": 5, "dataset.seed": 4})
    assert trained["dataset"]["seed"] == 4


def test_only_what_was_measured_again_is_compared() -> None:
    best = BestTrial(number=3, objectives={"image.AUROC": 0.75, "performance.trainSeconds": 20.0})
    again = remeasured(not_none(sweep_spec(FEATURES).sweep), best, MetricValues(image={"AUROC": 1.0}), 43)
    assert not_none(again).objectives == {"image.AUROC": 1.0}
    assert not_none(again).gap == {"image.AUROC": -0.25}


# Names, curves and hours of trials


@pytest.mark.parametrize(
    ("sweep", "name"),
    [
        ("a" * 247, "a" * 247 + "-t0007"),
        ("a" * 248, "a" * 238 + "-fdff3ab0-t0007"),
        ("a" * 236 + ".-" + "b" * 20, "a" * 236 + "-c9d6f194-t0007"),
    ],
)
def test_names_that_are_too_long_end_in_eight_digits_of_their_sha256(sweep: str, name: str) -> None:
    assert trial_name(sweep, RunOfPoint(7)) == name


def test_the_first_run_of_a_sweep_has_no_number_in_names() -> None:
    assert trial_name("a", RunOfPoint(7)) == trial_name("a", RunOfPoint(7), 1) == "a-t0007"
    assert trial_name("a", RunOfPoint(7), 2) == "a-s2-t0007"


def test_an_invalid_point_is_kept_as_infeasible() -> None:
    invalid = InvalidTrial(RunOfPoint(3, 1, 2), "a-t0003", {"dataset.seed": 4}, "cannot be", {})
    assert invalid.record() == TrialRecord(3, 1, 2, {"dataset.seed": 4}, "Infeasible", reason="InvalidConfig")


def test_a_curve_is_that_of_the_objective_by_epoch_from_0() -> None:
    curve = Curve(metric="imageAUROC", epochs=(1, 3), values=(0.5, 0.75))
    assert epochs_of(curve, "image.AUROC") == {0: 0.5, 2: 0.75}
    assert epochs_of(curve, "pixel.AUROC") == {}
    assert epochs_of(curve, "synthetic.imageAUROC") == {}
    assert epochs_of(curve, None) == epochs_of(None, "image.AUROC") == {}
    synthetic = curve.model_copy(update={"synthetic": True})
    assert epochs_of(synthetic, "synthetic.imageAUROC") == {0: 0.5, 2: 0.75}
    assert epochs_of(synthetic, "image.AUROC") == {}
    assert watched_metric("synthetic.pixelAUPRO") == "pixelAUPRO"


def test_epochs_between_the_points_of_a_curve_have_the_last_value() -> None:
    assert filled({2: 0.5, 5: 0.25, 6: 1.0}) == {2: 0.5, 3: 0.5, 4: 0.5, 5: 0.25, 6: 1.0}
    assert filled({0: 0.5}) == {0: 0.5}
    assert filled({}) == {}


def test_gpu_hours_are_those_of_all_gpus_and_of_no_cpu() -> None:
    assert gpu_hours(Device(name="NVIDIA H200", count=3, provider="torch cuda"), 1800) == 1.5
    assert gpu_hours(Device(name="CPU", count=3, provider="torch cpu"), 1800) == 0
    assert gpu_hours(None, 1800) == 0


# What passes between operator and pod


def test_where_a_pod_finds_its_credentials_and_volumes() -> None:
    assert s3_env(LocationRole.OUTPUT, "AWS_REGION") == "ANOMALY_OUTPUT_AWS_REGION"
    assert registry_env("MLFLOW_TRACKING_TOKEN") == "ANOMALY_MODEL_MLFLOW_TRACKING_TOKEN"
    assert ca_path(LocationRole.DATASET) == "/etc/anomaly-ca/dataset/ca.crt"
    assert mount_path(LocationRole.WEIGHTS) == "/mnt/weights"


def long_summary(message: str) -> RunSummary:
    metrics = {f"metric-{index:02d}": 0.5 for index in range(32)}
    return RunSummary(
        reason=Reason.DATA_INVALID,
        message=message,
        stage=Stage.FETCH,
        metrics=MetricValues(image=metrics, pixel=metrics),
        warnings=tuple(str(index) * 256 for index in range(8)),
    )


def test_a_summary_is_cut_only_if_it_is_longer_than_the_limit() -> None:
    shorter = long_summary("m").model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)
    room = TERMINATION_LIMIT - len(shorter) + 1
    assert 512 < room < 1024
    whole = long_summary("m" * room)
    text = whole.to_termination_message()
    assert len(text) == TERMINATION_LIMIT
    assert RunSummary.model_validate_json(text) == whole
    cut = RunSummary.model_validate_json(long_summary("m" * (room + 1)).to_termination_message())
    left_out = "warnings left out here: 6; all are in the pod's log"
    assert (cut.message, cut.warnings) == ("m" * 512, ("0" * 256, "1" * 256, left_out))
    assert cut.metrics == whole.metrics


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (8, tuple("01234567")),
        (9, (*"0123456", "warnings left out here: 2; all are in the pod's log")),
        (30, (*"0123456", "warnings left out here: 23; all are in the pod's log")),
    ],
)
def test_a_summary_has_all_warnings_and_its_message_eight_of_which_the_last_counts(
    count: int, told: tuple[str, ...]
) -> None:
    warnings = tuple(str(index) for index in range(count))
    summary = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, warnings=warnings)
    assert RunSummary.model_validate_json(summary.to_termination_message()).warnings == told
    assert summary.warnings == warnings


def test_where_nothing_but_metrics_fits_warnings_are_counted() -> None:
    metrics = {f"metric-{index:02d}-{'x' * 36}": 0.5 for index in range(32)}
    summary = RunSummary(
        reason=Reason.COMPLETE,
        stage=Stage.DONE,
        metrics=MetricValues(image=metrics, pixel=metrics),
        artifacts=Artifacts(root="s3://r", report="s3://r/report.json"),
        warnings=("w" * 256,) * 5,
    )
    told = RunSummary.model_validate_json(summary.to_termination_message())
    assert told.warnings == ("warnings left out here: 5; all are in report.json and the pod's log",)
    assert told.metrics == summary.metrics


def test_of_the_longest_summary_why_and_where_remain() -> None:
    metrics = {f"metric-{'x' * 40}-{index}": index / 7 for index in range(32)}
    artifacts = Artifacts(root="s3://" + "a" * 500, report="s3://" + "b" * 500)
    summary = RunSummary(
        reason=Reason.DATA_INVALID,
        message="\u00df" * 1024,
        stage=Stage.FETCH,
        metrics=MetricValues(image=metrics, pixel=metrics),
        artifacts=artifacts,
    )
    assert RunSummary.model_validate_json(summary.to_termination_message()) == RunSummary(
        reason=Reason.DATA_INVALID, message="\u00df" * 512, stage=Stage.FETCH, artifacts=artifacts
    )


@pytest.mark.parametrize(("length", "kept"), [(1024, {"root", "report", "model"}), (4000, {"root"})])
def test_a_summary_with_the_longest_addresses_fits(length: int, kept: set[str]) -> None:
    """The prefix of an S3 location has 1024 characters at most, and an address below it each of nine artifacts."""
    root = "p" * length
    names = ("report", "html", "model", "checkpoint", "predictions", "visualizations", "profile", "sweep")
    artifacts = Artifacts(root=root, **{name: f"{root}/{name}" for name in names})
    metrics = MetricValues(image={"AUROC": 0.5})
    summary = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, metrics=metrics, artifacts=artifacts)
    assert RunSummary.model_validate_json(summary.to_termination_message()) == summary.model_copy(
        update={"artifacts": Artifacts(**artifacts.model_dump(include=kept))}
    )


def test_a_summary_that_is_too_long_in_every_way_still_says_why() -> None:
    """A control character takes six bytes in JSON."""
    artifacts = Artifacts(root="r" * 1100, report="r" * 1110)
    summary = RunSummary(
        reason=Reason.DATA_INVALID, message="\x01" * 1024, stage=Stage.FETCH, artifacts=artifacts, warnings=("w",)
    )
    text = summary.to_termination_message()
    assert len(text) <= TERMINATION_LIMIT
    assert RunSummary.model_validate_json(text) == RunSummary(
        reason=Reason.DATA_INVALID, message="\x01" * 512, stage=Stage.FETCH
    )
    short = summary.model_copy(update={"message": "\x01" * 400})
    assert RunSummary.model_validate_json(short.to_termination_message()).artifacts == Artifacts(root="r" * 1100)


@pytest.mark.parametrize(("wrong", "more"), [(1, ""), (5, ""), (6, " (and 1 more)"), (7, " (and 2 more)")])
def test_five_faults_of_a_manifest_are_told(wrong: int, more: str) -> None:
    document = sweep_spec(SEED).to_json_object() | {f"f{index}": 1 for index in range(wrong)}
    with pytest.raises(ValidationError) as refusal:
        ExperimentSpec.model_validate(document)
    told = "; ".join(f"spec.f{index}: Extra inputs are not permitted" for index in range(min(wrong, 5)))
    assert describe_invalid(refusal.value) == told + more
