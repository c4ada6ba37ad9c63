"""A real browser that opens a page without a window, and does there what a person would do."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from websocket import WebSocket, create_connection

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)


class Browsed(NamedTuple):
    """A page's DOM, and the lines of the browser's console."""

    dom: str
    complaints: list[str]


def find_browser() -> str:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: `hack/setup` installs it on Debian")
    return browser


def browse(browser: str, page: Path, profile: Path) -> Browsed:
    """The page's DOM and the lines of the browser's console."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Browsed(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


class Tab:
    """An open page, by the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol)."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._sent = 0

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which JSON can express.

        Raises:
            AssertionError: it threw.
        """
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of the first element of a selector."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        assert isinstance(found, str)
        return found

    def press(self, key: str) -> None:
        """Press and release a key, for the element that has the focus."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        x, y = self.place(selector, 0.5, 0.5)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y, held=0)

    def place(self, selector: str, across: float, down: float) -> tuple[float, float]:
        """Return the pixel at a share of an element's width and height, after the element was scrolled into view."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def mouse(self, kind: str, x: float, y: float, *, held: int = 1) -> None:
        """Have the mouse do something, with the left button held or not."""
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)

    def screenshot(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def open_tab(browser: str, page: Path, profile: Path, size: tuple[int, int] = (1200, 900)) -> Iterator[Tab]:
    """Open a page in a browser that listens on loopback alone, its window of this size in pixels, and close both."""
    flags = [flag for flag in FLAGS if "virtual-time" not in flag]
    command = [browser, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    shape = ["--hide-scrollbars", f"--window-size={size[0]},{size[1]}"]
    process = subprocess.Popen([*command, *shape, page.as_uri()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        socket = create_connection(_address(profile / "DevToolsActivePort"), timeout=60, suppress_origin=True)
        yield _loaded(Tab(socket))
        socket.close()
    finally:
        process.terminate()
        process.wait(30)


class _NotYetError(Exception):
    """The browser has not got so far."""


_patient = retry(
    retry=retry_if_exception_type((_NotYetError, IndexError, OSError)),
    stop=stop_after_delay(60),
    wait=wait_fixed(0.1),
    reraise=True,
)


@_patient
def _address(told: Path) -> str:
    """Return the address of the page's debugger, once the browser has written its port and opened the page."""
    port = told.read_text().splitlines()[0]
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
        pages = [one for one in json.load(answer) if one["type"] == "page" and one["url"].startswith("file:")]
    address: str = pages[0]["webSocketDebuggerUrl"]
    return address


@_patient
def _loaded(tab: Tab) -> Tab:
    if tab.evaluate("location.protocol + document.readyState") != "file:complete":
        raise _NotYetError
    return tab
