#!/usr/bin/env python3
"""Surprisal of each word of a long text, in bits, as a reader meets it: word by word, with a window of the newest tokens in the grid.

    python client/examples/surprisal.py                          Genesis, as `bible` prints it (Debian: bible-kjv), 10,000 words
    python client/examples/surprisal.py FILE --words 500 --csv surprisal.csv --plot surprisal.svg

Words keep the text's own spaces and punctuation: a word is what stands between spaces, with the space before it. A word of several tokens has the
sum of their surprisals; the first token of all has none. In the end the time is compared with a recomputation of the prefix at each
word, measured at some lengths, and the words within the first window with the model's own.
"""

import argparse
import csv
import math
import re
import shutil
import subprocess
import sys
import time

import smollm2

import kvgrid


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a text")
    parser.add_argument("--words", type=int, default=10_000, help="of the text, at most (%(default)s)")
    parser.add_argument("--window", type=int, default=1024, help="tokens (%(default)s)")
    parser.add_argument("--sinks", type=int, default=4, help="first tokens that stay (%(default)s)")
    parser.add_argument("--positions", choices=["absolute", "cache_relative"], default="cache_relative", help="%(default)s")
    parser.add_argument("--workers", type=int, default=2, help="%(default)s")
    parser.add_argument("--csv", help="a file for word, bits and milliseconds")
    parser.add_argument("--plot", help="an SVG of the milliseconds of each word")
    parser.add_argument("--no-comparison", action="store_true", help="neither with a recomputation nor with the model's own")
    return parser.parse_args()


def text_of(file):
    if file:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    if not shutil.which("bible"):
        sys.exit("surprisal.py: give it a text, or install one: apt install bible-kjv")
    verses = subprocess.run(["bible", "-f", "Gen1:1-50:26"], capture_output=True, text=True, check=True).stdout
    return " ".join(line.split(" ", 1)[1] for line in verses.splitlines() if " " in line)


def tokens_of_words(tokenizer, text, words_max):
    """(words, token ids of each): the text is cut into tokens as a whole, so that none depends on where a word ends."""
    words = [found.span() for found in re.finditer(r"\s*\S+", text)][:words_max]
    text = text[: words[-1][1]]
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [[] for _ in words]
    word = 0
    for token, (begin, end) in zip(coded.input_ids, coded.offset_mapping, strict=True):
        meant = next((place for place in range(begin, end) if not text[place].isspace()), end - 1)
        while meant >= words[word][1]:
            word += 1
        ids[word].append(token)
    return [text[begin:end] for begin, end in words], ids


def bits_of(logits, ids):
    """-log2 p of each token; logits [tokens, vocabulary], those before it."""
    import torch

    chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, torch.tensor(ids).unsqueeze(1))
    return (-chosen / math.log(2)).squeeze(1).tolist()


def score(stream, ids_of_words):
    """(bits of each word, seconds of each word), with a bar on standard error."""
    import torch

    bits, seconds, before = [], [], None
    began = time.monotonic()
    for index, ids in enumerate(ids_of_words):
        start = time.monotonic()
        logits = stream.feed(ids)
        seen = logits[:-1] if before is None else torch.cat([before, logits[:-1]])
        scored = bits_of(seen, ids if before is not None else ids[1:])
        bits.append(sum(scored) if scored else math.nan)
        before = logits[-1:] if len(ids) else before
        seconds.append(time.monotonic() - start)
        if sys.stderr.isatty() and index % 10 == 9 or index + 1 == len(ids_of_words):
            show_progress(index + 1, len(ids_of_words), time.monotonic() - began)
    return bits, seconds


def show_progress(done, count, seconds):
    filled = 40 * done // count
    left = seconds / done * (count - done)
    print(f"\r[{'#' * filled}{' ' * (40 - filled)}] {done} of {count} words, {left:.0f} s left ", end="\n" if done == count else "", file=sys.stderr, flush=True)


def recomputation_seconds(model, ids, lengths_of_prefixes):
    """Of the whole prefix at each word, by the model itself, in float seconds: measured at some lengths, and straight between them."""
    import torch

    longest = lengths_of_prefixes[-1]
    measured = [(0, 0.0)]
    for length in sorted({min(longest, 2**power) for power in range(6, 14)}):
        start = time.monotonic()
        with torch.inference_mode():
            model(torch.tensor([ids[:length]]), use_cache=False, logits_to_keep=1)
        measured.append((length, time.monotonic() - start))
    total = 0.0
    for length in lengths_of_prefixes:
        after = next((i for i, (known, _) in enumerate(measured) if known >= length), len(measured) - 1)
        (low, less), (high, more) = measured[after - 1], measured[after]
        total += less + (more - less) * (min(length, high) - low) / (high - low)
    return total, measured


def own_bits(model, ids):
    import torch

    with torch.inference_mode():
        return bits_of(model(torch.tensor([ids]), use_cache=False).logits[0, :-1], ids[1:])


def draw(seconds, file):
    """Milliseconds of each word, as dots, with the means of tenths."""
    width, height, left, top = 800, 300, 60, 30
    highest = 1e3 * sorted(seconds)[int(0.99 * len(seconds))] * 1.2
    x, y = (lambda word: left + width * word / len(seconds)), (lambda ms: top + height * (1 - min(ms, highest) / highest))
    step = max(1, len(seconds) // 4000)
    dots = "".join(f'<circle cx="{x(word):.1f}" cy="{y(1e3 * seconds[word]):.1f}" r="0.8"/>' for word in range(0, len(seconds), step))
    tenths = "".join(
        f'<line x1="{x(begin):.1f}" x2="{x(end):.1f}" y1="{y(ms):.1f}" y2="{y(ms):.1f}"/>' for begin, end, ms in means_of_tenths(seconds)
    )
    ticks = "".join(
        f'<text x="{left - 8}" y="{y(ms) + 4:.1f}" text-anchor="end">{ms:.0f}</text>' for ms in (0, highest / 2, highest)
    )
    with open(file, "w", encoding="utf-8") as out:
        out.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 90}" height="{height + 80}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="18">milliseconds of a word</text>{ticks}'
            f'<g fill="#1b6ca8">{dots}</g><g stroke="#d1495b" stroke-width="2">{tenths}</g>'
            f'<text x="{left + width / 2}" y="{top + height + 30}" text-anchor="middle">words of the text: {len(seconds)}</text></svg>\n'
        )


def means_of_tenths(seconds):
    """(first word, end, milliseconds of a word) ten times."""
    borders = [len(seconds) * tenth // 10 for tenth in range(11)]
    return [
        (begin, end, 1e3 * sum(seconds[begin:end]) / (end - begin)) for begin, end in zip(borders, borders[1:], strict=False) if end > begin
    ]


def compare(model, ids_of_words, bits, seconds, window):
    ids = [token for word in ids_of_words for token in word]
    ends = [0]
    for word in ids_of_words:
        ends.append(ends[-1] + len(word))
    longest = model.config.max_position_embeddings
    total, measured = recomputation_seconds(model, ids, [min(end, longest) for end in ends[1:]])
    shown = ", ".join(f"{seconds:.2f} s at {length}" for length, seconds in measured[1:])
    print(f"recomputing the prefix at each word: {total:.0f} s (one takes {shown} tokens): {total / sum(seconds):.1f} times as long")
    known = own_bits(model, ids[:window])
    worst = 0.0
    for word, end in enumerate(ends[1:]):
        if end > window:
            break
        expected = sum(known[max(0, ends[word] - 1) : end - 1])
        if not math.isnan(bits[word]):
            worst = max(worst, abs(bits[word] - expected))
    print(f"words within the first window: at most {worst:.1e} bits from the model's own")


def main():
    options = parse_arguments()
    try:
        tokenizer, model = smollm2.load()
    except smollm2.NotInstalled as error:
        sys.exit(f"surprisal.py: {error}")
    import kvgrid.transformers

    words, ids_of_words = tokens_of_words(tokenizer, text_of(options.file), options.words)
    tokens = sum(map(len, ids_of_words))
    with kvgrid.local(workers=options.workers, memory="256MiB") as cluster:
        client = cluster.connect()
        with kvgrid.transformers.attach(model, client, name="smollm2-135m") as attached:
            settings = {"window": options.window, "sinks": options.sinks, "positions": options.positions}
            with kvgrid.transformers.TextStream(attached, **settings) as stream:
                bits, seconds = score(stream, ids_of_words)
                print(f"{len(words)} words of {tokens} tokens in {sum(seconds):.1f} s, {smollm2.occupancy_line(client)}")
    scored = [value for value in bits if not math.isnan(value)]
    print(f"{sum(scored) / len(scored):.2f} bits a word; a word takes, by tenths of the text, in ms:")
    print("  " + "  ".join(f"{ms:.1f}" for _, _, ms in means_of_tenths(seconds)))
    if not options.no_comparison:
        compare(model, ids_of_words, bits, seconds, options.window)
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([["word", "bits", "ms"], *zip(words, bits, (1e3 * value for value in seconds), strict=True)])
    if options.plot:
        draw(seconds, options.plot)


if __name__ == "__main__":
    main()
