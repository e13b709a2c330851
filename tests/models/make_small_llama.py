"""Makes the small pretrained Llama that the training tests fine-tune.

Half a million weights, a tokenizer of 1,024 byte pairs and a chat template, trained for a few
minutes on the docstrings of the standard library: enough to have learned what English looks like,
so that fine-tuning it has something to build on. The result lies beside this file, under 2 MB.
``python tests/models/make_small_llama.py [STEPS]``
"""

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
TARGET = HERE / "small-llama"
VOCABULARY, WIDTH, ROWS = 1024, 128, 32
SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def docstrings() -> Iterator[str]:
    """Of the standard library's modules, in a fixed order."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > 80:
                    yield text


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs learned from the texts."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = CHAT
    return made


def model() -> LlamaForCausalLM:
    """An untrained one."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def pretrain(llama: LlamaForCausalLM, tokens: torch.Tensor, steps: int) -> float:
    """Train on random windows; the mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(llama.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    losses = []
    for step in range(steps):
        starts = torch.randint(0, len(tokens) - WIDTH, (ROWS,)).tolist()
        batch = torch.stack([tokens[at : at + WIDTH] for at in starts])
        loss = llama(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % 100 == 0:
            sys.stderr.write(f"step {step} of {steps}: loss {losses[-1]:.3f}\n")
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def main(steps: int = 1500) -> None:
    """Make it and write it."""
    torch.manual_seed(0)
    texts = list(docstrings())
    tokenizer = tokenizer_of(texts)
    ids = [[*each, 2] for each in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    tokens = torch.tensor([token for row in ids for token in row])
    llama = model()
    loss = pretrain(llama, tokens, steps)
    sys.stderr.write(f"{len(tokens)} tokens, loss {loss:.3f}\n")
    llama.to(torch.bfloat16).save_pretrained(TARGET)
    tokenizer.save_pretrained(TARGET)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
