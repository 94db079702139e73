"""disco (naver/disco, `disco-generation` on PyPI), through the API of its README.

    python disco_peer.py

`step` is one gradient step of its DPGTuner with `count` samples. Per step it samples
from its model online (the model tuned is the one sampled from), scores the samples
under the target a(x) exp(LAMBDA feature(x)) = LMDistribution * ExponentialScorer, and
makes its own update.

Chosen: n_samples_per_step=count, n_gradient_steps, context = the start token's text,
length=40 tokens, top_k=0 and no end token (so that all samples have 40 tokens, drawn
from the full softmax), sampling_size and scoring_size from the request's `batch` and
`microBatch` where given. Everything else is disco's default: its loss (KL with a
baseline), Adam at 1.41e-5, scheduler, metrics.

Timed: the second step of a `tuner.tune()` of two, from the moment an observer of the
tuner is told that the step begins to the return of tune(). The first step warms up (it
makes Adam's moments) and making the tuner is outside of the clock. No evaluation of
divergences lies in the timed step (disco's default makes one every 16 steps).

disco 1.1.1 as published lacks the package disco.tuners.losses.misc, so that
`import disco.tuners` fails. Only its JS, TV and reverse KL losses need it, never DPG:
a placeholder that cannot be used takes its place below.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
import types

from peerlib import LAMBDA, PATTERN, TOKENS, serve, start_token


class EMABaseline:
    def __init__(self, *_args, **_kwargs):
        raise NotImplementedError("not in the published disco-generation 1.1.1")


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


try:
    import disco.tuners  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "disco.tuners.losses.misc":
        raise
    stand_in("disco.tuners.losses.misc")
    stand_in("disco.tuners.losses.misc.ema_baseline", EMABaseline=EMABaseline)

import torch
import transformers
from disco.distributions import LMDistribution
from disco.distributions.lm_distribution import TextSample
from disco.scorers import BooleanScorer, ExponentialScorer
from disco.tuners import DPGTuner
from disco.tuners.loggers.base import BaseTunerObserver
from transformers import AutoTokenizer


def complete_tokenizer(directory, place):
    """A copy of the tokenizer that names its start, end and padding token: disco needs
    them. The model's own configuration has no end token, so generation never ends early."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    token = tokenizer.convert_ids_to_tokens(start_token(directory))
    shutil.copy(os.path.join(directory, "tokenizer.json"), place)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings.update(bos_token=token, eos_token=token, pad_token=token)
    with open(os.path.join(place, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return token


class StepBeginnings(BaseTunerObserver):
    """When each step of a tuner began, as the tuner tells its observers."""

    def __init__(self, tuner):
        self.times = []
        super().__init__(tuner)

    def on_step_idx_updated(self, _index):
        self.times.append(time.perf_counter())

    def on_parameters_updated(self, *_):
        pass

    def on_metric_updated(self, *_):
        pass

    def on_ministep_idx_updated(self, *_):
        pass

    def on_eval_samples_updated(self, *_):
        pass


class Peer:
    def load(self, request):
        torch.set_num_threads(int(request.get("threads", 2)))
        torch.manual_seed(0)
        directory = request["directory"]
        with tempfile.TemporaryDirectory() as place:
            self.context = complete_tokenizer(directory, place)
            options = {"model": directory, "tokenizer": place, "length": TOKENS, "top_k": 0}
            self.base = LMDistribution(**options)
            self.model = LMDistribution(freeze=False, **options)
        expression = re.compile(PATTERN)
        feature = BooleanScorer(lambda sample, _context: bool(expression.search(sample.text)))
        self.target = self.base * ExponentialScorer([feature], [LAMBDA])
        return {
            "parameters": sum(p.numel() for p in self.model.network.parameters()),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def check(self, request):
        """log_score reads the labels after the context, of samples of one length."""
        rows = request["rows"]
        scores = torch.empty(len(rows))
        for length in {len(row) for row in rows}:
            indices = [index for index, row in enumerate(rows) if len(row) == length]
            samples = [TextSample(torch.tensor(rows[index][1:]), "") for index in indices]
            scores[indices] = self.model.log_score(samples, context=self.context)
        advantages = torch.tensor(request["advantages"])
        return {"logProbs": scores.tolist(), "loss": -(advantages * scores).mean().item()}

    def step(self, request):
        count = request["count"]
        sizes = {}
        if request.get("batch"):
            sizes["sampling_size"] = min(request["batch"], count)
        if request.get("microBatch"):
            sizes["scoring_size"] = min(request["microBatch"], count)
        tuner = DPGTuner(
            self.model,
            self.target,
            context=self.context,
            n_gradient_steps=2,
            n_samples_per_step=count,
            **sizes,
        )
        beginnings = StepBeginnings(tuner)
        tuner.tune()
        end = time.perf_counter()
        first, second = beginnings.times
        return {"ms": (end - second) * 1e3, "first": (second - first) * 1e3}


def main():
    peer = Peer()
    serve({name: getattr(peer, name) for name in ("load", "check", "step")})


if __name__ == "__main__":
    main()
