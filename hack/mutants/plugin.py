"""A plugin of pytest that tries mutants: each in a fork of the process that has collected the tests.

The tests run once as they are, to see which of them call which function. A mutant is tried by those that call its
function, the fastest first, until one fails. Starting pytest anew for each mutant would take ten times as long.
"""

import hashlib
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

SURVIVED, KILLED = 0, 1
"""Exit codes of a fork, and of pytest."""
CPU_SECONDS = 5
"""CPU time that a mutant may take in a test beyond ten times that of the test: it, for the machine may be busy."""
ASLEEP_SECONDS = 5
"""How long all of its threads may sleep, beyond the time of its tests: it waits for what never comes."""


@dataclass
class Calls:
    """Which tests call which function, and how long they take."""

    tests: dict[str, list[str]] = field(default_factory=dict)
    """Names of tests, by name of the function."""
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU time, by name of the test."""
    failed: list[str] = field(default_factory=list)
    """Tests that fail without a mutant: such as need a machine that is less busy."""
    digest: str = ""
    """Of the sources and the tests: what is known of the calls holds as long as they are the same."""


class Failures:
    """Keeps the names of tests that fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the name of a test that failed."""
        if report.failed:
            self.names.append(report.nodeid)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what to try, and until when."""
    parser.addoption("--mutants-to-try", required=True, type=Path, help="JSON: their names, functions and digests")
    parser.addoption("--mutants-found", required=True, type=Path, help="where to add a line for each")
    parser.addoption("--mutants-seconds", required=True, type=float, help="when to stop")


def pytest_configure(config: pytest.Config) -> None:
    """Have hypothesis try the same examples in each fork, however long they take."""
    hypothesis.settings.register_profile("mutants", hypothesis.settings(), derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    config.pluginmanager.register(Failures(), "failures")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try the mutants in place of running the tests."""
    options = session.config.option
    end = time.monotonic() + options.mutants_seconds
    if session.testsfailed:
        raise session.Interrupted("not all tests can be collected")
    at_import = frozenset(state()._stats)
    calls = _record(session, options.mutants_found.with_name("calls.json"))
    mutants = json.loads(options.mutants_to_try.read_text())
    tests = _steady(session, calls, {mutant["called"] for mutant in mutants})
    with options.mutants_found.open("a") as output:
        for mutant in mutants:
            if time.monotonic() >= end:
                break
            name, called = mutant["name"], mutant["called"]
            verdict = _try(name, tests[called], calls) if tests[called] else "untested"
            if called in at_import and verdict in ("survived", "untested"):
                verdict = _try_anew(name, session.config.args, calls)
            print(json.dumps({"digest": mutant["digest"], "verdict": verdict}), file=output, flush=True)
    return True


def _steady(session: pytest.Session, calls: Calls, functions: Iterable[str]) -> dict[str, list[pytest.Item]]:
    """Return the tests of each function, the fastest first, without those that fail in this order without a mutant."""
    items = sorted(session.items, key=lambda item: calls.seconds[item.nodeid])
    tests = {name: [item for item in items if item.nodeid in calls.tests.get(name, ())] for name in functions}
    wanted = {test.nodeid for chosen in tests.values() for test in chosen} - {*calls.failed}
    file = session.config.option.mutants_found.with_name("failed.json")

    def work() -> int:
        set_mutant_under_test("none")
        names = [item.nodeid for item in items if item.nodeid in wanted and not _passes(item)]
        file.write_text(json.dumps(names))
        return 0

    if code := _fork(work):
        raise session.Interrupted(f"the tests in another order end the process with {code}")
    failed = {*calls.failed, *json.loads(file.read_text())}
    for name in sorted(failed):
        print(f"\nleft out, for it fails without a mutant: {name}")
    return {name: [test for test in chosen if test.nodeid not in failed] for name, chosen in tests.items()}


def _try(mutant: str, tests: Sequence[pytest.Item], calls: Calls) -> str:
    """Return what becomes of a mutant that is tried by these tests."""
    seconds = sum(calls.seconds[test.nodeid] for test in tests)

    def passes(test: pytest.Item) -> bool:
        limit = int(time.process_time() + 10 * calls.seconds[test.nodeid]) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        return _passes(test)

    def work() -> int:
        set_mutant_under_test(mutant)
        return SURVIVED if all(map(passes, tests)) else KILLED

    return _verdict(_fork(work, seconds + ASLEEP_SECONDS))


def _try_anew(mutant: str, arguments: Sequence[str], calls: Calls) -> str:
    """Return what becomes of a mutant of a function that is called when its module is imported: pytest begins anew."""
    seconds = sum(calls.seconds.values())
    options = ("-x", "--quiet", "--assert=plain", "--numprocesses=0", "-p", "no:cacheprovider")
    left_out = (f"--deselect={name}" for name in calls.failed)
    command = [sys.executable, "-m", "pytest", *options, *left_out, *arguments]

    def work() -> int:
        limit = int(10 * seconds) + 12 * CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        os.execve(sys.executable, command, os.environ | {"MUTANT_UNDER_TEST": mutant})

    code = _fork(work, seconds + ASLEEP_SECONDS)
    # 2 to 4: the tests cannot be collected.
    return _verdict(KILLED if code in (2, 3, 4) else code)


def _verdict(code: int | None) -> str:
    verdicts = {SURVIVED: "survived", KILLED: "killed", -signal.SIGXCPU: "timed out", None: "timed out"}
    return verdicts.get(code, "crashed")


def _record(session: pytest.Session, file: Path) -> Calls:
    """Run all tests as they are, unless it is known: in a fork, whose threads do not come along into the next one."""
    digest = _digest(file.parent, session.config.args)
    if file.exists() and (known := Calls(**json.loads(file.read_text()))).digest == digest:
        return known

    def work() -> int:
        calls = Calls(digest=digest)
        state()._stats.clear()
        for item in session.items:
            begun = time.process_time()
            if not _passes(item):
                calls.failed.append(item.nodeid)
            calls.seconds[item.nodeid] = time.process_time() - begun
            for function in state()._stats:
                calls.tests.setdefault(function, []).append(item.nodeid)
            state()._stats.clear()
        file.write_text(json.dumps(asdict(calls)))
        return 0

    if code := _fork(work):
        raise session.Interrupted(f"the tests as they are end the process with {code}")
    return Calls(**json.loads(file.read_text()))


def _digest(folder: Path, arguments: Iterable[str]) -> str:
    """Return a digest of the sources and tests in a folder, and of which tests are chosen."""
    files = sorted(file for top in ("src", "tests") for file in (folder / top).rglob("*.*") if file.suffix != ".pyc")
    texts = (bytes(file) + file.read_bytes() for file in files if file.is_file())
    return hashlib.sha256(b"".join((*map(str.encode, arguments), *texts))).hexdigest()


def _passes(item: pytest.Item) -> bool:
    """Run a test, with nothing left for the next one, and return whether it passes."""
    failures: Any = item.config.pluginmanager.get_plugin("failures")
    failures.names.clear()
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return not failures.names


def _fork(work: Callable[[], int], asleep: float = math.inf) -> int | None:
    """Do something in a fork, without a word, and return its exit code; None if it was asleep for so many seconds."""
    child = os.fork()
    if not child:
        code = 70
        try:
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            code = work()
        finally:
            os._exit(code)
    ended, awake = os.pidfd_open(child), time.monotonic()
    try:
        while not select.select([ended], [], [], 0.5)[0]:
            if not _is_asleep(child):
                awake = time.monotonic()
            elif time.monotonic() - awake > asleep:
                os.kill(child, signal.SIGKILL)
                asleep = -math.inf
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if asleep > 0 else None


def _is_asleep(process: int) -> bool:
    """Whether no thread of a process runs, or would run if the machine were less busy."""
    try:
        threads = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(thread.rpartition(")")[2].split()[0] == "S" for thread in threads)
