"""The console script: the command line, imported where Ctrl-C already is what it should be."""

import json
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Interrupted while it is still being imported, it ends like a command: with 130."""
    try:
        from avvp_pipe.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:
        if "--json" in sys.argv:
            print(json.dumps({"error": "interrupted"}))
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
