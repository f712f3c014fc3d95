"""Chromium by lines of JSON: a request `[method, arguments, named]`, then `{"value": ..}` or `{"error": ..}` back.

Run by `harness/chromium.py` with the Python of `.browser`, the only environment that has playwright.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, Route, sync_playwright

PATIENCE_MS = 120_000
"""Time that the browser waits for a state, on a machine that is slow and busy."""


_WATCH_FOCUS = """(() => {
    const reached = new Set();
    let last = 0;
    document.activeElement?.blur();
    const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    const controls = () => [...document.querySelectorAll(all)]
        .filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({visibilityProperty: true}));
    window.countControls = () => controls().length;
    window.isRoundDone = () => {
        const now = document.activeElement;
        const isAgain = reached.has(now) || now === document.body;
        reached.add(now);
        last = isAgain ? last + 1 : 0;
        return last > 2;
    };
    window.listUnreached = () => controls().filter((one) => !reached.has(one)).map((one) => one.outerHTML);
})()"""
"""Scripts of `find_unreachable`: the page around them is not changed."""


def _is_active(version: dict[str, Any], origin: str) -> bool:
    """Return whether a version of a worker belongs to an origin and is active; the browser drops messages to others."""
    return bool(version["scriptURL"].startswith(f"{origin}/") and version["status"] == "activated")


class Driver:
    """A browser with one window at a time; `open_window` begins anew, without cookies."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._cdp: CDPSession | None = None
        self._script, self._scheme = True, "light"
        self.problems: list[str] = []

    @property
    def page(self) -> Page:
        assert self._page is not None, "open a window first"
        return self._page

    def open_window(self, *, script: bool = True, dark: bool = False, width: int = 1000, height: int = 900) -> None:
        if self._context is not None:
            self._context.close()
        self._script, self._scheme = script, "dark" if dark else "light"
        self._context = self._browser.new_context(
            java_script_enabled=script,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            ignore_https_errors=True,
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self._page, self.problems = self._context.new_page(), []
        self._page.on("console", lambda message: self._note(message.type, message.text))
        self._page.on("pageerror", lambda error: self._note("error", str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # the HTTP status of the page that a test opens
            self.problems.append(text)

    def set_look(self, *, dark: bool, width: int, height: int = 900) -> None:
        self._scheme = "dark" if dark else "light"
        self.page.emulate_media(color_scheme=self._scheme)
        self.page.set_viewport_size({"width": width, "height": height})

    def add_authenticator(self, *, verifies: bool = True) -> str:
        """Plug in a virtual authenticator with discoverable credentials; return its id."""
        self._cdp = self.page.context.new_cdp_session(self.page)
        self._cdp.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": verifies,
            "automaticPresenceSimulation": True,
        }
        return str(self._cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"])

    def credentials(self, authenticator: str) -> list[Any]:
        assert self._cdp is not None
        found = self._cdp.send("WebAuthn.getCredentials", {"authenticatorId": authenticator})["credentials"]
        return list(found)

    def goto(self, url: str) -> int:
        """Open a URL; return the status of the page that it leads to."""
        response = self.page.goto(url)
        return 0 if response is None else response.status

    def fill(self, selector: str, text: str) -> None:
        self.page.fill(selector, text)

    def check(self, selector: str, *, on: bool = True) -> None:
        self.page.set_checked(selector, on)

    def click(self, selector: str) -> None:
        self.page.click(selector)

    def write(self, selector: str, text: str) -> None:
        """Type a text at the end of a field."""
        self.page.focus(selector)
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def select(self, selector: str, value: str) -> None:
        self.page.select_option(selector, value)

    def download(self, selector: str) -> str:
        """Click something that saves a text file; return its text."""
        with self.page.expect_download() as saved:
            self.page.click(selector)
        return Path(saved.value.path()).read_text()

    def wait_for_url(self, pattern: str) -> str:
        """Wait until the URL matches a glob; return it."""
        self.page.wait_for_url(pattern)
        return str(self.page.url)

    def wait_for(self, selector: str) -> None:
        self.page.wait_for_selector(selector)

    def url(self) -> str:
        return str(self.page.url)

    def text(self, selector: str = "body") -> str:
        return str(self.page.inner_text(selector))

    def html(self) -> str:
        return str(self.page.content())

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def permit(self, permission: str) -> None:
        """Give the pages of the window a permission that a person would be asked for."""
        self.page.context.grant_permissions([permission])

    def push(self, data: str) -> None:
        """Deliver a message of Web Push to the service worker of the page, as the browser does after decryption."""
        versions: dict[str, dict[str, Any]] = {}
        cdp = self.page.context.new_cdp_session(self.page)
        cdp.on(
            "ServiceWorker.workerVersionUpdated",
            lambda event: versions.update((version["versionId"], version) for version in event["versions"]),
        )
        cdp.send("ServiceWorker.enable")
        page = urlsplit(self.page.url)
        origin = f"{page.scheme}://{page.netloc}"
        active: list[dict[str, Any]] = []
        for _ in range(PATIENCE_MS // 50):
            if active := [version for version in versions.values() if _is_active(version, origin)]:
                break
            self.page.wait_for_timeout(50)
        assert active, "the service worker is not active"
        message = {"origin": origin, "registrationId": active[-1]["registrationId"], "data": data}
        cdp.send("ServiceWorker.deliverPushMessage", message)

    def cookies(self) -> list[Any]:
        return list(self.page.context.cookies())

    def screenshot(self, path: str) -> None:
        self.page.screenshot(path=path, full_page=True)

    def find_faults(self, axe: str) -> list[str]:
        """Run axe-core (its source text) on the page; return a line for each violation, with the place.

        `evaluate` runs outside of the policy. A window without script cannot run it: a copy of the page in one with
        script stands for it.
        """
        page, copy = self.page, None
        if not self._script:
            copy = self._browser.new_context(color_scheme=self._scheme, viewport=self.page.viewport_size)
            page = copy.new_page()
            page.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"), times=1)
            page.goto(self.page.url)
            page.set_content(self.page.content())
        found = page.evaluate(
            axe + "; axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations.flatMap("
            "(one) => one.nodes.map((node) => `${one.id}: ${one.help}: ${node.html}`)))"
        )
        if copy is not None:
            copy.close()
        return list(found)

    def snapshot(self, selector: str) -> str:
        """Return what assistive technology gets of an element, as YAML (ARIA snapshot)."""
        return str(self.page.locator(selector).aria_snapshot())

    def find_unreachable(self, pages: int = 3) -> list[str]:
        """Go through the page with the Tab key; return the controls in view that never had the focus.

        A list that draws rows as they come into view has more controls than a first count, so `pages` bounds the keys.
        """
        self.page.evaluate(_WATCH_FOCUS)
        for _ in range(pages * int(self.page.evaluate("window.countControls()")) + 10):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("window.isRoundDone()"):
                break
        return list(self.page.evaluate("window.listUnreached()"))

    def is_too_wide(self) -> bool:
        """Return whether the page scrolls sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def tamper(self, pattern: str, find: str, put: str) -> None:
        """Change the answers to URLs of a pattern from now on, as a dishonest server would; `find` "" reverses them."""

        def change(route: Route) -> None:
            response = route.fetch()
            body = response.body()
            changed = body.replace(find.encode(), put.encode()) if find else body[::-1]
            assert changed != body, "nothing was changed"
            route.fulfill(response=response, body=changed)

        self.page.route(pattern, change)

    def set_offline(self, *, is_offline: bool) -> None:
        """Cut the window off the network, or connect it again."""
        self.page.context.set_offline(is_offline)

    def be_honest(self) -> None:
        """Stop changing answers."""
        self.page.unroute_all(behavior="wait")

    def watch(self, script: str) -> None:
        """Run a script before each page that opens from now on, and load every page anew, without the cache."""
        self.page.add_init_script(script)
        self._cdp = self.page.context.new_cdp_session(self.page)
        self._cdp.send("Network.setCacheDisabled", {"cacheDisabled": True})

    def headers(self, url: str) -> dict[str, str]:
        """Open a URL; return the headers of the page that it leads to."""
        response = self.page.goto(url)
        return {} if response is None else dict(response.headers)

    def get_problems(self) -> list[str]:
        """Return the errors of the console: violations of the policy, exceptions of scripts."""
        return self.problems


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=sys.argv[1], args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        driver = Driver(browser)
        print(json.dumps({"value": browser.version}), flush=True)
        for line in sys.stdin:
            method, arguments, named = json.loads(line)
            try:
                answer = {"value": getattr(driver, method)(*arguments, **named)}
            except Exception as error:  # noqa: BLE001 because the other side raises it
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
        browser.close()


main()
