"""All benchmarks, each in a fresh process, as one table: `make bench`, or `python -m benchmarks [NAME ...]`."""
from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.table import Row

ALL = ("imports", "data", "roofline", "loop", "sharing", "teachers", "size", "panels", "gpu", "sweep", "large", "fuzz")


def main() -> int:
    """Run what was asked for, or all; 1 where one broke (a missed goal is a result, not a failure)."""
    broken = []
    for name in sys.argv[1:] or ALL:
        print(f"--- {name}", flush=True)
        process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", "--json"], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            print(Row(**json.loads(line)), flush=True)
        if process.wait():
            broken.append(name)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
