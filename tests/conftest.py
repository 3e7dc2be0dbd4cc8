"""What the long profile tried, written down: `make test-long` sets ROBUSTNB_RESULTS, and the chapter "What we test" draws it.

A test joins by the marker `long`. It says how many cases it tries by `record_property("cases", n)`; if it does not, it is one.
"""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = os.environ.get("ROBUSTNB_RESULTS")
LONG = int(os.environ.get("ROBUSTNB_EXAMPLES", "0")) >= 1000

found = {}


def pytest_runtest_logreport(report):
    """Of each long test, the worst that was reported: setup, the test itself, teardown."""
    if not (LONG and RESULTS and "long" in report.keywords):
        return
    row = found.setdefault(report.nodeid.partition("@")[0], {"cases": 1, "seconds": 0.0, "outcome": "passed"})
    row["cases"] = dict(report.user_properties).get("cases", row["cases"])
    row["seconds"] += report.duration
    if row["outcome"] == "passed":
        row["outcome"] = report.outcome


def pytest_sessionfinish(session, exitstatus):
    # With xdist the workers report to the one process that was started: it alone writes.
    if not found or exitstatus not in (0, 1) or hasattr(session.config, "workerinput"):
        return
    from robustnb.results import code_version, write_aside

    path = Path(RESULTS)
    if path.exists():
        # What another part of the profile tried of the same code stays.
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["code_version"] == code_version():
            found.update({row.pop("test"): row for row in earlier["tests"] if row["test"] not in found})
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy")},
        "code_version": code_version(),
        "tests": [{"test": name} | row | {"seconds": round(row["seconds"], 2)} for name, row in sorted(found.items())],
    }
    write_aside(path, json.dumps(written, indent=1) + "\n")
    print(f"\n{len(found)} long tests in {RESULTS}", file=sys.stderr)
