"""The report in a real browser: it keeps its own policy, sorts by the keyboard, and reads nothing as markup."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from test_reporting import HOSTILE, results_of, run_folder
from websockets.sync.client import connect

from sentemb import report

pytestmark = pytest.mark.slow


@contextmanager
def opened(path, profile):
    """A tab of Debian's Chromium with the page, as a function that sends commands of its protocol."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: apt-get install chromium")
    process = subprocess.Popen(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
         f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = next(line.split()[-1] for line in process.stderr if "DevTools listening on" in line)
        with connect(address, max_size=None, open_timeout=60) as socket:
            numbers, events = iter(range(1, 10_000)), []

            def send(method, session=None, **parameters):
                number = next(numbers)
                socket.send(json.dumps({"id": number, "method": method, "params": parameters,
                                        **({"sessionId": session} if session else {})}))  # fmt: skip
                while True:
                    answer = json.loads(socket.recv(timeout=60))
                    if answer.get("id") == number:
                        assert "error" not in answer, answer
                        return answer["result"]
                    events.append(answer)

            target = send("Target.createTarget", url="about:blank")["targetId"]
            session = send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                send(f"{domain}.enable", session)
            send("Page.navigate", session, url=path.as_uri())
            tab = Tab(lambda method, **parameters: send(method, session, **parameters), events)
            tab.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")
            yield tab
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stderr.close()


class Tab:
    """What a test does in a page."""

    def __init__(self, send, events):
        self.send, self.events = send, events

    def value(self, expression):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression):
        for _ in range(1000):
            if self.value(expression):
                return
        raise AssertionError(f"never true: {expression}")

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else None
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      **({"text": text} if text else {}))  # fmt: skip


@pytest.fixture
def tab(tmp_path):
    bad = results_of(HOSTILE, better=0.5)
    path = report(results_of(), bad, run_folder(tmp_path), output=tmp_path / "page.html", title=HOSTILE, resamples=200)
    with opened(path, tmp_path / "profile") as tab:
        yield tab


def test_it_obeys_its_own_policy_and_asks_nobody(tab):
    assert tab.value("document.title").startswith("<script>")  # as text
    assert tab.value("document.querySelectorAll('img').length") == 0
    assert tab.value("getComputedStyle(document.querySelector('.sentemb-chart .mark.s0')).fill") == "rgb(11, 95, 165)"
    logged = [event for event in tab.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert logged == []
    asked = {event["params"]["request"]["url"].partition(":")[0] for event in tab.events
             if event.get("method") == "Network.requestWillBeSent"}  # fmt: skip
    assert asked <= {"file", "data"}


def test_a_table_is_sorted_by_the_keyboard(tab):
    first = "document.querySelector('table tbody').rows[0].cells[0].textContent"
    assert tab.value(first) == "STS12"
    tab.value("document.querySelector('table thead button').focus()")
    tab.press("Enter", 13)
    tab.press("Enter", 13)
    header = "document.querySelector('table thead th').getAttribute('aria-sort')"
    assert tab.value(header) == "descending"
    assert tab.value(first) == "STS12"
    tab.press("Enter", 13)
    assert (tab.value(header), tab.value(first)) == ("ascending", "names")
    assert tab.value("document.querySelector('table tbody').rows[1].cells[0].textContent") == "BM25"  # moves with it
    assert tab.value("document.querySelector('table tfoot').rows[0].cells[0].textContent") == "mean"


def test_dark_narrow_and_printed(tab):
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert tab.value("getComputedStyle(document.querySelector('.sentemb-chart .tick')).fill") == "rgb(154, 164, 173)"
    tab.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=False)
    assert tab.value("document.documentElement.scrollWidth") <= 360  # charts and tables scroll in their own boxes
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.value("getComputedStyle(document.querySelector('.sentemb-chart .label')).fill") == "rgb(29, 33, 38)"
    tab.value("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.value("[...document.querySelectorAll('details')].every((one) => one.open)")
