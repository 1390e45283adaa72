"""Makes the folder that vLLM serves of the local engine's weights: ``python convert.py GGUF_FOLDER MODEL_FOLDER``.

Runs in vLLM's own environment, which has ``gguf``, ``torch`` and ``transformers``. The weights are had as one quantised
GGUF file, made for llama.cpp; vLLM reads the layout of Hugging Face. So every tensor is unpacked, renamed and stored as
bfloat16.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_WHOLE_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL, _USER_DEFINED = 3, 4
"""The types of tokens that the tokenizer takes as a whole wherever it meets them."""


class _File:
    """A GGUF file: its fields by name, its tensors unpacked."""

    def __init__(self, path: Path) -> None:
        self.reader = gguf.GGUFReader(path)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field, or the default where the file has no such field."""
        field = self.reader.get_field(name)
        return default if field is None else field.contents()

    def of_model(self, name: str) -> Any:
        """Return a field that the model's architecture stands before."""
        value = self.get(f"llama.{name}")
        if value is None:
            sys.exit(
                f"convert: the file says nothing of llama.{name}; only models of llama's architecture are converted"
            )
        return value


def _name(tensor: str) -> str:
    """Return Hugging Face's name for llama.cpp's, as blk.3.attn_q.weight."""
    parts = tensor.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_OF_A_LAYER[parts[2]]}.{parts[3]}"
    return f"{_WHOLE_MODEL[parts[0]]}.{parts[1]}"


def _unpermuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """Undo what llama.cpp does to queries and keys: it puts the two halves of each head's rotation side by side."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tensors(file: _File) -> dict[str, torch.Tensor]:
    heads = {"attn_q": file.of_model("attention.head_count"), "attn_k": file.of_model("attention.head_count_kv")}
    found = {}
    for tensor in file.reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            weights = _unpermuted(weights, heads[kind])
        found[_name(tensor.name)] = torch.tensor(weights).to(torch.bfloat16)
    return found


def _config(file: _File, *, tied: bool) -> dict[str, Any]:
    hidden, heads = file.of_model("embedding_length"), file.of_model("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": hidden // heads,
        "intermediate_size": file.of_model("feed_forward_length"),
        "max_position_embeddings": file.of_model("context_length"),
        "num_attention_heads": heads,
        "num_hidden_layers": file.of_model("block_count"),
        "num_key_value_heads": file.of_model("attention.head_count_kv"),
        "rms_norm_eps": file.of_model("attention.layer_norm_rms_epsilon"),
        "rope_theta": file.of_model("rope.freq_base"),
        "vocab_size": len(file.get("tokenizer.ggml.tokens")),
        "bos_token_id": file.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.get("tokenizer.ggml.eos_token_id"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }


def _tokenizer(file: _File) -> PreTrainedTokenizerFast:
    """Build the tokenizer of SmolLM: bytes paired by GPT-2's rules, every digit for itself."""
    if (pre := file.get("tokenizer.ggml.pre")) != "smollm":
        sys.exit(f"convert: the file's tokenizer is {pre!r}; only that of SmolLM is converted")
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges")]
    bare = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bare.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in {_CONTROL, _USER_DEFINED}]
    bare.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    known = {name: tokens[file.get(f"tokenizer.ggml.{name}_id")] for name in ("bos_token", "eos_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        **known,
        pad_token=known["eos_token"],
        model_max_length=file.of_model("context_length"),
        clean_up_tokenization_spaces=False,
        chat_template=file.get("tokenizer.chat_template"),
    )


def convert(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file into a folder, anew."""
    file = _File(source)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = _tensors(file)
    config = _config(file, tied="lm_head.weight" not in tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    # Nothing of sampling in it: vLLM would take what stands here for what a request leaves out.
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    _tokenizer(file).save_pretrained(folder)


def _main() -> None:
    source, folder = map(Path, sys.argv[1:])
    files = sorted(source.rglob("*.gguf")) if source.is_dir() else [source]
    if len(files) != 1:
        sys.exit(f"convert: {source} has {len(files)} files of weights, where it needs one")
    convert(files[0], folder)


if __name__ == "__main__":
    _main()
