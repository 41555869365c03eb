"""Each rule of ./dev check fails on a tree that breaks it, names file and line, and is silent on one that does not."""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

from checks import formatting  # noqa: E402  (after sys.path)
from checks.formatting import check_format
from checks.headers import check_headers
from checks.includes import check_includes
from checks.lengths import check_lengths
from checks.sources import check_sources
from checks.tree import Tree
from checks.words import check_words


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)

    def tree(self, files):
        for path, text in files.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Tree(self.root, files)

    def found(self, findings):
        return [(finding.path, finding.line, finding.fails) for finding in findings]


class IncludesTest(CheckTest):
    def found_in(self, path, included):
        return self.found(check_includes(self.tree({path: f'#pragma once\n#include "{included}"\n'})))

    def test_folders_below_may_be_included(self):
        for path, included in [("worker/a.h", "kernels/a.h"), ("comm/rpc/a.h", "core/a.h"), ("tests/unit/a.cpp", "worker/a.h"),
                               ("client/cli/a.cpp", "analysis/a.h")]:
            self.assertEqual(self.found_in(path, included), [], path)

    def test_folders_above_and_beside_may_not(self):
        for path, included in [("core/a.h", "kernels/a.h"), ("kernels/a.h", "comm/a.h"), ("comm/a.h", "worker/a.h"),
                               ("worker/a.h", "coordinator/a.h"), ("worker/a.h", "client/a.h"), ("coordinator/a.h", "worker/a.h"),
                               ("coordinator/a.h", "kernels/a.h"), ("client/a.h", "worker/a.h"), ("client/a.h", "analysis/a.h"),
                               ("analysis/a.h", "kernels/a.h"), ("core/a.h", "tests/a.h")]:
            self.assertEqual(self.found_in(path, included), [(path, 2, True)], f"{path} includes {included}")

    def test_the_installed_header_shows_nothing_of_the_transport(self):
        self.assertEqual(self.found_in("client/kvgrid.h", "comm/rpc/channel.h"), [("client/kvgrid.h", 2, True)])

    def test_an_include_says_its_folder(self):
        self.assertEqual(self.found_in("core/a.h", "b.h"), [("core/a.h", 2, True)])

    def test_a_library_may_be_included_with_quotes(self):
        self.assertEqual(self.found_in("kernels/a.cpp", "hwy/highway.h"), [])


class LengthsTest(CheckTest):
    def found_for(self, path, count):
        return self.found(check_lengths(self.tree({path: "x\n" * count})))

    def test_up_to_400_lines_are_fine(self):
        self.assertEqual(self.found_for("core/a.cpp", 400), [])

    def test_more_are_a_note(self):
        self.assertEqual(self.found_for("core/a.cpp", 401), [("core/a.cpp", 401, False)])

    def test_more_than_600_fail(self):
        for path in ("core/a.cpp", "kernels/a.cu", "tools/a.py", "tools/a.sh"):
            self.assertEqual(self.found_for(path, 601), [(path, 601, True)])

    def test_a_script_without_a_suffix_counts(self):
        self.assertEqual(self.found(check_lengths(self.tree({"dev": "#!/bin/sh\n" * 601}))), [("dev", 601, True)])

    def test_data_and_prose_do_not_count(self):
        self.assertEqual(self.found_for("tests/data/text.txt", 1000), [])


class WordsTest(CheckTest):
    def test_what_is_put_off_fails_in_code(self):
        for word in ("TO" + "DO", "FIX" + "ME", "X" + "XX"):
            tree = self.tree({"core/a.cpp": f"int a;\n// {word}: later\n", "docs/a.md": f"{word}\n"})
            self.assertEqual(self.found(check_words(tree)), [("core/a.cpp", 2, True)])

    def test_a_template_for_mkstemp_is_no_such_word(self):
        self.assertEqual(self.found(check_words(self.tree({"core/a.cpp": 'char name[] = "/tmp/kvgrid-XXXXXX";\n'}))), [])

    def test_a_home_directory_fails_everywhere(self):
        for home in ("/home/" + "ada/x", "/ro" + "ot/x", "/Users/" + "ada"):
            self.assertEqual(self.found(check_words(self.tree({"docs/a.md": f"see\n{home}\n"}))), [("docs/a.md", 2, True)])

    def test_other_paths_are_fine(self):
        self.assertEqual(self.found(check_words(self.tree({"docs/a.md": "/var/lib/x docs/ro" + "ot/x $HOME/" + "x https://a.b/home/" + "c\n"}))), [])

    def test_binary_files_are_not_read(self):
        self.assertEqual(self.found(check_words(self.tree({"tests/a.bin": b"\0\n/ro" + b"ot/x\n"}))), [])


class SourcesTest(CheckTest):
    def test_listed_sources_that_exist_are_fine(self):
        tree = self.tree({"core/CMakeLists.txt": "kvgrid_library(a\n  SOURCES a.cpp\n    deep/b.cpp\n  PUBLIC c)\n",
                          "core/a.cpp": "", "core/deep/b.cpp": ""})
        self.assertEqual(self.found(check_sources(tree)), [])

    def test_a_listed_source_that_does_not_exist_fails(self):
        tree = self.tree({"core/CMakeLists.txt": "kvgrid_library(a\n  SOURCES a.cpp)\n"})
        self.assertEqual(self.found(check_sources(tree)), [("core/CMakeLists.txt", 2, True)])

    def test_a_source_that_is_not_listed_fails(self):
        tree = self.tree({"core/CMakeLists.txt": "# a.cpp\n", "core/a.cpp": ""})
        self.assertEqual(self.found(check_sources(tree)), [("core/a.cpp", 1, True)])

    def test_paths_from_the_root_and_names_that_cmake_makes_are_understood(self):
        tree = self.tree({"tests/a/CMakeLists.txt": "x(${PROJECT_SOURCE_DIR}/core/a.cpp ${name}_test.cpp)\n",
                          "core/a.cpp": "", "tests/a/b_test.cpp": ""})
        self.assertEqual(self.found(check_sources(tree)), [])


@unittest.skipUnless(formatting.find_clang_format()[0], "clang-format is not installed")
class FormatTest(CheckTest):
    def files(self, text):
        return {".clang-format": (ROOT / ".clang-format").read_text(), "core/a.h": text}

    def test_a_file_in_form_is_fine(self):
        self.assertEqual(self.found(check_format(self.tree(self.files("int a(int b);\n")), jobs=1)), [])

    def test_another_form_fails_where_version_14_says_so(self):
        decides = formatting.find_clang_format()[1] == formatting.VERSION
        tree = self.tree(self.files("int b;\nint   a( int b );\n"))
        self.assertEqual(self.found(check_format(tree, jobs=1)), [("core/a.h", 2, decides)])

    def test_a_broken_configuration_is_no_success(self):
        tree = self.tree({".clang-format": "NoSuchKey: 1\n", "core/a.h": "int a;\n"})
        with self.assertRaises(RuntimeError):
            list(check_format(tree, jobs=1))


@unittest.skipUnless(shutil.which("g++"), "g++ is not installed")
class HeadersTest(CheckTest):
    def found_in(self, files):
        build = self.root / "build"
        build.mkdir(exist_ok=True)
        (build / "compile_commands.json").write_text(json.dumps(
            [{"directory": "/", "file": "a.cpp", "command": f"env A=b ccache g++ -I{self.root} -O3 -o a.o -c a.cpp"}]))
        return self.found(check_headers(self.tree(files), build, jobs=1))

    def test_a_header_that_includes_what_it_uses_is_fine(self):
        self.assertEqual(self.found_in({"core/a.h": "#pragma once\n#include <string>\ninline std::string a;\n"}), [])

    def test_one_that_does_not_fails_where_the_compiler_says(self):
        self.assertEqual(self.found_in({"core/a.h": "#pragma once\ninline std::string a;\n"}), [("core/a.h", 2, True)])

    def test_one_that_cannot_be_included_twice_fails(self):
        self.assertEqual(self.found_in({"core/a.h": "struct A {};\n"}), [("core/a.h", 1, True)])

    def test_a_change_below_is_noticed_though_good_headers_are_remembered(self):
        above = "#pragma once\n#include \"core/b.h\"\ninline B b;\n"
        self.assertEqual(self.found_in({"core/a.h": above, "core/b.h": "#pragma once\nstruct B {};\n"}), [])
        self.assertEqual(self.found_in({"core/a.h": above, "core/b.h": "#pragma once\nstruct C {};\n"}), [("core/a.h", 3, True)])

    def test_files_that_highway_includes_again_are_exempt(self):
        self.assertEqual(self.found_in({"kernels/a-inl.h": "struct A {};\nstruct A {};\n"}), [])


if __name__ == "__main__":
    unittest.main()
