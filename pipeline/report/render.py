"""One HTML page out of a report's records: template, style and script in the file, and nothing from elsewhere.

Names of clips and classes come from strangers. Jinja2 escapes them in the page; in the JSON for the script `<`, `>` and
`&` are spelled out, and the script puts them into the page as text alone. A content security policy allows the page's
own script and style by their digests, pictures within the file, and no requests.
"""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from avvp_pipe.pipeline.report.packing import contents, packed
from avvp_pipe.pipeline.report.records import LEVELS, METRICS, Percent, Report
from avvp_pipe.pipeline.report.svg import curve_chart, history_chart, said

__all__ = ["render", "script_json"]

PAGE = "page"
VIEWER_BYTES = 40_000
"""What the viewer's script and forms add to a page, without its data."""
SCRIPTS = ("data.js", "order.js", "draw.js", "viewer.js")


def render(report: Report) -> str:
    """The page as text."""
    script = "(() => {\n'use strict';\n" + "\n".join(_text(name) for name in SCRIPTS) + "\n})();\n"
    style = _text("report.css")
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["plain"] = plain_value
    environment.globals.update(curve_chart=curve_chart, history_chart=history_chart, said=said, anchor=anchor)
    return environment.get_template("report.html.j2").render(
        report=report,
        levels=LEVELS,
        metrics=METRICS,
        script=Markup(script),
        style=Markup(style),
        policy=policy(script, style),
        missing=missing_pictures(report),
        **_viewer(report),
    )


def _text(name: str) -> str:
    return files("avvp_pipe.pipeline.report").joinpath(PAGE, name).read_text("utf-8")


def _viewer(report: Report) -> dict[str, Any]:
    if report.clips is None:
        return {"contents": None, "arrays": "", "strips": ""}
    text, table = packed(report.clips)
    strips = "".join(base64.b64encode(strip).decode("ascii") for strip in report.pictures.strips)
    about = contents(report.clips, table, report.pictures)
    return {"contents": Markup(script_json(about)), "arrays": Markup(text), "strips": Markup(strips)}


def script_json(document: Any) -> str:
    r"""JSON that may stand within a script element: nothing in it ends the element or begins a comment.

    >>> print(script_json("</script><!--"))
    "\u003c/script\u003e\u003c!--"
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for one in "<>&":
        text = text.replace(one, f"\\u{ord(one):04x}")
    return text


def policy(script: str, style: str) -> str:
    """What the page may do: run this script, use this style, show pictures that it holds; nothing else."""
    allowed = {"script-src": script, "style-src": style}
    own = "; ".join(
        f"{name} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for name, text in allowed.items()
    )
    return f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"


def percent(value: Percent) -> str:
    """One decimal, as scores are reported.

    >>> percent(71.25), percent(None)
    ('71.2', '-')
    """
    return "-" if value is None else f"{value:.1f}"


def plain_value(value: Any, limit: int = 300) -> str:
    """A parameter as it is shown.

    >>> plain_value(None), plain_value(0.5), plain_value("auto")
    ('none', '0.5', 'auto')
    """
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= limit else f"{text[:limit]}…"


def anchor(reference: str) -> str:
    """The place on the page where an artifact's origin is told.

    >>> anchor("labels/a@0123")
    'of-labels-a-0123'
    """
    return "of-" + "".join(one if one.isalnum() else "-" for one in reference)


def missing_pictures(report: Report) -> dict[str, list[str]]:
    """Why -> the clips that have no picture for that reason."""
    found: dict[str, list[str]] = {}
    names = report.clips.video_ids if report.clips is not None else ()
    for name, reason in zip(names, report.pictures.reasons, strict=True):
        if reason:
            found.setdefault(reason, []).append(name)
    return found
