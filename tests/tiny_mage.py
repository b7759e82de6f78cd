"""Files as MAGE's authors publish them, tiny and of random weights, and what they say of an image.

The answers are computed from the file with the blocks of transformers and diffusers, none of them ours.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

WORDS, LABELS, CLASS, MASK = 64, 1000, 64 + 76, 64 + 1000  # a codebook, classes, the class token's, the mask's
WIDTH, INNER, GRID = 128, 64, 4
CHANNELS, BLOCKS, BOOK = (32, 32, 64), 1, 12  # two halvings: images of 16 pixels

UNUSED = {
    "patch_embed.proj.weight": (WIDTH, 3, 4, 4), "patch_embed.proj.bias": (WIDTH,), "cls_token": (1, 1, WIDTH),
    "pos_embed": (1, 1 + GRID**2, WIDTH), "mask_token": (1, 1, INNER), "decoder_pos_embed": (1, 1 + GRID**2, INNER),
    "decoder_pred.weight": (48, INNER), "decoder_pred.bias": (48,), "token_emb.position_ids": (1, 1 + GRID**2),
}  # fmt: skip


def tokenizer_shapes():
    """Names and shapes in the file of the tokenizer."""
    shapes = {"quantize.embedding.weight": (WORDS, BOOK), "encoder.conv_in.weight": (CHANNELS[0], 3, 3, 3)}

    def norm(name, n):
        shapes.update({f"{name}.weight": (n,), f"{name}.bias": (n,)})

    def block(name, before, after):
        norm(f"{name}.norm1", before)
        norm(f"{name}.norm2", after)
        shapes.update({f"{name}.conv1.weight": (after, before, 3, 3), f"{name}.conv2.weight": (after, after, 3, 3)})
        if before != after:
            shapes[f"{name}.nin_shortcut.weight"] = (after, before, 1, 1)

    def biased(name, after, before, size):
        shapes.update({f"{name}.weight": (after, before, size, size), f"{name}.bias": (after,)})

    for i, after in enumerate(CHANNELS):
        block(f"encoder.down.{i}.block.0", CHANNELS[max(i - 1, 0)], after)
        block(f"decoder.up.{i}.block.0", CHANNELS[min(i + 1, len(CHANNELS) - 1)], after)
        if i:
            biased(f"decoder.up.{i}.upsample.conv", after, after, 3)
    for half, last in (("encoder", CHANNELS[-1]), ("decoder", CHANNELS[0])):
        block(f"{half}.mid.block_1", CHANNELS[-1], CHANNELS[-1])
        block(f"{half}.mid.block_2", CHANNELS[-1], CHANNELS[-1])
        norm(f"{half}.norm_out", last)
    biased("encoder.conv_out", BOOK, CHANNELS[-1], 1)
    biased("decoder.conv_in", CHANNELS[-1], BOOK, 3)
    biased("decoder.conv_out", 3, CHANNELS[0], 3)
    return shapes


def transformer_shapes():
    """Names and shapes in the file of the transformer, what its forward pass never reads among them."""
    vocabulary = WORDS + LABELS + 1
    shapes = {
        **UNUSED,
        "token_emb.word_embeddings.weight": (vocabulary, WIDTH),
        "token_emb.position_embeddings.weight": (1 + GRID**2, WIDTH),
        "decoder_embed.weight": (INNER, WIDTH), "decoder_embed.bias": (INNER,),
        "decoder_pos_embed_learned": (1, 1 + GRID**2, INNER),
        "mlm_layer.fc.weight": (WIDTH, INNER), "mlm_layer.fc.bias": (WIDTH,), "mlm_layer.bias": (1, 1, vocabulary),
    }  # fmt: skip
    for name, n in (("token_emb.LayerNorm", WIDTH), ("norm", WIDTH), ("decoder_norm", INNER), ("mlm_layer.ln", WIDTH)):
        shapes.update({f"{name}.weight": (n,), f"{name}.bias": (n,)})
    for name, n in (("blocks.0", WIDTH), ("blocks.1", WIDTH), ("decoder_blocks.0", INNER)):
        sizes = {"attn.qkv": (3 * n, n), "attn.proj": (n, n), "mlp.fc1": (4 * n, n), "mlp.fc2": (n, 4 * n)}
        for part, (after, before) in sizes.items():
            shapes.update({f"{name}.{part}.weight": (after, before), f"{name}.{part}.bias": (after,)})
        for part in ("norm1", "norm2"):
            shapes.update({f"{name}.{part}.weight": (n,), f"{name}.{part}.bias": (n,)})
    return shapes


def drawn(shapes, seed):
    """Weights of these shapes, of a size that lets every part show in the answer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.2 * value  # of a norm
        elif len(shape) > 1 and name != "quantize.embedding.weight":
            value = value / math.prod(shape[1:]) ** 0.5
        state[name] = value
    return state


def states(seed=0):
    """The two files' weights: of the tokenizer and of the transformer."""
    return drawn(tokenizer_shapes(), seed), drawn(transformer_shapes(), seed + 1)


# What they say, from the files.


def codes(state, images):
    """(B, 3, H, W) in [0, 1] -> what the codebook is searched for, (B, BOOK, GRID, GRID)."""
    x = F.conv2d(images, state["encoder.conv_in.weight"], padding=1)
    for i in range(len(CHANNELS)):
        x = _residual(state, f"encoder.down.{i}.block.0", F.avg_pool2d(x, 2) if i else x)
    x = _end(state, "encoder", _residual(state, "encoder.mid.block_2", _residual(state, "encoder.mid.block_1", x)))
    return F.conv2d(x, state["encoder.conv_out.weight"], state["encoder.conv_out.bias"])


def words(state, images):
    """(B, 3, H, W) in [0, 1] -> the nearest entries (B, GRID^2), and how much nearer than the next they are."""
    found = codes(state, images).flatten(2).transpose(1, 2)
    far = torch.cdist(found.double(), state["quantize.embedding.weight"].double())
    near = far.topk(2, dim=2, largest=False).values
    return far.argmin(2), near[..., 1] - near[..., 0]


def pixels(state, indices):
    """Words (B, GRID^2) -> images (B, 3, H, W)."""
    x = state["quantize.embedding.weight"][indices].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    x = F.conv2d(x, state["decoder.conv_in.weight"], state["decoder.conv_in.bias"], padding=1)
    x = _residual(state, "decoder.mid.block_2", _residual(state, "decoder.mid.block_1", x))
    for i in (2, 1, 0):
        x = _residual(state, f"decoder.up.{i}.block.0", x)
        if i:
            weights = (state[f"decoder.up.{i}.upsample.conv.{part}"] for part in ("weight", "bias"))
            x = F.conv2d(nn.Upsample(scale_factor=2)(x), *weights, padding=1)
    last = (state[f"decoder.conv_out.{part}"] for part in ("weight", "bias"))
    return F.conv2d(_end(state, "decoder", x), *last, padding=1)


def encoded(state, indices, hidden):
    """Words and hidden places (B, GRID^2) -> codes (B, 1 + GRID^2, WIDTH)."""
    seen = torch.where(hidden, MASK, indices)
    seen = torch.cat([torch.full((len(seen), 1), CLASS), seen], 1)
    x = state["token_emb.word_embeddings.weight"][seen] + state["token_emb.position_embeddings.weight"]
    x = _normed(state, "token_emb.LayerNorm", x, 1e-6)
    for i in range(2):
        x = _vit(state, f"blocks.{i}", WIDTH // 64)(x)
    return _normed(state, "norm", x, 1e-6)


def scores(state, seen, hidden):
    """Codes and hidden places -> logits of the codebook's words, (B, GRID^2, WORDS)."""
    x = F.linear(seen, state["decoder_embed.weight"], state["decoder_embed.bias"])
    hidden = torch.cat([torch.zeros(len(hidden), 1, dtype=torch.bool), hidden], 1)
    x = torch.where(hidden[..., None], x[:, :1], x) + state["decoder_pos_embed_learned"]
    x = _normed(state, "decoder_norm", _vit(state, "decoder_blocks.0", 16)(x), 1e-6)
    x = F.gelu(F.linear(x, state["mlm_layer.fc.weight"], state["mlm_layer.fc.bias"]))
    every = _normed(state, "mlm_layer.ln", x, 1e-5) @ state["token_emb.word_embeddings.weight"].T
    return (every + state["mlm_layer.bias"])[:, 1:, :WORDS]


def _residual(state, name, x):
    from diffusers.models.resnet import ResnetBlock2D

    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    after, before = own["conv1.weight"].shape[:2]
    block = ResnetBlock2D(in_channels=before, out_channels=after, temb_channels=None, conv_shortcut_bias=False)
    own = {key.replace("nin_shortcut", "conv_shortcut"): value for key, value in own.items()}
    block.load_state_dict(own | {"conv1.bias": torch.zeros(after), "conv2.bias": torch.zeros(after)})
    with torch.no_grad():
        return block(x, None)


def _vit(state, name, heads):
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTLayer

    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    n = len(own["norm1.weight"])
    layer = ViTLayer(ViTConfig(
        hidden_size=n, num_attention_heads=heads, intermediate_size=4 * n, layer_norm_eps=1e-6,
        attn_implementation="eager",
    )).eval()  # fmt: skip
    weights = {}
    for part in ("weight", "bias"):
        for letter, third in zip("qkv", own[f"attn.qkv.{part}"].chunk(3), strict=True):
            weights[f"attention.{letter}_proj.{part}"] = third
        weights |= {f"{theirs}.{part}": own[f"{ours}.{part}"] for ours, theirs in _VIT.items()}
    layer.load_state_dict(weights)
    return lambda x: layer(x).detach()


_VIT = {
    "attn.proj": "attention.o_proj", "norm1": "layernorm_before", "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


def _end(state, half, x):
    return F.silu(F.group_norm(x, 32, state[f"{half}.norm_out.weight"], state[f"{half}.norm_out.bias"], 1e-6))


def _normed(state, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)
