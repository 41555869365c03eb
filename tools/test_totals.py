#!/usr/bin/env python3
"""Prints "PASSED FAILED" of a JUnit report that ctest or pytest wrote. Tests that say themselves that they skip count as neither."""

import sys
import xml.etree.ElementTree as ElementTree


def totals(report_path):
    passed = failed = 0
    for case in ElementTree.parse(report_path).getroot().iter("testcase"):
        status = case.get("status")
        if status is None:  # pytest says nothing of one that passed
            said = {child.tag for child in case}
            if said & {"failure", "error"}:
                failed += 1
            elif "skipped" not in said:
                passed += 1
        elif status == "run":
            passed += 1
        elif status == "disabled":
            continue
        elif status == "notrun":
            # ctest writes "notrun" both for a test that skips and for one whose program is missing.
            skipped = case.find("skipped")
            if skipped is None or not skipped.get("message", "").startswith("SKIP_"):
                failed += 1
        else:
            failed += 1
    return passed, failed


if __name__ == "__main__":
    print(*totals(sys.argv[1]))
