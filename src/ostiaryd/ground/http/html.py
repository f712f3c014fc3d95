"""Pages for people: HTML from templates, with headers that keep scripts, frames, caches and referrers out.

A template is named `PACKAGE/FILE`: `trust/login.html` is `ostiaryd/trust/pages/login.html`. It extends
`ground/base.html` (in `ground/http/templates`) and may use:

    base            path prefix of the public URL, before each link: `{{ base }}/account`
    host            host and port of the public URL, which a person compares with the address bar
    here            name of the page in the navigation, or none
    asset("NAME")   path of a file of `ground/http/assets`, with its digest in the name
    person          name of the person who is signed in, or none

Pages work without script; `script=True` admits the static script of passkeys. A form is sent to this server. Browsers
apply `form-action` to the redirects after a form as well: a page whose form ends at another origin names the origin in
`form_action`, or the form leads to `continue_page`, from which the browser navigates anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from ostiary.protocol.errors import NotFound, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import NO_SNIFF, NO_STORE, Call, Headers, Render, Reply, retry_headers, status_of
from ostiaryd.ground.http.routes import FORM, Content, Route, RouteProtocol

HTML = "text/html; charset=utf-8"
HTML_BODY = Content(media_types=("text/html",))
"""A response that is an HTML page, for the description of a `Route`."""
HTML_FORM = Content(dict[str, str], media_types=FORM)
"""A request body that an HTML form sends, for the description of a `Route`."""
_MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FIXED: Headers = [
    NO_STORE,
    (b"x-frame-options", b"DENY"),
    NO_SNIFF,
    # with `no-referrer`, browsers would send `Origin: null` with the forms of this server
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
_HTML = re.compile(r"text/html(?!.*;q=0(?:\.0*)?(?:;|\Z))(?:;.*)?")
"""A range of media types with HTML alone, with a weight above 0 (RFC 9110 section 12.5.1)."""
_LOGIN_FAILED = (
    *("login_refused", "provider_refused", "no_login_in_progress", "login_expired", "wrong_state", "mixed_up"),
    *("no_code", "code_refused", "replayed", "not_asked_again", "account_not_accepted", "no_account"),
)
"""Codes of refusals of a login by an identity provider."""
_TITLES: dict[str | int, str] = {
    **dict.fromkeys(_LOGIN_FAILED, "Signing in did not work"),
    "session_ended": "You are signed out",
    "forged_form": "This form has expired",
    "setup_link_ended": "This link has ended",
    "invalid_client": "This application is not known",
    "document_unavailable": "This application cannot be checked now",
    "provider_unavailable": "Signing in there does not work now",
    "invalid_request": "The application sent a wrong request",
    400: "This did not work",
    403: "This is not allowed",
    404: "There is no such page",
    405: "There is no such page",
    429: "Too many attempts",
    500: "The server failed",
    503: "The server is busy",
}
"""Title of the page for a refusal, by its code or its HTTP status."""


def page(
    call: Call,
    template: str,
    *,
    status: int = 200,
    form_action: Collection[str] = (),
    script: bool = False,
    headers: Headers | None = None,
    **values: Any,
) -> Reply:
    """Return a page made from a template with `values`. `form_action`: the other origins to which its forms may lead.
    `script`: whether the static script of passkeys may run. `headers`: further headers of the reply.
    """
    return _render(
        template, call.world.config, status=status, form_action=form_action, script=script, headers=headers, **values
    )


def continue_page(call: Call, url: str, *, title: str) -> Reply:
    """Return a page from which the browser continues immediately to `url`. Use this page instead of a redirect if a
    form leads to another origin: browsers apply `form-action` to redirects after a form.
    """
    return page(call, "ground/continue.html", url=url, title=title)


def see_other(call: Call, path: str, *, headers: Headers | None = None) -> Reply:
    """Return a 303 redirect to a path of this server, as the response to a form. The path may have a query."""
    location = (base_path(call.world.config) + path).encode("ascii")
    return Reply(303, b"", HTML, [(b"location", location), *_FIXED, *(headers or [])])


def redirect(url: str) -> Reply:
    """Return a redirect to a URL that this server has made, for a GET request."""
    return Reply(303, b"", HTML, [(b"location", url.encode("ascii")), *_FIXED])


def base_path(config: Config) -> str:
    """Return the path prefix of the public URL: empty, or `/PATH`."""
    return urlsplit(config.public_url).path


def page_url(config: Config) -> str:
    """Return the base URL of pages for people: the public URL, with `localhost` in place of a loopback address."""
    return _name_loopback(config.public_url)


@lru_cache(maxsize=16)
def _name_loopback(public_url: str) -> str:
    url = urlsplit(public_url)
    try:
        is_loopback = ip_address(url.hostname or "").is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        return public_url
    return f"{url.scheme}://localhost{f':{url.port}' if url.port else ''}{url.path}"


def render_error(refusal: Refused, *, config: Config | None = None) -> Reply:
    """Return the page for a refusal: the error and the next step."""
    status = status_of(refusal)
    title = _TITLES.get(refusal.code) or _TITLES.get(status) or _TITLES[400]
    leads_to_login = refusal.code in (*_LOGIN_FAILED, "provider_unavailable", "session_ended")
    return _render(
        "ground/error.html",
        config,
        status=status,
        headers=retry_headers(refusal),
        title=title,
        refusal=refusal,
        leads_to_login=leads_to_login,
    )


PAGES = RouteProtocol("Pages", render_error, None)
"""Protocol of routes for browsers: refusals are pages."""


def page_renderer(config: Config) -> Render:
    """Return `render_error` for this configuration, with the links of this server."""
    return lambda refusal: render_error(refusal, config=config)


def accepts_html(accept: Sequence[str]) -> bool:
    """Return whether the values of the header `Accept` name HTML, as those of browsers do. `*/*` alone does not count:
    programs send it too.
    """
    ranges = [one.strip().lower().replace(" ", "") for value in accept for one in value.split(",")]
    return any(_HTML.fullmatch(one) is not None for one in ranges)


async def show_asset(call: Call) -> Reply:
    """Return a stylesheet, script or icon of the pages. The content under a name never changes."""
    asset = _assets().get(call.params["name"])
    if asset is None:
        raise NotFound("not found")
    media_type, body = asset
    headers = [
        (b"cache-control", b"public, max-age=31536000, immutable"),
        NO_SNIFF,
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    return Reply(200, body, media_type, headers)


ROUTES = (
    Route(
        "GET",
        "/assets/{name}",
        show_asset,
        "",
        answers={200: Content(media_types=("text/css", "text/javascript", "image/svg+xml"))},
    ),
)


def _render(
    template: str,
    config: Config | None,
    *,
    status: int,
    form_action: Collection[str] = (),
    script: bool = False,
    headers: Headers | None = None,
    **values: Any,
) -> Reply:
    base = "" if config is None else base_path(config)
    host = "" if config is None else urlsplit(page_url(config)).netloc
    values = {"person": None, "here": None, **values}
    text = _environment().get_template(template).render(base=base, host=host, script=script, **values)
    csp = [
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        " ".join(["form-action 'self'", *form_action]),
        "base-uri 'none'",
        "frame-ancestors 'none'",
        *(["script-src 'self'"] if script else []),
    ]
    named = [(b"content-security-policy", "; ".join(csp).encode("ascii")), *_FIXED, *(headers or [])]
    return Reply(status, text.encode(), HTML, named)


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_load),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    environment.globals["asset"] = _asset_names().__getitem__
    environment.filters["sentence"] = _sentence
    environment.filters["time"] = _time
    return environment


def _sentence(text: str) -> Markup:
    """Return a message as an HTML sentence: with a capital letter, a full stop, and text between backticks as code."""
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    parts = [escape(part) for part in f"{ended[:1].upper()}{ended[1:]}".split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _time(at: int) -> Markup:
    """Return a time (microseconds) as HTML text for people, in UTC."""
    moment = datetime.fromtimestamp(at // 1_000_000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%d %b %Y, %H:%M} UTC")


def _load(name: str) -> str | None:
    package, _, file = name.partition("/")
    folder = (
        files("ostiaryd.ground.http") / "templates" if package == "ground" else files(f"ostiaryd.{package}") / "pages"
    )
    template = folder / file
    return template.read_text("utf-8") if template.is_file() else None


@lru_cache(1)
def _assets() -> Mapping[str, tuple[str, bytes]]:
    """Return the media type and the content of each asset, by the name under which it is served."""
    contents = {file.name: file.read_bytes() for file in (files("ostiaryd.ground.http") / "assets").iterdir()}
    return MappingProxyType(
        {_asset_names()[name]: (_MEDIA_TYPES[name.rpartition(".")[2]], body) for name, body in contents.items()}
    )


@lru_cache(1)
def _asset_names() -> Mapping[str, str]:
    """Return the name under which an asset is served, by the name of its file: `style-0123456789abcdef.css` for
    `style.css`.
    """
    names = {}
    for file in (files("ostiaryd.ground.http") / "assets").iterdir():
        stem, _, suffix = file.name.rpartition(".")
        names[file.name] = f"{stem}-{sha256(file.read_bytes()).hexdigest()[:16]}.{suffix}"
    return MappingProxyType(names)
