"""The page that participants see: the same with a server and without."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from clade.io.atomic import atomic_path
from clade.tools.study.study import Screen, Study, blinded, plan, screens_to_json

INDEX = "index.html"


def page(study: Study, screens: Sequence[Screen] | None = None) -> str:
    """The page; with ``screens`` it needs no server, shuffles them, and gives the answers as a file."""
    value = {
        "id": study.id,
        "ask": study.ask,
        "intro": study.intro,
        "count": len(study.questions),
        "screens": None if screens is None else screens_to_json(screens),
    }
    template = resources.files("clade.tools.study").joinpath("page.html").read_text(encoding="utf-8")
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")  # nothing there can end the script element
    return template.replace("__STUDY__", text)


def write_page(study: Study, folder: Path) -> None:
    """Write ``index.html``. The sides are balanced over each pair; a browser exchanges all of them or none."""
    screens = plan(study, random.Random(blinded(study.secret, "static")).randrange(1 << 30))
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(page(study, screens), encoding="utf-8")


def content_policy(text: str) -> str:
    """Content-Security-Policy that allows the page's own code and style, pictures from here, and nothing else."""
    script, style = (
        " ".join(f"'sha256-{_digest(part)}'" for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL))
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
