"""The line that ends ./dev test counts every test once, and counts one that could not run as failed."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))

from test_totals import totals  # noqa: E402  (after sys.path)


class TotalsTest(unittest.TestCase):
    def totals_of(self, cases):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as report:
            report.write(f"<testsuite name='x'>{cases}</testsuite>")
            report.flush()
            return totals(report.name)

    def test_passed_and_failed_tests_are_counted(self):
        self.assertEqual(self.totals_of("<testcase name='a' status='run'/><testcase name='b' status='run'/>"
                                        "<testcase name='c' status='fail'><failure/></testcase>"), (2, 1))

    def test_a_missing_program_is_a_failure(self):
        self.assertEqual(self.totals_of("<testcase name='a' status='notrun'><skipped message='Unable to find executable'/></testcase>"),
                         (0, 1))

    def test_skipped_and_disabled_tests_are_neither(self):
        self.assertEqual(self.totals_of("<testcase name='a' status='notrun'><skipped message='SKIP_RETURN_CODE=77'/></testcase>"
                                        "<testcase name='b' status='disabled'/>"), (0, 0))

    def test_pytest_marks_only_what_did_not_pass(self):
        self.assertEqual(self.totals_of("<testcase name='a'/><testcase name='b'><failure/></testcase><testcase name='c'><error/></testcase>"
                                        "<testcase name='d'><skipped message='no'/></testcase>"), (1, 2))


if __name__ == "__main__":
    unittest.main()
