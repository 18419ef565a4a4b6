"""The command line. Worker processes import the script that started the tool: it has to stay light."""

from __future__ import annotations


def main() -> int:
    """Run the command line of this process and give its exit code."""
    from bisect_trt.cli import app

    return app.main()
