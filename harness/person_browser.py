"""The browser of a person, without script: pages and forms of a running server, over HTTP."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx2

from harness.patience import PATIENCE_S

PASSWORD = "four words are fine"
_CONTINUE = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]+)">')


class Forms(HTMLParser):
    """The forms of a page, each with its action and the values of its fields, and the scripts of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.options: dict[str, str] = {}
        """options of a passkey, by the action of the form"""
        self.scripts: list[str] = []
        self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        name, value = named.get("name") or "", named.get("value") or ""
        if tag == "form":
            self.forms.append((named.get("action") or "", {}))
            if "data-options" in named:
                self.options[self.forms[-1][0]] = named["data-options"] or ""
        elif tag in ("input", "button") and self.forms and name:
            self.forms[-1][1].setdefault(name, value)
        elif tag == "select":
            self._select = name
        elif tag == "option" and self.forms and self._select and "selected" in named:
            self.forms[-1][1][self._select] = value
        elif tag == "script":
            self.scripts.append(named.get("src") or "inline")


def _field(page: str, scope: str) -> str:
    """Return the name of the field of a scope on a consent page."""
    found = re.search(rf'name="([^"]*{re.escape(scope)}[^"]*)"', page)
    assert found is not None, page
    return found[1]


class PersonBrowser:
    """A browser of one person at the server `url`. It follows redirects within the server, and does not follow a
    redirect to another server.
    """

    def __init__(self, url: str) -> None:
        # pages for people are served at the host name, not at the address
        self._own = (f"{url}/", url.replace("127.0.0.1", "localhost") + "/")
        self._page = url
        self._http = httpx2.Client(trust_env=False, timeout=PATIENCE_S)
        self._cookies: dict[str, str] = {}
        self.text = ""
        self.left_to = ""
        """the URL outside the server to which the last answer leads"""

    def __enter__(self) -> PersonBrowser:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def set_up(self, link: str) -> None:
        """Follow a setup link, and set the password."""
        self.get(link)
        self.submit("/setup", password=PASSWORD, repeated=PASSWORD)

    def authorize(self, url: str, *, decision: str = "allow", without: str = "") -> str:
        """Open an authorization URL, decide where the server asks, and return the URL to which it leads.

        `without` is a scope that the person unticks.
        """
        self.get(url)
        if not self.left_to:
            self.submit("/consent", decision=decision, **({_field(self.text, without): ""} if without else {}))
        assert self.left_to, self.text
        return self.left_to

    def get(self, url: str) -> None:
        """Open a page."""
        self._send("GET", url)

    def submit(self, action: str, **fields: str) -> None:
        """Send the form that leads to `action`, with these fields changed."""
        found = [values for one, values in Forms(self.text).forms if one.endswith(action)]
        assert found, f"no form leads to {action}: {self.text}"
        sent = {**found[0], **fields}
        self._send("POST", action, {name: value for name, value in sent.items() if value})

    def _send(self, method: str, url: str, fields: dict[str, str] | None = None) -> None:
        self.left_to = ""
        url = urljoin(self._page, url)
        if not url.startswith(self._own):
            self.left_to = url
            return
        self._page = url
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if method == "POST":
            headers["origin"] = "/".join(url.split("/")[:3])
        response = self._http.request(method, url, data=fields, headers=headers)
        for cookie in response.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        self.text = response.text
        if response.is_redirect:
            self._send("GET", urljoin(url, response.headers["location"]))
        elif (following := _CONTINUE.search(self.text)) is not None:
            self._send("GET", unescape(following[1]))
