"""What a process watches of what it was asked to watch."""

import gc
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import kopf
import pytest

from anomaly_operator import __main__ as program
from anomaly_operator import logging_setup
from anomaly_operator.errors import Unavailable
from anomaly_operator.settings import Settings
from support.played_operator import SETTINGS

KOPF = kopf.OperatorSettings()
ASKED = replace(SETTINGS, namespaces=("one", "two", "three"))


class Client:
    """A connection, open or closed."""

    def __init__(self, login: Callable[[], object], connections: int) -> None:
        assert (login(), connections) == (KOPF, 1)
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def watched(monkeypatch: pytest.MonkeyPatch, readable: tuple[str, ...] | Exception) -> Settings:
    clients: list[Client] = []

    async def read(client: Client, names: Iterable[str]) -> tuple[str, ...]:
        clients.append(client)
        if isinstance(readable, Exception):
            raise readable
        return tuple(name for name in names if name in readable)

    monkeypatch.setattr(program, "login", lambda given: given)
    monkeypatch.setattr(program, "ApiClient", Client)
    monkeypatch.setattr(program, "readable_namespaces", read)
    try:
        return await program.without_unreadable_namespaces(ASKED, KOPF)
    finally:
        assert [client.closed for client in clients] == [True]


async def test_namespaces_that_cannot_be_read_do_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = replace(ASKED, namespaces=("one", "three"), skipped_namespaces=("two",))
    assert await watched(monkeypatch, ("one", "three")) == expected
    assert await watched(monkeypatch, ("one", "two", "three")) == ASKED


async def test_where_none_can_be_read_the_process_ends_with_the_servers_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await watched(monkeypatch, ()) == ASKED, "of which kopf asks for each"
    with pytest.raises(Unavailable):
        await watched(monkeypatch, Unavailable(503, "down"))


@pytest.mark.parametrize(
    ("arguments", "clusterwide", "namespaces"),
    [([], True, ()), (["--watch-namespaces=one,two"], False, ("one", "two"))],
    ids=["everywhere", "in two namespaces"],
)
def test_kopf_watches_the_namespaces_that_were_asked_for(
    arguments: list[str], clusterwide: bool, namespaces: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[dict[str, Any]] = []
    logged: list[str] = []

    async def all_of_them(settings: Settings, _: kopf.OperatorSettings) -> Settings:
        return settings

    monkeypatch.setattr(sys, "argv", ["operator", "--log-level=DEBUG", *arguments])
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(logging_setup, "configure", logged.append)
    monkeypatch.setattr(program, "without_unreadable_namespaces", all_of_them)
    monkeypatch.setattr(kopf, "run", lambda **options: ran.append(options))
    program.main()
    (options,) = ran
    assert (options["clusterwide"], tuple(options["namespaces"])) == (clusterwide, namespaces)
    assert options["standalone"] is True
    assert options["settings"].posting.enabled is False
    assert logged == ["DEBUG"]
