"""Which family a model id belongs to: every expected value follows from the rule by hand.

The rule: the name after the organisation, case ignored, separators inside a family's name
optional; four characters or more match anywhere, three or fewer only between boundaries
(separator, letter/digit change, lower-to-upper change); the earliest match, then the longest.
"""

import pytest

from shared.families import FAMILIES, family_of

SPECIFIED = {
    "codellama/CodeLlama-7b-hf": "codellama",
    "NousResearch/Meta-Llama-3-8B-Instruct": "llama",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "llama",
    "FacebookAI/roberta-base": "roberta",
    "openai-community/gpt2-xl": "gpt2",
    "EleutherAI/gpt-neox-20b": "gptneox",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "deepseek",
    "Qwen/Qwen2.5-Coder-32B-Instruct": "qwen",
    "01-ai/Yi-1.5-9B": "yi",
    "microsoft/Phi-3.5-mini-instruct": "phi",
    "bigscience/bloomz-560m": "bloom",
    "google/flan-t5-xl": "t5",
    "facebook/opt-1.3b": "opt",
    "mistralai/Mixtral-8x7B-v0.1": None,
}
"""Named in the specification."""

LONG_FAMILIES = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "meta-llama/Llama-2-7b-chat-hf": "llama",
    "huggyllama/llama-7b": "llama",
    "unsloth/llama-3-8b-bnb-4bit": "llama",
    "hfl/chinese-llama-2-7b": "llama",
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF": "llama",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral",
    "teknium/OpenHermes-2.5-Mistral-7B": "mistral",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama",
    "Phind/Phind-CodeLlama-34B-v2": "codellama",  # earlier: "Phin" is no phi
    "codefuse-ai/CodeFuse-CodeLlama-34B": "codellama",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen",
    "Alibaba-NLP/gte-Qwen2-7B-instruct": "qwen",
    "deepseek-ai/deepseek-coder-6.7b-instruct": "deepseek",
    "tiiuae/falcon-7b": "falcon",
    "tiiuae/Falcon3-10B-Instruct": "falcon",
    "lmsys/vicuna-7b-v1.5": "vicuna",
    "chavinlo/alpaca-native": "alpaca",
    "medalpaca/medalpaca-7b": "alpaca",  # anywhere: inside a word
    "hfl/chinese-alpaca-2-7b": "alpaca",
    "baichuan-inc/Baichuan2-13B-Chat": "baichuan",
    "BAAI/AquilaChat-7B": "aquila",
    "BelleGroup/BELLE-7B-2M": "belle",
    "google/gemma-2-9b-it": "gemma",
    "google/codegemma-7b-it": "gemma",  # inside a word
    "google/recurrentgemma-2b": "gemma",
    "bigscience/bloom-7b1": "bloom",
    "sambanovasystems/BLOOMChat-176B-v1": "bloom",
    "EleutherAI/pythia-1.4b-deduped": "pythia",
    "facebook/xglm-564M": "xglm",
    "internlm/internlm2-chat-7b": "internlm",
    "internlm/internlm2_5-7b-chat": "internlm",
    "THUDM/chatglm3-6b": "chatglm",
    "zai-org/chatglm2-6b-int4": "chatglm",
    "WizardLM/WizardLM-13B-V1.2": "wizard",
    "WizardLM/WizardCoder-15B-V1.0": "wizard",
    "WizardLM/WizardMath-7B-V1.1": "wizard",
}

BERT_LIKE = {
    "google-bert/bert-base-uncased": "bert",
    "distilbert/distilbert-base-uncased": "bert",
    "albert/albert-base-v2": "bert",
    "microsoft/deberta-v3-base": "bert",
    "answerdotai/ModernBERT-base": "bert",
    "FacebookAI/xlm-roberta-large": "roberta",  # roberta starts before its own bert
    "distilbert/distilroberta-base": "roberta",
    "hfl/chinese-roberta-wwm-ext": "roberta",
    "facebook/bart-large": None,
}

GPT_LIKE = {
    "openai-community/gpt2": "gpt2",  # gpt ends at a boundary here, gpt2 is longer
    "distilbert/distilgpt2": "gpt2",  # gpt does not stand alone, gpt2 may match anywhere
    "skt/kogpt2-base-v2": "gpt2",
    "ai-forever/rugpt3large_based_on_gpt2": "gpt2",  # the first gpt follows a small letter
    "uer/gpt2-chinese-cluecorpussmall": "gpt2",
    "EleutherAI/gpt-neo-1.3B": "gptneo",
    "EleutherAI/gpt-j-6b": "gptj",
    "nlpcloud/instruct-gpt-j-fp16": "gptj",
    "togethercomputer/GPT-JT-6B-v1": "gptj",
    "rinna/japanese-gpt-neox-3.6b": "gptneox",
    "togethercomputer/GPT-NeoXT-Chat-Base-20B": "gptneox",
    "openai/gpt-oss-20b": "gpt",
    "openai/gpt-oss-120b": "gpt",
    "openai-community/openai-gpt": "gpt",
    "cerebras/Cerebras-GPT-13B": "gpt",
    "microsoft/DialoGPT-medium": "gpt",  # lower to upper
    "Vision-CAIR/MiniGPT-4": "gpt",
    "bigcode/gpt_bigcode-santacoder": "gpt",
    "nomic-ai/gpt4all-j": "gpt",  # letter to digit
    "microsoft/biogpt": None,
    "Hello-SimpleAI/chatgpt-detector-roberta": "roberta",  # chatgpt is no gpt
    "TheBloke/Mixtral-8x7B-v0.1-GPTQ": None,  # GPTQ is no gpt
    "TheBloke/Mistral-7B-Instruct-v0.1-GPTQ": "mistral",
}

SHORT_FAMILIES = {
    "google-t5/t5-small": "t5",
    "google/long-t5-tglobal-base": "t5",
    "google/t5gemma-2b-2b-ul2": "t5",  # digit to letter; earlier than gemma
    "MBZUAI/LaMini-Flan-T5-783M": "t5",
    "lmsys/fastchat-t5-3b-v1.0": "t5",
    "google/mt5-base": None,  # small letter before it
    "bigscience/mt0-large": None,
    "google/byt5-small": None,
    "google/umt5-xxl": None,
    "Salesforce/codet5-base": None,
    "facebook/opt-iml-max-1.3b": "opt",
    "KoboldAI/OPT-13B-Erebus": "opt",
    "google/owlvit-base-patch32": None,
    "mosaicml/mpt-7b-instruct": "mpt",
    "mosaicml/mpt-30b-chat": "mpt",
    "meta-llama/Prompt-Guard-86M": None,  # mpt inside "Prompt", and Meta's llama is the owner
    "01-ai/Yi-34B-200K": "yi",
    "01-ai/Yi-Coder-9B-Chat": "yi",
    "NousResearch/Nous-Hermes-2-Yi-34B": "yi",
    "TheBloke/Nous-Hermes-2-Yi-34B-GPTQ": "yi",
    "microsoft/phi-2": "phi",
    "microsoft/phi-1_5": "phi",
    "microsoft/Phi-4-mini-instruct": "phi",
    "cognitivecomputations/dolphin-2_6-phi-2": "phi",  # not the one inside "dolphin"
    "cognitivecomputations/dolphin-2.5-mixtral-8x7b": None,
    "cognitivecomputations/dolphin-2.6-mistral-7b": "mistral",
}

JOINTS = {
    "openlm-research/open_llama_3b_v2": "openllama",
    "openlm-research/open_llama_7b": "openllama",
    "s-JoL/Open-Llama-V2": "openllama",
    "togethercomputer/RedPajama-INCITE-7B-Base": "redpajama",
    "togethercomputer/RedPajama-INCITE-Chat-3B-v1": "redpajama",
}

EARLIEST = {
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "deepseek",
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": "deepseek",
    "cognitivecomputations/Wizard-Vicuna-13B-Uncensored": "wizard",
    "TheBloke/wizard-vicuna-13B-HF": "wizard",
    "declare-lab/flan-alpaca-gpt4-xl": "alpaca",
    "bertin-project/bertin-gpt-j-6B": "bert",
}

OWNERS_DO_NOT_COUNT = {
    "mistralai/Codestral-22B-v0.1": None,
    "mistralai/Ministral-8B-Instruct-2410": None,
    "mistral-community/Mixtral-8x22B-v0.1": None,
    "Qwen/QwQ-32B": None,
    "deepseek-ai/Janus-Pro-7B": None,
    "internlm/OREAL-7B": None,
    "llava-hf/llava-1.5-7b-hf": None,
    "HuggingFaceTB/SmolLM2-135M-Instruct": None,
    "allenai/OLMo-2-1124-7B": None,
    "stabilityai/stablelm-2-1_6b": None,
    "HuggingFaceH4/zephyr-7b-beta": None,
    "zai-org/glm-4-9b-chat": None,
}

NO_OWNER = {
    "gpt2": "gpt2",
    "bert-base-cased": "bert",
    "t5-base": "t5",
}

REAL_IDS = (
    SPECIFIED
    | LONG_FAMILIES
    | BERT_LIKE
    | GPT_LIKE
    | SHORT_FAMILIES
    | JOINTS
    | EARLIEST
    | OWNERS_DO_NOT_COUNT
    | NO_OWNER
)

TRAPS = {
    "someone/adopt-7b": None,
    "someone/playing-7b": None,
    "someone/sapphire-13b": None,
    "someone/prompt-writer": None,
    "someone/my-OPTimal": None,  # upper to upper: no boundary after OPT
    "someone/xgpt": None,
    "someone/myYi": "yi",
    "someone/yiMy": "yi",
    "someone/2yi": "yi",
    "someone/yi2": "yi",
    "someone/yi+": "yi",
    "someone/mT5": "t5",  # lower to upper
    "someone/ByT5": "t5",
    "someone/MT5": None,  # upper to upper
    "someone/t5x": "t5",
    "someone/GPT NEO X": "gptneox",
    "someone/gpt.neo.x": "gptneox",
    "someone/gpt_neo-x": "gptneox",
    "someone/gptneox": "gptneox",
    "someone/GPT-2": "gpt2",
    "someone/Deep-Seek": "deepseek",
    "someone/Intern_LM": "internlm",
    "someone/Chat-GLM": "chatglm",
    "someone/X-GLM": "xglm",
    "someone/Red-Pajama": "redpajama",
    "someone/code_llama": "codellama",
    "someone/LLAMA": "llama",
    "llama/": None,
    "": None,
}
"""Not real, each for one clause of the rule."""


def test_the_table_is_large_enough() -> None:
    assert len(REAL_IDS) >= 100
    assert len([model for model in REAL_IDS if REAL_IDS[model] is None]) >= 20
    assert set(REAL_IDS.values()) - {None} == set(FAMILIES)


@pytest.mark.parametrize(("model", "family"), REAL_IDS.items())
def test_real_ids(model: str, family: str | None) -> None:
    assert family_of(model) == family


@pytest.mark.parametrize(("model", "family"), TRAPS.items())
def test_traps(model: str, family: str | None) -> None:
    assert family_of(model) == family


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_to_its_own_name(family: str) -> None:
    for name in (family, family.upper(), family.title(), f"a-{family}-b"):
        assert family_of(f"someone/{name}") == family


@pytest.mark.parametrize("family", [family for family in FAMILIES if len(family) <= 3])
def test_short_families_want_boundaries_on_both_sides(family: str) -> None:
    assert family_of(f"a{family}") is None
    assert family_of(family + family[-1]) is None


@pytest.mark.parametrize("family", [family for family in FAMILIES if len(family) >= 4])
def test_long_families_match_anywhere(family: str) -> None:
    assert family_of(f"zz{family}zz") == family
