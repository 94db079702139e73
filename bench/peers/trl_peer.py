"""TRL's GRPOTrainer on the CPU, float32.

    python trl_peer.py

`grpo` is one optimizer step of trainer.train(): `count` completions of 40 tokens of
one prompt (the start token), reward = whether the regular expression is found in the
text, group-normalized advantages, loss, backward, Adam. Timed: from the callback
on_step_begin to on_step_end of the second step of a run of two; the first warms up.
TRL samples in the step's first micro-batch, so generation, rewards, forward and
backward all lie between the two callbacks.

Chosen: num_generations = count; per_device_train_batch_size = `microBatch` where that
divides count (default: all at once) with gradient accumulation for the rest;
gradient_checkpointing off (it only saves memory); dropout off; adamw_torch_fused without
weight decay; no saving, logging or progress bar. Everything else is TRL's default: no
reference model (beta 0), temperature 1, full softmax, one iteration per batch.
"""

import os
import re
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
import trl
from datasets import Dataset
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from peerlib import LEARNING_RATE, PATTERN, TOKENS, serve, start_token


class StepTimes(TrainerCallback):
    def __init__(self):
        self.ms = []

    def on_step_begin(self, *_args, **_kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, *_args, **_kwargs):
        self.ms.append((time.perf_counter() - self.begun) * 1e3)


class Peer:
    def load(self, request):
        torch.set_num_threads(int(request.get("threads", 2)))
        torch.manual_seed(0)
        directory = request["directory"]
        self.model = GPT2LMHeadModel.from_pretrained(
            directory,
            dtype=torch.float32,
            attn_implementation="sdpa",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
        # Nothing ends a completion early.
        self.model.generation_config.eos_token_id = None
        self.model.config.eos_token_id = None
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=os.path.join(directory, "tokenizer.json"),
            clean_up_tokenization_spaces=False,
        )
        self.start = tokenizer.convert_ids_to_tokens(start_token(directory))
        tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = self.start
        self.tokenizer = tokenizer
        expression = re.compile(PATTERN)

        def amazing(completions, **_kwargs):
            return [1.0 if expression.search(text) else 0.0 for text in completions]

        self.reward = amazing
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        }

    def check(self, request):
        self.model.eval()
        scores = []
        with torch.inference_mode():
            for row in request["rows"]:
                ids = torch.tensor([row])
                logs = torch.log_softmax(self.model(ids[:, :-1]).logits, -1)
                scores.append(logs.gather(2, ids[:, 1:, None]).sum())
        scores = torch.stack(scores)
        advantages = torch.tensor(request["advantages"])
        return {"logProbs": scores.tolist(), "loss": -(advantages * scores).mean().item()}

    def grpo(self, request):
        count = request["count"]
        micro_batch = request.get("microBatch") or count
        if micro_batch > count or count % micro_batch:
            micro_batch = count
        times = StepTimes()
        with tempfile.TemporaryDirectory() as place:
            trainer = GRPOTrainer(
                model=self.model,
                reward_funcs=self.reward,
                args=GRPOConfig(
                    output_dir=place,
                    use_cpu=True,
                    bf16=False,
                    max_steps=2,
                    num_generations=count,
                    per_device_train_batch_size=micro_batch,
                    gradient_accumulation_steps=count // micro_batch,
                    max_completion_length=TOKENS,
                    generation_kwargs={"min_new_tokens": TOKENS},
                    gradient_checkpointing=False,
                    disable_dropout=True,
                    learning_rate=LEARNING_RATE,
                    optim="adamw_torch_fused",
                    save_strategy="no",
                    logging_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_dict({"prompt": [self.start] * 4}),
                processing_class=self.tokenizer,
                callbacks=[times],
            )
            trainer.train()
        return {"ms": times.ms[-1], "first": times.ms[0], "microBatch": micro_batch}


def main():
    peer = Peer()
    serve({name: getattr(peer, name) for name in ("load", "check", "grpo")})


if __name__ == "__main__":
    main()
