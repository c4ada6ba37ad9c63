"""Flags, their environment variables, and what is used without them."""

from pathlib import Path

import pytest

from anomaly_operator import settings
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.settings import Settings, parse


@pytest.fixture(autouse=True)
def namespace_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the name of the pod's namespace would be."""
    file = tmp_path / "namespace"
    monkeypatch.setattr(settings, "NAMESPACE_FILE", file)
    return file


def test_without_flags_it_watches_everything_with_the_newest_images() -> None:
    found = parse([], {})
    assert found == Settings(
        pods=PodSettings(
            runner_image="anomaly-runner:latest",
            inference_image="anomaly-inference:latest",
            service_url=None,
            image_pull_policy="IfNotPresent",
            node_cache=None,
            installation="anomaly-system",
        ),
        identity=found.identity,
    )


FLAGS = {
    "runner-image": "runner:1",
    "inference-image": "inference:1",
    "image-pull-policy": "Always",
    "service-url": "http://operator:8080",
    "node-cache": "/var/cache",
    "watch-namespaces": "vision,,bottles",
    "address": "10.0.0.7",
    "bind": "::",
    "port": "9090",
    "lease-namespace": "ops",
    "lease-seconds": "30",
    "resync-seconds": "60.5",
    "log-level": "debug",
}
PARSED = Settings(
    pods=PodSettings(
        runner_image="runner:1",
        inference_image="inference:1",
        service_url="http://operator:8080",
        image_pull_policy="Always",
        node_cache="/var/cache",
        installation="ops",
    ),
    namespaces=("vision", "bottles"),
    identity="-",
    address="10.0.0.7",
    bind="::",
    port=9090,
    lease_namespace="ops",
    lease_seconds=30.0,
    resync_seconds=60.5,
    log_level="DEBUG",
)


@pytest.mark.parametrize("by", ["flags", "environment"])
def test_each_flag_has_its_place_and_its_variable(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "pod-1")
    variables = {"ANOMALY_" + name.upper().replace("-", "_"): value for name, value in FLAGS.items()}
    arguments = [f"--{name}={value}" for name, value in FLAGS.items()]
    found = parse(arguments, {}) if by == "flags" else parse([], variables)
    assert {**vars(found), "identity": "-"} == vars(PARSED)
    assert found.identity.startswith("pod-1-")
    assert parse([], {}).identity != parse([], {}).identity, "a process that is started anew is another one"


def test_a_flag_goes_before_its_variable_and_its_variable_before_the_pods_address() -> None:
    environment = {"POD_IP": "10.0.0.1", "ANOMALY_PORT": "9090"}
    found = parse(["--port", "7070"], environment)
    assert (found.port, found.address) == (7070, "10.0.0.1")
    assert parse([], environment | {"ANOMALY_ADDRESS": "10.0.0.2"}).address == "10.0.0.2"


def test_the_lease_is_in_the_namespace_of_the_pod(namespace_file: Path) -> None:
    namespace_file.write_text("vision-system\n")
    found = parse([], {})
    assert (found.lease_namespace, found.pods.installation) == ("vision-system", "vision-system")


def test_what_is_no_number_or_no_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--port", "http"], {})
    assert "--port" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--wrong", "1"], {})
    with pytest.raises(ValueError, match="http"):
        parse([], {"ANOMALY_PORT": "http"})


def test_the_help_names_each_variable_and_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {"ANOMALY_RUNNER_IMAGE": "runner:7"})
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("usage: anomaly-operator [-h]")
    assert "Turns AnomalyExperiments and AnomalyInferences into Jobs. options:" in told
    assert "image that trains (ANOMALY_RUNNER_IMAGE; now: 'runner:7')" in told
    assert told.count("(ANOMALY_") == len(FLAGS)
    assert "None (ANOMALY_" not in told
    assert "(ANOMALY_WATCH_NAMESPACES; now: '')" in told


def test_the_times_of_the_lease_are_in_proportion() -> None:
    found = parse(["--lease-seconds", "30"], {})
    assert (found.lease_renew_deadline, found.lease_retry_seconds) == (20.0, 4.0)
