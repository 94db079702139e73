"""Records what NLTK makes of self-BLEU: the BLEU of each text with all the others as references, in words and in characters, for
orders 3 to 5, and their means.

    pip install nltk==3.10.4 && python tests/golden/self-bleu/make.py
"""

import json
import math
import platform
import re
from pathlib import Path

import nltk
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

texts = [
    "the cat sat on the mat and the cat slept",
    "the cat sat on the mat and the cat slept",  # a twin
    "the cat sat on the sofa and the dog slept by the door",
    "the the the the the the the",  # clipped
    "",
    "cat",
    "cat",
    "zebra",  # no word in common with any other
    "Zoë Müller, née Ångström, sat on the mat. 猫が座った。",
    "Zoë Müller sat on the sofa — 猫が寝た。 🐈🐈🐈🐈",  # beyond the basic plane: one character each
    "a dog slept by the door and the cat sat on the mat",
    "it was twenty-one and they didn't know that the cat sat by the door on the mat by the sofa",  # the longest
    # Lengths 2, 3, 4, 5: the closest reference of 3 and of 4 is the shorter of two.
    "the cat",
    "the cat sat",
    "by the door and",
    "a dog slept by the",
]

# Words are what the package's splitter takes for words. Python's re has no \p{M}; none of these texts has a mark of its own.
word = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
units = {"words": word.findall, "characters": list}

golden = {"versions": {"nltk": nltk.__version__, "python": platform.python_version()}, "texts": texts}
for unit, tokens_of in units.items():
    tokens = [tokens_of(text) for text in texts]
    golden[unit] = {"tokens": [len(each) for each in tokens]}
    for n in [3, 4, 5]:
        scores = [
            sentence_bleu(
                tokens[:i] + tokens[i + 1 :],
                tokens[i],
                weights=[1 / n] * n,
                smoothing_function=SmoothingFunction(epsilon=0.1).method1,
            )
            for i in range(len(tokens))
        ]
        golden[unit][str(n)] = {"perText": scores, "mean": math.fsum(scores) / len(scores)}

(Path(__file__).parent / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
