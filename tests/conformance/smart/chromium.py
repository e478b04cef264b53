"""A headless Chromium with a person before it: opens pages, types, presses, looks.

https://chromedevtools.github.io/devtools-protocol/, by two pipes: no port, no other library.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
WAIT_S = 60.0
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
)
# The browser reads commands from descriptor 3 and writes answers to 4.
_AS_3_AND_4 = (
    "import os, sys; ends = [os.dup(int(one)) for one in sys.argv[1:3]]; "
    "high = [os.dup2(one, 60 + n) for n, one in enumerate(ends)]; "
    "[os.dup2(one, 3 + n) for n, one in enumerate(high)]; os.execv(sys.argv[3], sys.argv[3:])"
)


class Chromium:
    """One browser with one page, whose cookies and storage are its own."""

    def __init__(self, folder: Path, *, width: int = 390, height: int = 844) -> None:
        """Start it, with a page as wide as that of a phone."""
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        ends = (str(to_read), str(to_write))
        command = [FOUND, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._browser = subprocess.Popen(
            [sys.executable, "-c", _AS_3_AND_4, *ends, *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._last = 0
        self._session = ""
        target = self.does("Target.createTarget", url="about:blank")["targetId"]
        attached = self.does("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.does("Page.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.does("Emulation.setDeviceMetricsOverride", **size)

    def close(self) -> None:
        """End its own processes, and no others."""
        os.killpg(self._browser.pid, signal.SIGKILL)
        self._browser.wait()
        os.close(self._to)
        os.close(self._from)

    def does(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + WAIT_S
        while True:
            answer = self._message(end)
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _message(self, end: float) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._from, 1 << 20)
        one, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(one)

    def opens(self, url: str) -> None:
        """Go to ``url``."""
        self.does("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return what ``expression`` is in the page."""
        found = self.does("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def waits_for(self, text: str) -> None:
        """Wait until the page shows ``text``."""
        end = time.monotonic() + WAIT_S
        seen = ""
        while time.monotonic() < end:
            seen = self.value("document.body ? document.body.innerText : ''") or ""
            if text in seen and self.value("document.readyState") == "complete":
                return
            time.sleep(0.05)  # what another program does is looked at, as with a mongod
        raise AssertionError(f"{text!r} does not come; at {self.value('location.href')}: {seen}")

    def types(self, name: str, text: str) -> None:
        """Type ``text`` into the field ``name``."""
        self.value(f"document.querySelector('input[name={name}]').value = {json.dumps(text)}")

    def unticks(self, value: str) -> None:
        """Untick the box that stands for ``value``."""
        self.value(f"document.querySelector('input[value={json.dumps(value)}]').click()")

    def presses(self, words: str) -> None:
        """Press the button that says ``words``."""
        pressed = self.value(
            "(() => { const found = [...document.querySelectorAll('button')].find("
            f"one => one.innerText.startsWith({json.dumps(words)}));"
            " if (found) setTimeout(() => found.click()); return Boolean(found); })()"
        )
        assert pressed, f"there is no button {words}"

    def picture(self, path: Path) -> None:
        """Keep what the page looks like."""
        shot = self.does("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
