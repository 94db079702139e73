"""Makes tiny random models as transformers saves them (tests/golden/models/<name>) and records in golden.json what PyTorch
makes of them in float64: log-probabilities of tokens, weights after a few steps of Adam and AdamW, and the gradient of
the mean negative log-probability (gradient.safetensors, which is F64). Also
schedules.json: learning rates by the schedulers of transformers.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 && python tests/golden/make.py

Two parts of transformers' Llama compute in float32 whatever the model's dtype: RMSNorm and the rotary tables. They are
replaced here by the same formulas in float64 (`exact_norm`, `exact_rotary`); "float32Deviation" in golden.json is how far
transformers' own float32 pass, with nothing replaced, is from the result, in nats a token. Attention is torch's
scaled_dot_product_attention for Llama, because the eager one takes its softmax in float32.
"""

import json
import platform
from pathlib import Path

import numpy
import safetensors
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

here = Path(__file__).parent / "models"
torch.set_num_threads(1)
versions = {
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "safetensors": safetensors.__version__,
    "numpy": numpy.__version__,
    "python": platform.python_version(),
}

V, CONTEXT = 23, 12
ids = {"bos_token_id": 0, "eos_token_id": 1}
gpt2 = dict(vocab_size=V, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, attn_implementation="eager", **ids)
llama = dict(
    vocab_size=V, max_position_embeddings=CONTEXT, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=24, attn_implementation="sdpa", **ids,
)  # fmt: skip
# What each variant is for: n_inner and epsilon of its own, a head width that is not width / heads, biases, another theta.
models = {
    "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2, activation_function="gelu_new")),
    "gpt2-gelu": GPT2LMHeadModel(GPT2Config(**gpt2, activation_function="gelu", n_inner=24, layer_norm_epsilon=1e-4)),
    "llama": LlamaForCausalLM(
        LlamaConfig(
            **llama, num_key_value_heads=2, head_dim=4, tie_word_embeddings=False, rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    ),
    "llama-tied-bias": LlamaForCausalLM(
        LlamaConfig(
            **llama, num_key_value_heads=4, head_dim=6, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
            rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        )
    ),
}  # fmt: skip

# The least tokenizer there is: <s>, </s> and 21 letters, no merges.
letters = {chr(ord("a") + i): i + 2 for i in range(V - 2)}
tokenizer = {
    "version": "1.0",
    "added_tokens": [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, token in enumerate(["<s>", "</s>"])
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "unk_token": None, "vocab": {"<s>": 0, "</s>": 1, **letters}, "merges": []},
}


def exact_norm(self, x):
    return self.weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


def exact_rotary(self, x, position_ids):
    """cos and sin of position * theta^(-2i/K), computed in float64, then rounded: the tables of a model are float32 numbers."""
    width, theta = self.config.head_dim, self.config.rope_parameters["rope_theta"]
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = position_ids[..., None].double() * frequencies
    twice = torch.cat((angles, angles), dim=-1)
    return twice.cos().float().to(x.dtype), twice.sin().float().to(x.dtype)


def token_log_probs(model, row):
    """log p of each token but the first. One row at a time: no padding, no mask."""
    logits = model(torch.tensor([row[:-1]]), use_cache=False).logits[0]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(row[1:])[:, None])[:, 0]


def loss_of(model, rows):
    """Mean over all tokens of all rows, nats per token."""
    return -torch.cat([token_log_probs(model, row) for row in rows]).mean()


def checksum(values):
    """Mean of values[i] cos(i): sees every value and its place."""
    flat = values.detach().numpy().ravel()
    return float((flat * numpy.cos(numpy.arange(flat.size))).mean())


def digits(value):
    """To 13 significant digits, far below every tolerance."""
    return [digits(held) for held in value] if isinstance(value, list) else float(f"{value:.13g}")


def after_steps(model, rows, initial, options, steps=3):
    model.load_state_dict(initial)
    parameters = list(model.parameters())
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options["name"]]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options["weightDecay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = kind(groups, lr=options["learningRate"], betas=(options["beta1"], options["beta2"]), eps=options["epsilon"])
    losses, norms = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, rows)
        loss.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in parameters))
        # torch's clip_grad_norm_ divides by the norm plus 1e-6; this is the plain definition.
        if options.get("maxGradNorm") is not None and norm > options["maxGradNorm"]:
            for p in parameters:
                p.grad *= options["maxGradNorm"] / norm
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
    weights = {name: {"first": digits(p.detach().flatten()[:4].tolist()), "checksum": digits(checksum(p))} for name, p in model.named_parameters()}
    model.load_state_dict(initial)
    return {"options": options, "loss": losses, "gradNorm": norms, "weights": weights}


adam = {"learningRate": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
optimizers = {
    "adam": {"name": "adam", **adam, "weightDecay": 0.0},
    "adamw": {"name": "adamw", **adam, "weightDecay": 0.1},
    "adamw-clipped": {"name": "adamw", **adam, "weightDecay": 0.1, "maxGradNorm": 1.0},
}


def write(path, record):
    """One line for each entry of the outer two levels."""
    def lines(value, depth):
        if isinstance(value, dict) and depth < 2:
            pad = " " * (depth + 1)
            inner = ",\n".join(f"{pad}{json.dumps(key)}: {lines(held, depth + 1)}" for key, held in value.items())
            return "{\n" + inner + "\n" + " " * depth + "}"
        return json.dumps(value, separators=(",", ":"))

    path.write_text(lines(record, 0) + "\n", encoding="utf-8")


plain = LlamaRMSNorm.forward, LlamaRotaryEmbedding.forward
for number, (name, model) in enumerate(models.items()):
    random = numpy.random.default_rng([2206, 761, number])
    rows = [[0, *random.integers(1, V, length).tolist()] for length in [CONTEXT, 5, 1, 8]]
    model.eval()
    with torch.no_grad():
        for parameter_name, p in model.named_parameters():
            is_norm = p.ndim == 1 and parameter_name.endswith(".weight")
            values = random.normal(1.0 if is_norm else 0.0, 0.2 if is_norm else 0.3, p.shape)
            p.copy_(torch.from_numpy(values.astype(numpy.float32)))
    path = here / name
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer, separators=(",", ":")) + "\n", encoding="utf-8")
    # What is recorded is of the files, not of what they were made from.
    model = type(model).from_pretrained(path, dtype=torch.float32, attn_implementation=model.config._attn_implementation).eval()
    with torch.no_grad():
        in_float32 = [token_log_probs(model, row).double() for row in rows]

    LlamaRMSNorm.forward, LlamaRotaryEmbedding.forward = exact_norm, exact_rotary
    model = model.double()
    initial = {key: held.clone() for key, held in model.state_dict().items()}
    log_probs = [token_log_probs(model, row).detach() for row in rows]
    assert all(row.dtype == torch.float64 for row in log_probs)
    deviation = max((a - b).abs().max().item() for a, b in zip(in_float32, log_probs))
    assert deviation < 1e-5, (name, deviation)
    model.zero_grad()
    loss = loss_of(model, rows)
    loss.backward()
    # As float64 bytes: exact, and half the size of digits.
    save_file({key: p.grad for key, p in model.named_parameters()}, path / "gradient.safetensors")
    for file in path.glob("*.safetensors"):
        file.chmod(0o644)
    golden = {
        "versions": versions,
        "float32Deviation": float(f"{deviation:.2g}"),
        "rows": rows,
        "tokenLogProbs": [row.tolist() for row in log_probs],
        "loss": loss.item(),
        "optimizers": {key: after_steps(model, rows, initial, options) for key, options in optimizers.items()},
    }
    write(path / "golden.json", golden)
    LlamaRMSNorm.forward, LlamaRotaryEmbedding.forward = plain
    print(name, sum(p.numel() for p in model.parameters()), "weights; float32 deviation", deviation, golden["optimizers"]["adam"]["gradNorm"])

# transformers counts steps from 0, where its rate is 0, and reaches zero at its last; here the first step is 1 and the zero
# comes one step after the last.
schedules = []
for kind in ["constant_with_warmup", "linear", "cosine"]:
    for warmup, steps in [(0, 1), (0, 7), (1, 6), (4, 10), (10, 10)]:
        parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([parameter], lr=3e-4)
        scheduler = transformers.get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps + 1)
        rates = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            rates.append(scheduler.get_last_lr()[0])
        schedules.append({"schedule": kind.split("_")[0], "learningRate": 3e-4, "warmupSteps": warmup, "steps": steps, "rates": rates})
write(here / "schedules.json", {"versions": versions, "schedules": {str(i): entry for i, entry in enumerate(schedules)}})
