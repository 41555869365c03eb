#!/usr/bin/env python3
"""A long text, put into the grid in chunks, and questions at its end that share it.

    python client/examples/long_document.py                     the GPL, as Debian has it
    python client/examples/long_document.py FILE --question "What is it about?" --question "Who wrote it?"

The text is computed once and kept; the cache of each question begins with a fork of it, and its pages are there once.
"""

import argparse
import sys
import time

import smollm2

import kvgrid

GPL = "/usr/share/common-licenses/GPL-3"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default=GPL, help="a text (%(default)s)")
    parser.add_argument("--question", action="append", dest="questions", help="may be given again")
    parser.add_argument("--workers", type=int, default=4, help="%(default)s")
    parser.add_argument("--context", type=int, default=7000, help="tokens of the text at most; the model knows 8,192 (%(default)s)")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of one forward (%(default)s)")
    parser.add_argument("--tokens", type=int, default=60, help="of an answer, at most (%(default)s)")
    return parser.parse_args()


def prompt_of(tokenizer, text, question):
    message = [{"role": "user", "content": f"{text}\n\nAnswer in one sentence: {question}"}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def read_text(tokenizer, options):
    with open(options.file, encoding="utf-8", errors="replace") as file:
        ids = tokenizer(file.read(), add_special_tokens=False).input_ids
    return tokenizer.decode(ids[: options.context])


def main():
    options = parse_arguments()
    questions = options.questions or ["Who may copy and distribute verbatim copies of this license document?", "What is this text about?"]
    try:
        tokenizer, model = smollm2.load()
    except smollm2.NotInstalled as error:
        sys.exit(f"long_document.py: {error}")
    import kvgrid.transformers

    text = read_text(tokenizer, options)
    with kvgrid.local(workers=options.workers, memory="256MiB") as cluster:
        client = cluster.connect()
        with kvgrid.transformers.attach(model, client, name="smollm2-135m") as attached:
            for question in questions:
                ids = tokenizer(prompt_of(tokenizer, text, question), return_tensors="pt", add_special_tokens=False)
                begin = time.monotonic()
                with attached.cache(ids.input_ids) as cache:
                    there = cache.get_seq_length()
                    attached.prefill(cache, ids.input_ids, chunk_tokens=options.chunk)
                    cache.keep()
                    prefilled = time.monotonic()
                    said = model.generate(**ids, past_key_values=cache, max_new_tokens=options.tokens, do_sample=False)
                    new = said.shape[1] - ids.input_ids.shape[1]
                    print(f"\nquestion: {question}")
                    print(f"answer: {tokenizer.decode(said[0, -new:], skip_special_tokens=True).strip()}")
                    print(
                        f"[{ids.input_ids.shape[1]} tokens of prompt, of which {there} were in the grid: {prefilled - begin:.1f} s; "
                        f"{new} tokens of answer: {time.monotonic() - prefilled:.1f} s; {smollm2.occupancy_line(client)}]",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
