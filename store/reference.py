"""How people and records name artifacts: `kind/name`, `kind/name@key`, `kind/name@tag`, `kind/name@latest`."""

import re
from dataclasses import dataclass

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.identity import KEY_DIGITS

KINDS = ("dataset", "media", "features", "generator", "thresholds", "labels", "parser", "predictions", "scores")
LATEST = "latest"
"""The version that means the one finished last."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_DIGITS = re.compile(rf"[0-9a-f]{{1,{KEY_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact (with a version) or the current one of a name (without)."""

    kind: str
    name: str
    version: str | None = None
    """A key or the first digits of one, a tag, or `latest`."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f"@{self.version}" if self.version else "")


def parse_reference(text: str, *, kind: str | None = None) -> Reference:
    """Read `kind/name[@version]`; where `kind` is given, the bare `name[@version]` will do.

    Raises StoreError where the text is no reference, or is one of another kind than `kind`.

    >>> parse_reference("labels/llp-uwav@1a2b3c4d5e6f")
    Reference(kind='labels', name='llp-uwav', version='1a2b3c4d5e6f')
    >>> str(parse_reference("llp@paper", kind="dataset"))
    'dataset/llp@paper'
    """
    path, _, version = text.partition("@")
    given, _, name = path.rpartition("/")
    given = given or kind or ""
    if given not in KINDS or not _NAME.fullmatch(name) or ("@" in text and not _NAME.fullmatch(version)):
        raise StoreError(
            f"{text!r} is not an artifact reference; "
            "wanted kind/name, kind/name@key, kind/name@tag or kind/name@latest, "
            f"with a kind out of {', '.join(KINDS)} and names and tags of letters, digits and . _ + -"
        )
    if kind is not None and given != kind:
        raise StoreError(f"{text!r} names a {given} artifact where one of kind {kind} is wanted")
    return Reference(given, name, version or None)


def check_tag(tag: str) -> str:
    """A tag that may be given. Raises StoreError for one that could be taken for something else.

    >>> check_tag("paper-v1")
    'paper-v1'
    """
    if tag == LATEST or _DIGITS.fullmatch(tag) or not _NAME.fullmatch(tag):
        raise StoreError(
            f"{tag!r} cannot be a tag; wanted letters, digits and . _ + -, not `{LATEST}`, and nothing that reads "
            f"as the digits of a key (up to {KEY_DIGITS} of 0-9 a-f)"
        )
    return tag
