"""How people and records name artifacts: `kind/name` or `kind/name@key`."""

import re
from dataclasses import dataclass

from avvp_pipe.store.errors import StoreError

KINDS = ("dataset", "media", "features", "generator", "thresholds", "labels", "parser", "scores")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact (with a version) or the newest of a name (without)."""

    kind: str
    name: str
    version: str | None = None
    """A key, or the first digits of one."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f"@{self.version}" if self.version else "")


def parse_reference(text: str, *, kind: str | None = None) -> Reference:
    """Read `kind/name[@key]`; where `kind` is given, the bare `name[@key]` will do.

    Raises StoreError where the text is no reference, or is one of another kind than `kind`.

    >>> parse_reference("labels/llp-uwav@1a2b3c4d5e6f")
    Reference(kind='labels', name='llp-uwav', version='1a2b3c4d5e6f')
    >>> str(parse_reference("llp", kind="dataset"))
    'dataset/llp'
    """
    path, _, version = text.partition("@")
    given, _, name = path.rpartition("/")
    given = given or kind or ""
    if given not in KINDS or not _NAME.fullmatch(name) or ("@" in text and not version):
        raise StoreError(
            f"{text!r} is not an artifact reference; wanted kind/name or kind/name@key, "
            f"with a kind out of {', '.join(KINDS)} and a name of letters, digits and . _ + -"
        )
    if kind is not None and given != kind:
        raise StoreError(f"{text!r} names a {given} artifact where one of kind {kind} is wanted")
    return Reference(given, name, version or None)
