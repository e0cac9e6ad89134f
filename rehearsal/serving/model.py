"""`PYTHON -m … MODEL FOLDER` in Dynamo's own environment: a model folder without weights, made on this machine.

The configuration is the model's own, as the aisimulate wheel carries it; the tokenizer is trained on Python's standard library, so that
nothing is downloaded. Run as a file: this environment has none of our packages.
"""

import json
import sys
import sysconfig
from pathlib import Path

VOCABULARY = 8192
END, START = "<|im_end|>", "<|im_start|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt is not defined or add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    import aisimulate_core
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model, folder = sys.argv[1], Path(sys.argv[2])
    name = f"{model.replace('/', '--')}_config.json"
    source = next(Path(root) / "model_configs" / name for root in aisimulate_core.__path__)
    if not source.exists():
        sys.exit(f"aisimulate has no configuration of {model}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", START, END],
        show_progress=False,
    )
    texts = sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))
    tokenizer.train(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    config = json.loads(source.read_text(encoding="utf-8"))
    config |= {"eos_token_id": end, "bos_token_id": tokenizer.token_to_id("<|endoftext|>")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "model_max_length": 131072,
        "chat_template": TEMPLATE,
    }
    for file, content in (
        ("config.json", config),
        ("generation_config.json", {"eos_token_id": [end]}),
        ("tokenizer_config.json", settings),
    ):
        (folder / file).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
