"""Records what the reference implementation makes of byte-level.json (trained here, see make.ts) and of a Llama-style
tokenizer that it trains itself (llama-style.json): token ids of texts, and texts of token ids. Also checks that its own
trainer finds the vocabulary and the merges of byte-level.json.

    pip install tokenizers==0.23.3 && python tests/golden/tokenizer/make.py
"""

import json
import platform
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

here = Path(__file__).parent
corpus = (here / "corpus.txt").read_text(encoding="utf-8")

reference = Tokenizer(models.BPE())
reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
reference.train_from_iterator(
    corpus.split("\n"),
    trainers.BpeTrainer(
        vocab_size=380,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<pad>"],
    ),
)
theirs = json.loads(reference.to_str())["model"]
ours = json.loads((here / "byte-level.json").read_text(encoding="utf-8"))["model"]
assert theirs["vocab"] == ours["vocab"] and [" ".join(pair) for pair in theirs["merges"]] == ours["merges"]

llama = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
special = ["<unk>", "<s>", "</s>"]
bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
trainer = trainers.BpeTrainer(
    vocab_size=400,
    min_frequency=2,
    limit_alphabet=50,
    max_token_length=8,
    show_progress=False,
    special_tokens=[AddedToken(token, normalized=False, special=True) for token in special + bytes_],
)
llama.train_from_iterator(corpus.split("\n"), trainer)
# The byte tokens are ordinary ones: texts that spell "<0x0A>" do not mean a line break.
spec = json.loads(llama.to_str())
spec["added_tokens"] = spec["added_tokens"][: len(special)]
(here / "llama-style.json").write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")

texts = corpus.split("\n") + [
    corpus,
    "",
    " ",
    "a",
    " leading space",
    "trailing space ",
    "two  spaces , and . marks ? here 's one",
    "line\nbreak\r\n\n\nbreaks\n",
    "\ufeffbyte order mark\ufeff",
    "zero\u0000byte, no-break\u00a0space, e\u0301 (combining), 👩‍👩‍👧 (joined)",
    "once<|endoftext|> again<pad></s> and <s> <unk>",
    "▁ is not a space, and <0x0A> is not a line break",
    "مرحبا بالعالم — здравствуй, мир — नमस्ते",
    "x" * 300,
]

golden = {"versions": {"tokenizers": tokenizers.__version__, "python": platform.python_version()}}
for name in ["byte-level", "llama-style"]:
    tokenizer = Tokenizer.from_file(str(here / f"{name}.json"))
    size = tokenizer.get_vocab_size()
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    # Ids as a model may draw them: any order, broken characters, special tokens, ids beyond the vocabulary.
    drawn = [[(7 * i * i + 31 * j + 13 * i * j) % (size + 3) for j in range(1 + i % 9)] for i in range(60)]
    golden[name] = {
        "encode": list(zip(texts, encoded)),
        "decode": [(ids, tokenizer.decode(ids, skip_special_tokens=True)) for ids in encoded + drawn],
    }
(here / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
