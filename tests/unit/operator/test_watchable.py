"""What the operator waits for before it watches, and which namespaces it leaves out."""

from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.watchable import readable_namespaces, wait_until_readable, wait_until_served
from anomaly_operator.errors import ApiError, Forbidden, NotFound, Unavailable
from anomaly_operator.resources import Manifest, Resource
from support.played_loop import PlayedLoop

GONE, REFUSED = NotFound(404, "not served"), Forbidden(403, "no list here")


class Lists(ApiClient):
    """An API server of which nothing but discovery and LISTs is asked."""

    def __init__(self) -> None:
        self.discovered = {"anomalyexperiments", "anomalyinferences", "anomalyexperiments/status"}
        self.lost: ApiError | None = None
        self.trouble: dict[tuple[str, str | None], ApiError] = {}
        self.asked: list[tuple[str, str | None]] = []

    async def discover(self, group: str, version: str) -> frozenset[str]:
        assert (group, version) == ("anomalyops.io", "v1alpha1")
        if self.lost:
            raise self.lost
        return frozenset(self.discovered)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> AsyncIterator[tuple[list[Manifest], str]]:
        self.asked.append((resource.plural, namespace))
        if error := self.trouble.get((resource.plural, namespace)):
            raise error
        yield [], "1"
        raise AssertionError("one page is enough")


@pytest.fixture
def loop() -> Iterator[PlayedLoop]:
    made = PlayedLoop()
    yield made
    made.close()


def test_definitions_are_waited_for_and_told_once(loop: PlayedLoop) -> None:
    client = Lists()
    client.discovered = set()
    loop.call_at(5.0, client.discovered.add, "anomalyexperiments")
    loop.call_at(9.0, client.discovered.add, "anomalyinferences")
    with capture_logs() as logs:
        loop.run_until_complete(wait_until_served(client))
    assert loop.time() == 10.0, "it looks every two seconds"
    [told] = logs
    assert (told["event"], told["log_level"]) == ("waiting for custom resource definitions", "warning")
    assert told["missing"] == ["anomalyexperiments", "anomalyinferences"]
    assert not client.asked, "what can be read may not be listed yet, and kopf watches what is listed"


@pytest.mark.parametrize("trouble", [REFUSED, Unavailable(503, "down")])
def test_another_failure_is_told_and_waited_for_by_nobody(loop: PlayedLoop, trouble: ApiError) -> None:
    client = Lists()
    client.lost = trouble
    with capture_logs() as logs:
        loop.run_until_complete(wait_until_served(client))
    assert loop.time() == 0.0
    [told] = logs
    assert (told["event"], told["log_level"]) == ("cannot look for custom resource definitions", "error")
    assert told["message"] == str(trouble)


@pytest.mark.parametrize("plural", ["anomalyexperiments", "anomalyinferences", "jobs", "pods"])
def test_a_namespace_in_which_something_may_not_be_read_is_left_out_and_told(loop: PlayedLoop, plural: str) -> None:
    client = Lists()
    client.trouble[plural, "hidden"] = REFUSED
    client.trouble["anomalyexperiments", "early"] = GONE
    with capture_logs() as logs:
        found = loop.run_until_complete(readable_namespaces(client, ["vision", "hidden", "early"]))
    assert found == ("vision", "early")
    [told] = logs
    assert (told["event"], told["log_level"], told["retry_s"]) == ("namespace skipped", "error", 10.0)
    assert (told["namespace"], told["message"]) == ("hidden", "403: no list here")
    assert ("pods", "early") in client.asked, "what is not installed yet says nothing of the others"


def test_a_server_that_is_down_leaves_no_namespace_out(loop: PlayedLoop) -> None:
    client = Lists()
    client.trouble["jobs", "vision"] = Unavailable(503, "down")
    with pytest.raises(Unavailable):
        loop.run_until_complete(readable_namespaces(client, ["vision"]))


def test_a_namespace_that_can_be_read_again_is_found_within_seconds(loop: PlayedLoop) -> None:
    client = Lists()
    client.trouble["pods", "one"] = client.trouble["pods", "two"] = REFUSED
    loop.call_at(25.0, client.trouble.pop, ("pods", "two"))
    assert loop.run_until_complete(wait_until_readable(client, ["one", "two"])) == "two"
    assert loop.time() == 30.0, "it looks every ten seconds"
