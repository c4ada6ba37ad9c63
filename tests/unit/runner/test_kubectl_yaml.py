"""YAML as kubectl reads it. What is expected was printed by kubectl 1.36: create --dry-run=client --output=json."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from anomaly_runner.errors import InvalidConfig
from anomaly_runner.manifests import parse_resource, read_resource
from anomaly_runner.system.kubectl_yaml import read_documents


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("on", True),
        ("y", True),
        ("No", False),
        ("TRUE", True),
        ("yEs", "yEs"),
        ("'yes'", "yes"),
        ("2026-11-28", "2026-11-28"),
        ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00Z"),
        ("010", 8),
        ("09", 9),
        ("0o17", 15),
        ("0o8", "0o8"),
        ("0b11", 3),
        ("0x1F", 31),
        ("0x", "0x"),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("1e3", 1000),
        ("1E3", 1000),
        ("685.230_15e+03", 685230.15),
        ("1e", "1e"),
        ("1e400", "1e400"),
        (".5", 0.5),
        ("5.", 5),
        ("+1", 1),
        ("-0", 0),
        ("1.0", 1),
        ("0123.5", 123.5),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ("~", None),
        ("NULL", None),
        ("", None),
        ("=", "="),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("'a\n\n  b'", "a\nb"),
        ("{1: a, true: b, 1.5: c, 2026-11-28: d}", {"1": "a", "true": "b", "1.5": "c", "2026-11-28": "d"}),
    ],
)
def test_plain_texts(text: str, value: Any) -> None:
    read = read_documents(f"v: {text}\n")[0]["v"]
    assert (read, type(read)) == (value, type(value))


def test_anchors_and_merged_keys() -> None:
    text = "base: &base {x: 1, z: 1}\nafter: {<<: *base, x: 2}\nbefore: {x: 3, <<: *base}\nsame: *base\n"
    read = read_documents(text)[0]
    assert read["after"] == {"x": 2, "z": 1}
    assert read["before"] == {"x": 1, "z": 1}
    assert read["same"] == read["base"]


def test_several_documents_of_which_empty_ones_are_left_out() -> None:
    assert read_documents("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{inner}'] * 10)}]\n" for inner, name in zip("abcdef", "bcdefg", strict=True)
)
"""A few lines that stand for ten million values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key a is given twice"),
        ("{1: a, '1': b}", "the key 1 is given twice"),
        ("v: .inf", "no finite number"),
        ("v: -.Inf", "no finite number"),
        ("v: .nan", "no finite number"),
        ("{~: a}", "a key has to be a text"),
        ("{[1]: a}", "a key has to be a text|unhashable"),
        ("v: !!binary aGVsbG8=", "is none of JSON's"),
        ("v: !!python/object:os.system x", "could not determine a constructor"),
        ("a: &a [*a]", "recursive"),
        (LAUGHS, "more than"),
        ("a: [", "expected"),
    ],
)
def test_what_json_cannot_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        read_documents(text)


EXPERIMENT: dict[str, Any] = {
    "apiVersion": "anomalyops.io/v1alpha1",
    "kind": "AnomalyExperiment",
    "metadata": {"name": "screws", "namespace": "factory"},
    "spec": {
        "dataset": {"source": {"s3": {"uri": "s3://data"}}},
        "model": {"name": "padim"},
        "output": {"s3": {"uri": "s3://results"}},
    },
}


def changed(**blocks: Any) -> dict[str, Any]:
    return EXPERIMENT | {"spec": EXPERIMENT["spec"] | blocks}


@pytest.mark.parametrize(
    "blocks",
    [
        {"output": {"s3": {"uri": "s3://results"}, "keepCheckpoint": "true"}},
        {"output": {"s3": {"uri": "s3://results"}, "keepCheckpoint": 1}},
        {"training": {"trainBatchSize": "3"}},
        {"training": {"trainBatchSize": True}},
        {"training": {"trainBatchSize": 1.5}},
        {"dataset": EXPERIMENT["spec"]["dataset"] | {"category": 5}},
        {"notAField": None},
    ],
)
def test_no_value_is_converted_to_another_type(blocks: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_resource(changed(**blocks))


def test_nulls_are_unset_fields() -> None:
    nulls = changed(dataset=EXPERIMENT["spec"]["dataset"] | {"seed": None, "category": None, "splits": None})
    assert parse_resource(nulls) == parse_resource(EXPERIMENT)


def run_of(folder: Path, text: str) -> str:
    file = folder / "run.yaml"
    file.write_text(text)
    return read_resource(file, folder).run.name


def test_other_kinds_beside_a_resource_mean_nothing_to_a_local_run(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}
    assert run_of(tmp_path, yaml.safe_dump_all([secret, EXPERIMENT])) == "screws"
    listed = {"apiVersion": "v1", "kind": "List", "items": [secret, EXPERIMENT]}
    assert run_of(tmp_path, json.dumps(listed)) == "screws"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            yaml.safe_dump_all([EXPERIMENT, EXPERIMENT]),
            "holds AnomalyExperiment screws, AnomalyExperiment screws",
        ),
        ("", "does not hold a resource"),
        ("- a", "does not hold a resource"),
        ("kind: Secret", "kind is 'Secret'; expected AnomalyExperiment or AnomalyInference"),
        ("kind: [", "is not YAML"),
        (yaml.safe_dump(EXPERIMENT) + "kind: AnomalyExperiment\n", "the key kind is given twice"),
    ],
)
def test_a_file_has_one_resource(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(message)):
        run_of(tmp_path, text)
