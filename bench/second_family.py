#!/usr/bin/env python3
"""Trains a small model of another family on a text, so that what holds on the usual model
can be tried on a second one: a Qwen3 (norms of queries and keys, grouped heads, tied head)
of some three million parameters with a byte-level BPE of 4096 tokens of its own.

The folder it writes is an ordinary Hugging Face one (config.json, model.safetensors,
tokenizer.json). Same text, steps and seed: nearly the same model, for torch rounds as the
CPU does. Needs torch, transformers and tokenizers; nothing else of novaq does.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 4096
LENGTH = 256  # tokens of a sequence
END = "<|endoftext|>"


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", type=Path, required=True, nargs="+", help="what it learns")
    p.add_argument("--output", type=Path, required=True, help="folder of the model")
    p.add_argument("--steps", type=int, default=800)
    p.add_argument("--batch", type=int, default=8, help="sequences a step")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    return p.parse_args()


def tokens_of(text, folder):
    """Trains the tokenizer, saves it, and encodes the text."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(text.splitlines(keepends=True), vocab_size=VOCABULARY,
                            special_tokens=[END], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END)
    fast.save_pretrained(folder)
    return torch.tensor(bpe.encode(text).ids), bpe.token_to_id(END)


def model_of(end):
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=640, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=end, eos_token_id=end, attention_dropout=0.0))


def rate_at(step, steps, peak=2e-3, warm_up=40):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))))


def train(model, ids, args):
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(args.steps):
        starts = torch.randint(len(ids) - LENGTH, (args.batch,))
        batch = torch.stack([ids[s:s + LENGTH] for s in starts])
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args.steps)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}", file=sys.stderr, flush=True)


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    ids, end = tokens_of("".join(p.read_text() for p in args.text), args.output)
    model = model_of(end)
    train(model, ids, args)
    model.save_pretrained(args.output)


if __name__ == "__main__":
    main()
