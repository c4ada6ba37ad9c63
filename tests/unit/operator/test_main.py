"""What a process watches of what it was asked to watch."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import kopf
import pytest

from anomaly_operator import __main__ as program
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
