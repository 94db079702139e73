"""What every peer shares: the JSON-lines loop and the constants of the task.

A peer is a resident process: one JSON request per line on stdin, one JSON
answer per line on stdout. File descriptor 1 is kept for the answers alone;
whatever a library prints goes to stderr.
"""

import json
import os
import random
import sys
import time
import traceback

TOKENS = 40
"""Tokens of a sequence after its start token."""

PATTERN = r"\bamazing\b"
"""The one feature: whether this regular expression is found in the text."""

LAMBDA = 1.0
"""Its coefficient in log P(x) = log a(x) + LAMBDA * feature(x)."""

LEARNING_RATE = 1.41e-5


def fixed_rows(count, vocabulary, start):
    """`count` rows of one start token and TOKENS ids, the same on every call."""
    generator = random.Random(1)
    return [
        [start] + [generator.randrange(vocabulary) for _ in range(TOKENS)]
        for _ in range(count)
    ]


def fixed_advantages(count):
    generator = random.Random(2)
    return [generator.gauss(0.0, 1.0) for _ in range(count)]


def model_config(directory):
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def start_token(directory):
    config = model_config(directory)
    for name in ("bos_token_id", "eos_token_id"):
        if isinstance(config.get(name), int):
            return config[name]
    return 0


def peak_bytes():
    """VmHWM of this process: its highest resident size so far."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


class Clock:
    """`with Clock() as clock: ...` then clock.ms."""

    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.ms = (time.perf_counter() - self.start) * 1e3


def serve(commands):
    """Answer requests until stdin ends. `commands`: name -> function(request) -> dict."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    commands = {"memory": lambda _request: {"peakBytes": peak_bytes()}, **commands}
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            command = commands.get(request.get("do"))
            if command is None:
                raise ValueError(f"this peer has no command {request.get('do')!r}")
            answer = command(request)
        except Exception as error:  # one bad request must not end the process
            traceback.print_exc(file=sys.stderr)
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
