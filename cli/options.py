"""Options that every command spells alike."""

from typing import Annotated

import typer

from avvp_pipe.store import DEFAULT_STORE

StorePath = Annotated[
    str,
    typer.Option("--store", envvar="AVVP_PIPE_STORE", help="Folder or s3:// URL of artifacts.", show_default=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done, and why; do nothing.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Build anew what the store already has.")]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Try again the clips that failed or whose files have changed; take over the others."
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds", help="Several seeds between commas: an artifact NAME-seedN of each, and mean and spread of scores."
    ),
]

DEFAULT_STORE_PATH = DEFAULT_STORE
