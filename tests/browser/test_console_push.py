"""Messages of Web Push in Chromium: a person switches them on, the worker shows them, and the switch ends them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from tests.support.chromium import Chromium, browser
from tests.support.console import enter_console, needs_console
from tests.support.payment_fixtures import live_server
from tests.support.pictures import examine_page

__all__ = ["live_server"]
pytestmark = [needs_console, pytest.mark.slow]
ENDPOINT = "https://push.example/browser-1"
POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SUBSCRIBE = f"""void (PushManager.prototype.subscribe = async (options) => {{
  window.asked = options;
  const keys = {{p256dh: "{POINT}", auth: "BTBZMqHH6r4Tts7J_aSIgg"}};
  const unsubscribe = async () => {{ window.ended = true; }};
  const made = {{toJSON: () => ({{endpoint: "{ENDPOINT}", keys}}), unsubscribe}};
  PushManager.prototype.getSubscription = async () => (window.ended ? null : made);
  return made;
}})"""
"""The push service of the browser's vendor, which this machine cannot reach, answers so."""
SHOWN = (
    "navigator.serviceWorker.ready.then((r) => r.getNotifications()).then((all) => all.map((n) => [n.title, n.body]))"
)
ATTACK = "<img src=x onerror='window.attacked=1'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with browser(shows_notifications=True) as started:
        yield started


def test_a_person_can_switch_push_messages_on_and_off(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "nina", "approver")
    chromium.permit("notifications")
    chromium.goto(f"{site}/console/approvals")
    chromium.wait_for("text=Tell this browser about requests")
    chromium.evaluate(SUBSCRIBE)
    chromium.click("text=Tell this browser about requests")
    chromium.wait_for("text=Stop messages to this browser")
    examine_page(chromium, "console-push")
    [entry] = live_server.entries(action="push.subscribe")
    assert entry["detail"]["origin"] == "https://push.example"
    assert ENDPOINT not in json.dumps(entry), "the endpoint is a secret"
    key = chromium.evaluate("window.asked.applicationServerKey")
    assert len(key) == 87
    chromium.push(json.dumps({"title": f"bot {ATTACK} asks", "body": "bank/pay", "page": "approvals"}))
    eventually(lambda: chromium.evaluate(SHOWN) == [[f"bot {ATTACK} asks", "bank/pay"]])
    chromium.click("text=Stop messages to this browser")
    chromium.wait_for("text=Tell this browser about requests")
    assert len(live_server.entries(action="push.unsubscribe")) == 1
    assert chromium.evaluate("window.ended === true && window.attacked === undefined")


def test_a_refusal_of_the_push_service_is_shown_with_a_remedy(live_server: ServerFixture, chromium: Chromium) -> None:
    before = len(live_server.entries(action="push.subscribe"))
    site = enter_console(live_server, chromium, "nell", "approver")
    chromium.permit("notifications")
    chromium.goto(f"{site}/console/approvals")
    chromium.wait_for("text=Tell this browser about requests")
    refuse = "async () => { throw new DOMException('Registration failed', 'AbortError'); }"
    chromium.evaluate(f"void (PushManager.prototype.subscribe = {refuse})")
    chromium.click("text=Tell this browser about requests")
    chromium.wait_for("text=cannot register with the push service of its vendor (Registration failed): leave a private")
    assert len(live_server.entries(action="push.subscribe")) == before
