"""docs/protocol.md names every message type, error code and frame field as the code has them, and none that the code has not."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/protocol.md").read_text()


def enumerators(path, first_line):
    """{name: number} of the enum that starts with `first_line`."""
    text = (ROOT / path).read_text()
    body = text[text.index(first_line):]
    body = re.sub(r"//[^\n]*", "", body[: body.index("};")])
    return {name: int(number) for name, number in re.findall(r"(\w+)\s*=\s*(\d+)", body)}


def table_rows(heading, columns):
    """The first `columns` cells of the rows of the table under a heading."""
    section = PAGE[PAGE.index(f"\n## {heading}\n"):]
    end = section.find("\n## ", 4)
    rows = re.findall(r"^\|(.*)\|$", section[: end if end > 0 else None], re.MULTILINE)
    return [tuple(cell.strip().strip("`") for cell in row.split("|")[:columns]) for row in rows[2:]]


class ProtocolPage(unittest.TestCase):
    def test_every_message_type_has_its_row(self):
        types = enumerators("comm/wire/message_type.h", "enum class MessageType")
        self.assertGreater(len(types), 30)
        rows = {name: int(number) for number, name in table_rows("Message types", 2)}
        self.assertEqual(rows, types)

    def test_limits_are_those_of_the_code(self):
        source = (ROOT / "comm/wire/message_type.cpp").read_text()
        code = {
            name: (limit[1:].lower(), payload is not None)
            for name, limit, payload in (
                (m[1], m[2], m[3]) for m in re.finditer(r'Row\{\w+, "(\w+)", \w+, (\w+)(, kTensors)?\}', source)
            )
        }
        rows = {row[1]: (row[5], row[6] != "") for row in table_rows("Message types", 7)}
        self.assertEqual(rows, code)

    def test_messages_named_exist(self):
        proto = (ROOT / "comm/wire/kvgrid.proto").read_text()
        known = set(re.findall(r"^message (\w+)", proto, re.MULTILINE))
        for row in table_rows("Message types", 3):
            self.assertIn(row[2].split(" ")[-1], known, row)

    def test_every_error_code_has_its_row(self):
        codes = enumerators("core/result.h", "enum class Errc")
        self.assertGreater(len(codes), 10)
        rows = {name: int(number) for number, name in table_rows("Errors", 2)}
        self.assertEqual(rows, codes)


if __name__ == "__main__":
    unittest.main()
