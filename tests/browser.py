"""A browser without a window, driven by the DevTools protocol, and what it finds on a page."""

import json
import re
import shutil
import subprocess
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = shutil.which("chromium")
SECONDS = 60  # that any answer may take
LOOK = """
(async () => {
  await window.MathJax?.startup.promise;
  const every = (selector, found) => Array.from(document.querySelectorAll(selector), found);
  return {
    links: every("a[href]", (link) => link.href),
    anchors: every("[id]", ({ id }) => id),
    formulas: every(".math", () => 1).length,
    drawn: every("mjx-container:has(mjx-math *)", () => 1).length,
    footer: document.querySelector(".bd-footer-content").innerText,
  };
})()
"""
WIDTH = "({ needed: document.documentElement.scrollWidth, there: innerWidth })"
AXE = """
(async () => {
  document.documentElement.dataset.theme = "THEME";
  const apart = Array.from(document.querySelectorAll("tbody tr:nth-child(n + 6)"));
  const homes = apart.map((row) => row.parentElement);
  apart.forEach((row) => row.remove());  // they look like those above, and there are thousands
  const { violations } = await axe.run("PART", { preload: false, resultTypes: ["violations"], runOnly: RULES });
  apart.forEach((row, i) => homes[i].append(row));
  return violations.filter(({ impact }) => /serious|critical/.test(impact))
    .map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
})()
"""
RULES = {"light": ["wcag2a", "wcag2aa"], "dark": ["color-contrast"]}


class Browser:
    """One browser with one page; what it tells of itself is kept until the next page is opened."""

    def __init__(self, profile: Path) -> None:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        self.process = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={profile}"], stderr=subprocess.PIPE, text=True
        )
        told = (re.search(r"listening on (ws://\S+)", line) for line in self.process.stderr)
        address = next(found[1] for found in told if found)
        self.socket = websocket.create_connection(address, SECONDS, suppress_origin=True)
        self.numbers, self.session, self.events = count(), {}, []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        held = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self.session = {"sessionId": held["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        still = "* { transition: none !important; animation: none !important; }"
        self.at_start(
            "addEventListener('DOMContentLoaded', () => document.head.append(Object.assign("
            f"document.createElement('style'), {{ textContent: '{still}' }})))"
        )

    def close(self) -> None:
        """End the browser and wait until it has gone."""
        self.socket.close()
        self.process.terminate()
        self.process.communicate(timeout=SECONDS)

    def receive(self) -> dict[str, Any]:
        """Wait for what the browser says next."""
        message = json.loads(self.socket.recv())
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Give a command and wait for its result."""
        number = next(self.numbers)
        asked = {"id": number, "method": method, "params": given, **self.session}
        self.socket.send(json.dumps(asked))
        while (message := self.receive()).get("id") != number:
            pass
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def at_start(self, script: str) -> None:
        """Run JavaScript in every page before its own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def run(self, script: str) -> Any:
        """Run JavaScript in the page and return its value, once it is there."""
        options = {"awaitPromise": True, "returnByValue": True}
        held = f"globalThis.held = {script}"  # a promise that nothing holds may be collected
        found = self.call("Runtime.evaluate", expression=held, **options)
        assert "exceptionDetails" not in found, (script[:200], found["exceptionDetails"])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        code = {"Tab": 9, "ArrowUp": 38, "ArrowDown": 40}[key]
        for kind in ("rawKeyDown", "keyUp"):
            pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type=kind, **pressed)

    def open(self, address: str, width: int) -> None:
        """Open a page of some width, in CSS pixels, and wait until it is loaded."""
        self.widen(width)
        self.events.clear()
        if "loaderId" not in self.call("Page.navigate", url=address):  # the page is open already
            self.call("Page.reload")
        while "Page.loadEventFired" not in (name for name, _ in self.events):
            self.receive()

    def widen(self, width: int) -> None:
        """Give the page another width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=False, **size)

    def complaints(self) -> list[str]:
        """Return what the console was told, what was asked of others, and what failed."""
        told = []
        for name, of in self.events:
            if name == "Runtime.exceptionThrown":
                told.append(f"exception: {of['exceptionDetails']}")
            elif name == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning"):
                told.append(f"console: {[each.get('value') for each in of['args']]}")
            elif name == "Log.entryAdded" and of["entry"]["level"] in ("error", "warning"):
                told.append(f"log: {of['entry']['text']} {of['entry'].get('url', '')}")
            elif name == "Network.loadingFailed":
                told.append(f"failed: {of['errorText']}")
            elif name == "Network.requestWillBeSent":
                address = of["request"]["url"]
                told += [] if re.match("(file|data|blob):", address) else [f"asks: {address}"]
        return told


def barriers(browser: Browser, part: str, theme: str) -> list[str]:
    """Return which of axe's serious or critical rules a part of the page breaks in a theme."""
    script = AXE.replace("PART", part).replace("THEME", theme)
    return browser.run(script.replace("RULES", str(RULES[theme])))


def examine(browser: Browser, page: Path, part: str) -> dict[str, Any]:
    """Open a page of the book on a phone and on a desk, in light and in dark.

    Returns
    -------
    dict
        What `LOOK` says, ``widths`` (needed and there, of both), ``barriers`` of that part of it (in
        light of all kinds on a phone, in dark those of contrast on a desk), and ``complaints``.
    """
    browser.open(page.as_uri(), width=375)
    found = browser.run(LOOK)
    widths = [browser.run(WIDTH)]
    browser.run((files("axe_core_python") / "axe.min.js").read_text())
    met = barriers(browser, part, "light")
    browser.widen(1440)
    widths.append(browser.run(WIDTH))
    met += barriers(browser, part, "dark")
    return {**found, "widths": widths, "barriers": met, "complaints": browser.complaints()}
