#!/usr/bin/env python3
"""A chat in the terminal whose KV cache lies in a grid.

    python client/examples/chat.py                              asks and answers until Ctrl-D
    python client/examples/chat.py "What is the capital of France?" "And of Italy?"
    echo "What is a page?" | python client/examples/chat.py

The whole conversation stays in the cache: of each question only the new words are computed. --connect takes a cluster that runs already.
"""

import argparse
import contextlib
import sys
import time

import smollm2

import kvgrid


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", help="asked one after the other; none: lines of the terminal, or of a pipe")
    parser.add_argument("--workers", type=int, default=4, help="of the cluster that is started (%(default)s)")
    parser.add_argument("--connect", metavar="ENDPOINT", help="a cluster that runs already: host:port or unix:/path")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer, at most (%(default)s)")
    return parser.parse_args()


def questions_of(options):
    if options.questions:
        yield from options.questions
        return
    while True:
        if sys.stdin.isatty():
            print("\nyou: ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


class Chat:
    def __init__(self, tokenizer, attached, tokens_max):
        self.tokenizer = tokenizer
        self.attached = attached
        self.tokens_max = tokens_max
        self.messages = []
        self.cache = attached.cache()

    def answer(self, question):
        """(the answer, tokens of the conversation that were there already, tokens in all)"""
        self.messages.append({"role": "user", "content": question})
        text = self.tokenizer.apply_chat_template(self.messages, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        there = self.cache.match(ids.input_ids)
        said = self.attached.model.generate(**ids, past_key_values=self.cache, max_new_tokens=self.tokens_max, do_sample=False)
        answer = self.tokenizer.decode(said[0, ids.input_ids.shape[1] :], skip_special_tokens=True).strip()
        self.messages.append({"role": "assistant", "content": answer})
        return answer, there, said.shape[1]


def main():
    options = parse_arguments()
    try:
        tokenizer, model = smollm2.load()
    except smollm2.NotInstalled as error:
        sys.exit(f"chat.py: {error}")
    import kvgrid.transformers

    with contextlib.ExitStack() as stack:
        if options.connect:
            client = stack.enter_context(kvgrid.connect(options.connect))
        else:
            client = stack.enter_context(kvgrid.local(workers=options.workers, memory="256MiB")).connect()
        attached = stack.enter_context(kvgrid.transformers.attach(model, client, name="smollm2-135m"))
        chat = Chat(tokenizer, attached, options.tokens)
        for question in questions_of(options):
            if not sys.stdin.isatty() or options.questions:
                print(f"\nyou: {question}")
            begin = time.monotonic()
            answer, there, tokens = chat.answer(question)
            print(f"model: {answer}")
            print(f"[{time.monotonic() - begin:.1f} s; {tokens} tokens, of which {there} were in the grid; {smollm2.occupancy_line(client)}]")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
