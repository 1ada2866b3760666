"""Asks PyPI for published vulnerabilities of what is installed; part of `make lint`.

Fails where a fixed version could be installed, and says what else is known. Without an answer from
PyPI it says so in one line and passes: style and types are checked on trains, too.
"""

import json
import subprocess
import sys

COMMAND = ("-m", "pip_audit", "--vulnerability-service", "pypi", "--skip-editable", "--format=json")
LIMIT_S = 180


def main() -> int:
    """The exit code."""
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND], capture_output=True, text=True, timeout=LIMIT_S
        )
        installed = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"dependencies are not audited: no answer from PyPI within {LIMIT_S} s")
        return 0
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]
        print(f"dependencies are not audited: {reason}")
        return 0
    skipped = [one for one in installed if "skip_reason" in one]
    if len(skipped) == len(installed):
        print(f"dependencies are not audited: {skipped[0]['skip_reason']}, and so for all others")
        return 0
    known = [(one, found) for one in installed for found in one.get("vulns", ())]
    for one, found in known:
        fixed = ", ".join(found["fix_versions"]) or "nowhere yet"
        print(f"{one['name']} {one['version']}: {found['id']}, fixed in {fixed}")
    print(f"dependencies: {len(installed) - len(skipped)} audited, {len(known)} vulnerabilities")
    if skipped:
        print(f"not audited, not as such on PyPI: {', '.join(one['name'] for one in skipped)}")
    return int(any(found["fix_versions"] for _, found in known))


if __name__ == "__main__":
    sys.exit(main())
