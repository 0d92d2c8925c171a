"""How much memory this program has had."""
import re
import resource
from pathlib import Path


def peak_mb() -> float:
    """The most resident memory so far, in MB. Linux counts anew when a program begins (VmHWM); `ru_maxrss`, which serves elsewhere, begins at what
    the parent had when it forked, and would call a large parent a large child."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
