"""PyTorch + transformers on the CPU, written for speed.

    python torch_peer.py [--compile] [--linear auto|onednn|mkl]

What it does that a plain script does not:

* GPT2LMHeadModel with sdpa attention, no dropout, and `gelu_pytorch_tanh` (one
  fused kernel) where the configuration says `gelu_new` (the same function as
  five separate operations).
* log p(label) as the gathered logit minus logsumexp; while training its gradient
  is made in place in the buffer of the logits, so a micro-batch holds one
  [tokens, V] buffer rather than three.
* Generation by its own loop over a key/value cache allocated once (the stock
  DynamicCache concatenates the whole cache at every token), and inverse-CDF
  sampling (cumsum + searchsorted), faster than torch.multinomial on a CPU;
  faster than model.generate.
* torch.inference_mode wherever there is no gradient, fused Adam.
* --linear: which library multiplies float32 matrices. `mkl` is what PyTorch does
  of itself. Its MKL takes a slower path on processors that are not Intel's, while
  the oneDNN in the same wheel does not: `onednn` sends the linear layers and the
  head through torch.ops.mkldnn._linear_pointwise, forward and backward. `auto`
  (the default) times one product each way when the model is loaded and takes the
  faster library; the answer to `load` says which.
* --compile: torch.compile (inductor; needs a C++ compiler) of scoring and of the
  forward and backward of training. A shape not seen before is compiled outside of
  the measured time. Generation stays eager: its cache grows at every token.
"""

import argparse
import os
import re
import shutil
import time

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.pytorch_utils import Conv1D

from peerlib import (
    LAMBDA,
    LEARNING_RATE,
    PATTERN,
    TOKENS,
    Clock,
    fixed_advantages,
    fixed_rows,
    model_config,
    serve,
    start_token,
)

# The fastest sizes found on a 2-core CPU, used where a request names none. Tried:
# "small" (D=256 L=4 V=4096) 16, 32, 64, 128, generation 64, 128, 256;
# "large" (GPT-2 small) 8, 16, 32, where 16 and 32 train equally fast; generation only 64.
DEFAULTS = {
    "small": {"train": 32, "score": 32, "generate": 256},
    "large": {"train": 16, "score": 32, "generate": 64},
}


# --- float32 products through oneDNN ------------------------------------------


def eager_onednn(x, weight, bias=None):
    """x @ weight.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("peer::linear", mutates_args=())
def opaque_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return eager_onednn(x, weight, bias)


@opaque_onednn.register_fake
def _(x, weight, bias):
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def onednn(x, weight, bias=None):
    # Inductor compiles the operator itself only where the weight is a constant.
    if torch.compiler.is_compiling():
        return opaque_onednn(x, weight, bias)
    return eager_onednn(x, weight, bias)


class OneDnnConv1D(torch.autograd.Function):
    """GPT-2's linear layer (weight stored [in, out]), all three products in oneDNN."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return onednn(x, weight.t(), bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return onednn(gradient, weight), onednn(x.t(), gradient.t()), gradient.sum(0)


def use_onednn(model):
    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            y = OneDnnConv1D.apply(flat, self.weight, self.bias)
        else:
            y = onednn(flat, self.weight.t(), self.bias)
        return y.view(*x.shape[:-1], self.nf)

    for module in model.modules():
        if isinstance(module, Conv1D):
            module.forward = forward.__get__(module)


def faster_library():
    x, weight = torch.randn(640, 768), torch.randn(1536, 768)

    def best(product):
        times = []
        for _ in range(25):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        return min(times)

    try:
        with torch.inference_mode():
            mine = best(lambda: onednn(x, weight))
            stock = best(lambda: torch.nn.functional.linear(x, weight))
    except (RuntimeError, AttributeError):
        return "mkl"
    return "onednn" if mine < 0.95 * stock else "mkl"


# --- log-probabilities of labels ----------------------------------------------


def head(hidden, weight, library):
    return onednn(hidden, weight) if library == "onednn" else hidden @ weight.t()


class LabelLogProb(torch.autograd.Function):
    """log softmax(hidden @ weight.T)[label], its gradient made in the logits' buffer."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, library):
        logits = head(hidden, weight, library)
        normalizer = torch.logsumexp(logits, -1, keepdim=True)
        ctx.save_for_backward(hidden, weight, labels, normalizer)
        ctx.logits = logits
        ctx.library = library
        return (logits.gather(1, labels[:, None]) - normalizer).squeeze(1)

    @staticmethod
    def backward(ctx, gradient):
        hidden, weight, labels, normalizer = ctx.saved_tensors
        d_logits, ctx.logits = ctx.logits, None
        d_logits.sub_(normalizer).exp_().mul_(-gradient[:, None])
        d_logits.scatter_add_(1, labels[:, None], gradient[:, None])
        if ctx.library == "onednn":
            d_hidden = onednn(d_logits, weight.t())
            d_weight = onednn(d_logits.t(), hidden.t())
        else:
            d_hidden = d_logits @ weight
            d_weight = d_logits.t() @ hidden
        return d_hidden, d_weight, None, None


def plain_log_prob(hidden, weight, labels, library):
    logits = head(hidden, weight, library)
    label = logits.gather(1, labels[:, None]).squeeze(1)
    return label - torch.logsumexp(logits, -1)


# --- a cache that does not copy itself at every token -------------------------


class FixedLayer(DynamicLayer):
    """Keys and values in buffers of a known length; attention sees a view of them."""

    def __init__(self, length):
        super().__init__()
        self.length = length
        self.used = 0

    def lazy_initialization(self, key_states, value_states):
        shape = (*key_states.shape[:2], self.length, key_states.shape[3])
        self.all_keys = key_states.new_empty(shape)
        self.all_values = value_states.new_empty(shape)
        self.is_initialized = True

    def update(self, key_states, value_states, *_args, **_kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        self.all_keys[:, :, self.used : end] = key_states
        self.all_values[:, :, self.used : end] = value_states
        self.used = end
        self.keys = self.all_keys[:, :, :end]
        self.values = self.all_values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self):
        return self.used


# --- the peer -----------------------------------------------------------------


class Peer:
    def __init__(self, compile_functions, library):
        self.compile = compile_functions
        self.library = library
        self.expression = re.compile(PATTERN)
        self.seen = set()

    # Models

    def read_model(self):
        options = {}
        if model_config(self.directory).get("activation_function") == "gelu_new":
            options["activation_function"] = "gelu_pytorch_tanh"
        model = GPT2LMHeadModel.from_pretrained(
            self.directory,
            dtype=torch.float32,
            attn_implementation="sdpa",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            **options,
        ).eval()
        if self.library == "onednn":
            use_onednn(model)
        return model

    def load(self, request):
        torch.set_num_threads(int(request.get("threads", 2)))
        torch.manual_seed(0)
        if self.compile and not any(
            shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "c++")
        ):
            raise RuntimeError("--compile needs a C++ compiler and there is none")
        self.directory = request["directory"]
        if self.library == "auto":
            self.library = faster_library()
        self.model = self.read_model()
        self.frozen_models = {}
        self.optimizer = None
        self.seen.clear()
        config = self.model.config
        self.start = start_token(self.directory)
        self.vocabulary = config.vocab_size
        self.default = DEFAULTS["large" if config.n_embd >= 512 else "small"]
        path = os.path.join(self.directory, "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(path) if os.path.exists(path) else None
        self.score_function = self.score_batch
        self.train_function = self.train_log_probs
        if self.compile:
            self.score_function = torch.compile(self.score_batch, dynamic=False)
            self.train_function = torch.compile(self.train_log_probs, dynamic=False)
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "linear": self.library,
            "defaults": self.default,
            "torch": torch.__version__,
        }

    def frozen(self, name):
        """A copy of the model that is never trained (made when first needed)."""
        if name not in self.frozen_models:
            self.frozen_models[name] = self.read_model().requires_grad_(False)
        return self.frozen_models[name]

    # Log-probabilities

    def hidden(self, model, inputs):
        output = model.transformer(input_ids=inputs, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)

    def score_batch(self, model, inputs, labels):
        hidden = self.hidden(model, inputs)
        chosen = plain_log_prob(hidden, model.lm_head.weight, labels.flatten(), self.library)
        return chosen.view(labels.shape).sum(1)

    def train_log_probs(self, model, inputs, labels):
        hidden = self.hidden(model, inputs)
        # Inductor writes the gradient of the plain formula as one fused loop, but
        # cannot differentiate the oneDNN operator by itself.
        one = plain_log_prob if self.compile and self.library == "mkl" else LabelLogProb.apply
        chosen = one(hidden, model.lm_head.weight, labels.flatten(), self.library)
        return chosen.view(labels.shape).sum(1)

    def log_probs(self, model, rows, micro_batch):
        with torch.inference_mode():
            parts = [
                self.score_function(model, part[:, :-1].contiguous(), part[:, 1:].contiguous())
                for part in rows.split(micro_batch)
            ]
            return torch.cat(parts)

    # Training

    def backward(self, rows, micro_batch, advantages):
        """`advantages(slice, log pi detached)` gives the weights of a micro-batch."""
        n = rows.shape[0]
        total = 0.0
        for begin in range(0, n, micro_batch):
            part = rows[begin : begin + micro_batch]
            log_pi = self.train_function(
                self.model, part[:, :-1].contiguous(), part[:, 1:].contiguous()
            )
            weights = advantages(slice(begin, begin + micro_batch), log_pi.detach())
            loss = -(weights * log_pi).sum() / n
            loss.backward()
            total += loss.detach()
        return total

    def train_step(self, rows, micro_batch, advantages):
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(
                self.model.parameters(), lr=LEARNING_RATE, fused=True
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(rows, micro_batch, advantages)
        self.optimizer.step()

    # Generation

    @torch.inference_mode()
    def sample(self, model, count):
        """Rows [count, 1 + TOKENS] and the log-probability of each token [count, TOKENS]."""
        cache = Cache(layers=[FixedLayer(TOKENS) for _ in range(model.config.n_layer)])
        rows = torch.full((count, 1 + TOKENS), self.start)
        log_q = torch.empty(count, TOKENS)
        weight = model.lm_head.weight
        for position in range(TOKENS):
            hidden = model.transformer(
                input_ids=rows[:, position : position + 1],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state.squeeze(1)
            p = torch.softmax(head(hidden, weight, self.library), -1)
            cumulative = p.cumsum(-1)
            draw = torch.rand(count, 1) * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, draw, right=True)
            token.clamp_(max=self.vocabulary - 1)
            rows[:, position + 1] = token.squeeze(1)
            log_q[:, position] = p.gather(1, token).log().squeeze(1)
        return rows, log_q

    def sample_all(self, model, count, batch):
        parts = [
            self.sample(model, min(batch, count - begin)) for begin in range(0, count, batch)
        ]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    # Commands

    def rows(self, count):
        rows = torch.tensor(fixed_rows(count, self.vocabulary, self.start))
        return rows, torch.tensor(fixed_advantages(count))

    def prepare(self, kind, count, micro_batch, work):
        """Compile outside of the clock."""
        for size in {min(micro_batch, count), count % micro_batch} - {0}:
            if self.compile and (kind, size) not in self.seen:
                work(size)
                self.seen.add((kind, size))

    def prepare_score(self, name, model, count, micro_batch):
        self.prepare(
            f"score {name}",
            count,
            micro_batch,
            lambda size: self.log_probs(model, self.rows(size)[0], size),
        )

    def prepare_train(self, count, micro_batch):
        def work(size):
            self.backward(self.rows(size)[0], size, lambda _slice, log_pi: log_pi * 0)
            self.model.zero_grad(set_to_none=True)

        self.prepare("train", count, micro_batch, work)

    def check(self, request):
        by_length = {}
        for index, row in enumerate(request["rows"]):
            by_length.setdefault(len(row), []).append(index)
        answer = torch.empty(len(request["rows"]))
        for indices in by_length.values():
            rows = torch.tensor([request["rows"][index] for index in indices])
            answer[indices] = self.log_probs(self.model, rows, 32)
        advantages = torch.tensor(request["advantages"])
        loss = -(advantages.double() * answer.double()).mean()
        return {"logProbs": answer.tolist(), "loss": loss.item()}

    def train(self, request):
        count = request["count"]
        micro_batch = request.get("microBatch") or self.default["train"]
        rows, advantages = self.rows(count)
        self.prepare_train(count, micro_batch)
        with Clock() as clock:
            self.train_step(rows, micro_batch, lambda part, _log_pi: advantages[part])
        return {"ms": clock.ms}

    def score(self, request):
        count = request["count"]
        micro_batch = request.get("microBatch") or self.default["score"]
        rows, _ = self.rows(count)
        self.prepare_score("model", self.model, count, micro_batch)
        with Clock() as clock:
            self.log_probs(self.model, rows, micro_batch)
        return {"ms": clock.ms}

    def generate(self, request):
        count = request["count"]
        batch = request.get("batch") or self.default["generate"]
        with Clock() as clock:
            self.sample_all(self.model, count, batch)
        return {"ms": clock.ms}

    def need_tokenizer(self):
        if self.tokenizer is None:
            raise RuntimeError("no tokenizer.json in the directory")

    def features(self, rows):
        """1 where the regular expression is found in the decoded text, else 0."""
        texts = self.tokenizer.decode_batch(rows[:, 1:].tolist(), skip_special_tokens=False)
        return torch.tensor([1.0 if self.expression.search(text) else 0.0 for text in texts])

    def step(self, request):
        self.need_tokenizer()
        count = request["count"]
        base, proposal = self.frozen("base"), self.frozen("proposal")
        score_batch = request.get("microBatch") or self.default["score"]
        train_batch = request.get("microBatch") or self.default["train"]
        self.prepare_score("base", base, count, score_batch)
        self.prepare_train(count, train_batch)
        with Clock() as clock:
            rows, tokens_log_q = self.sample_all(
                proposal, count, request.get("batch") or self.default["generate"]
            )
            log_q = tokens_log_q.sum(1)
            feature = self.features(rows)
            log_p = self.log_probs(base, rows, score_batch) + LAMBDA * feature
            log_weight = (log_p - log_q).double()
            log_z = torch.logsumexp(log_weight, 0) - torch.log(torch.tensor(float(count)))
            target = torch.exp(log_weight - log_z).float()  # P / (Z q)

            def advantages(part, log_pi):
                return target[part] - torch.exp(log_pi - log_q[part])

            self.train_step(rows, train_batch, advantages)
        return {"ms": clock.ms, "Z": log_z.exp().item(), "feature": feature.mean().item()}

    def grpo(self, request):
        """GRPO without a reference model: one group, sampled from the policy itself."""
        self.need_tokenizer()
        count = request["count"]
        train_batch = request.get("microBatch") or self.default["train"]
        self.prepare_train(count, train_batch)
        with Clock() as clock:
            rows, _ = self.sample_all(
                self.model, count, request.get("batch") or self.default["generate"]
            )
            reward = self.features(rows)
            advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
            # The ratio of new to old probabilities is 1 in the only pass over a batch,
            # so that the gradient is that of advantage * log pi.
            self.train_step(rows, train_batch, lambda part, _log_pi: advantage[part])
        return {"ms": clock.ms}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--linear", choices=("auto", "onednn", "mkl"), default="auto")
    options = parser.parse_args()
    peer = Peer(options.compile, options.linear)
    names = ("load", "check", "train", "score", "generate", "step", "grpo")
    serve({name: getattr(peer, name) for name in names})


if __name__ == "__main__":
    main()
