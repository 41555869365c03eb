#!/usr/bin/env python3
"""`./dev check`: holds the tree to its rules. Ends with 1 if a finding fails; notes do not."""

import argparse
import os
import sys
import time

from checks.formatting import check_format
from checks.headers import check_headers
from checks.includes import check_includes
from checks.lengths import check_lengths
from checks.sources import check_sources
from checks.tree import Tree
from checks.words import check_words

RULES = {
    "format": lambda tree, options: check_format(tree, options.jobs),
    "headers": lambda tree, options: check_headers(tree, options.build, options.jobs),
    "includes": lambda tree, options: check_includes(tree),
    "lengths": lambda tree, options: check_lengths(tree),
    "words": lambda tree, options: check_words(tree),
    "sources": lambda tree, options: check_sources(tree),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"of {', '.join(RULES)}; all if none is named")
    parser.add_argument("--build", default="build/release", help="a configured build, for the headers' flags")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    unknown = set(options.rules) - set(RULES)
    if unknown:
        parser.error(f"no rule is named {', '.join(sorted(unknown))}")

    tree = Tree(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    failures = notes = 0
    for name in options.rules or RULES:
        start = time.monotonic()
        findings = sorted(RULES[name](tree, options))
        for finding in findings:
            print(finding)
        failing = sum(finding.fails for finding in findings)
        failures += failing
        notes += len(findings) - failing
        print(f"check {name}: {'ok' if not failing else f'{failing} failed'} ({time.monotonic() - start:.1f} s)")
    print(f"check: {len(tree.paths)} files, {failures} failures, {notes} notes")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
