"""The web console: one page for every path below `/console`, and the page's assets, which `make console` builds.

The name of an asset contains a digest of its content, so browsers may cache assets without a time limit. `dist` has
each asset three times: plain, compressed with gzip, and compressed with Brotli. The request's Accept-Encoding chooses
(RFC 9110 section 12.5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from ostiary.protocol.errors import NotFound
from ostiaryd.ground.http.edge import NO_SNIFF, NO_STORE, Call, Headers, Reply
from ostiaryd.ground.http.html import HTML, HTML_BODY, PAGES, base_path, redirect, see_other
from ostiaryd.ground.http.routes import NOT_FOUND, Content, Route
from ostiaryd.ground.world import World
from ostiaryd.trust.flows.sessions import find_page_host, session_of
from ostiaryd.trust.model.sessions import Demand, parse_return

_MEDIA_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
_ENCODINGS = {"br": ".br", "gzip": ".gz"}
"""File name suffix of each content coding; the coding with the smallest files is first."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "worker-src 'self'",
        "trusted-types worker",
    )
)
_FIXED: Headers = [
    NO_SNIFF,
    (b"cross-origin-resource-policy", b"same-origin"),
]
_PAGE_HEADERS: Headers = [
    NO_STORE,
    (b"content-security-policy", _POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    *_FIXED,
]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the console: its media type, and its bytes by content coding; the coding "" is the uncompressed
    file.
    """

    media_type: str
    contents: Mapping[str, bytes]


class Console:
    """The page, the service worker and the assets of the console. `page` and `worker` are None if the server was
    installed without the console.
    """

    def __init__(self, world: World) -> None:
        dist = files("ostiaryd.console") / "dist"
        index = dist / "index.html"
        self.assets: Mapping[str, Asset] = MappingProxyType({})
        self.page: bytes | None = None
        self.worker: bytes | None = None
        if index.is_file():
            base = f"{base_path(world.config)}/console/"
            self.page = index.read_text("utf-8").replace('"./', f'"{base}').encode()
            self.worker = (dist / "worker.js").read_bytes()
            self.assets = MappingProxyType(_read_assets(dist / "assets"))


def _read_assets(folder: Traversable) -> dict[str, Asset]:
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {
        name: Asset(
            _MEDIA_TYPES[name.rpartition(".")[2]],
            {"": body, **{coding: contents[name + suffix] for coding, suffix in _ENCODINGS.items()}},
        )
        for name, body in contents.items()
        if not name.endswith(tuple(_ENCODINGS.values()))
    }


async def show_console(call: Call) -> Reply:
    """Show the console to a person who is signed in; redirect any other browser to the login page.

    A browser that opened a loopback address, such as `127.0.0.1`, is first redirected to `localhost`.
    """
    if call.params.get("path", "").startswith("assets/"):
        raise NotFound("not found")
    if (url := find_page_host(call)) is not None:
        return redirect(url)
    if await session_of(call) is None:
        path = f"{call.path}?{call.query}" if call.query else call.path
        return see_other(call, Demand(return_to=parse_return(path, otherwise="/console")).login_path)
    page = call.world.get_singleton(Console).page
    if page is None:
        raise NotFound(
            "this server was installed without the console",
            hint="run `make console` in the source folder, or install a released wheel; then restart the server",
            code="no_console",
        )
    return Reply(200, page, HTML, [*_PAGE_HEADERS])


async def open_console(call: Call) -> Reply:
    """Redirect a browser that opens the address of the server to the console."""
    return see_other(call, "/console")


async def show_console_asset(call: Call) -> Reply:
    """Return a script, stylesheet or picture of the console.

    Browsers may cache an asset forever, since a changed asset gets a new name.
    """
    asset = call.world.get_singleton(Console).assets.get(call.params["name"])
    if asset is None:
        raise NotFound("not found")
    coding = next((one for one in _ENCODINGS if one in _accepted(call)), "")
    headers = [(b"cache-control", b"public, max-age=31536000, immutable"), (b"vary", b"accept-encoding"), *_FIXED]
    if coding:
        headers.append((b"content-encoding", coding.encode()))
    return Reply(200, asset.contents[coding], asset.media_type, headers)


async def show_console_worker(call: Call) -> Reply:
    """Return the service worker of the console. The worker shows Web Push messages to the person."""
    worker = call.world.get_singleton(Console).worker
    if worker is None:
        raise NotFound("not found")
    return Reply(200, worker, _MEDIA_TYPES["js"], [(b"cache-control", b"no-cache"), *_FIXED])


def _accepted(call: Call) -> set[str]:
    """Return the content codings that the browser accepts (RFC 9110 section 12.5.3)."""
    accepted = set()
    for item in (call.header(b"accept-encoding") or "").lower().split(","):
        coding, _, weight = item.partition(";")
        if weight.strip().removeprefix("q=").rstrip("0.") or not weight:
            accepted.add(coding.strip())
    return accepted


ROUTES = (
    Route("GET", "/", open_console, "", protocol=PAGES, answers={303: None}),
    Route(
        "GET", "/console", show_console, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}, errors=(NOT_FOUND,)
    ),
    Route(
        "GET",
        "/console/assets/{name}",
        show_console_asset,
        "",
        answers={200: Content(media_types=("text/javascript", "text/css", "image/svg+xml"))},
        errors=(NOT_FOUND,),
    ),
    Route(
        "GET",
        "/console/worker.js",
        show_console_worker,
        "",
        answers={200: Content(media_types=("text/javascript",))},
        errors=(NOT_FOUND,),
    ),
    Route(
        "GET",
        "/console/{path:path}",
        show_console,
        "",
        protocol=PAGES,
        answers={200: HTML_BODY, 303: None},
        errors=(NOT_FOUND,),
    ),
)
