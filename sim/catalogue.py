"""The mix of models: public model ids, their published parameter counts, and how often each comes.

The counts of text models are exact (what the model's files add up to, tied embeddings once); those
of image models are the makers' rounded figures. The market's rules tell the two size classes and
no more, so the weights are this project's assumption: recent small instruct models come often, old
base models now and then, so that every row of the policy's family table is met.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ORDINARY_LIMIT = 12_000_000_000
"""Parameters: a text model up to here is ordinary, above it big (validator's rules, mid-2025)."""


class Model(BaseModel):
    """One base model that the market may ask to be tuned."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    id: Annotated[str, Field(min_length=1, max_length=256, description="Model id, ORG/NAME.")]
    params: Annotated[int, Field(ge=0, le=2**53, description="Parameters (a plain count).")]
    kind: Annotated[Literal["text", "image"], Field(description="What it makes.")] = "text"
    weight: Annotated[
        float, Field(gt=0, le=1e6, description="How often it comes, relative to its class.")
    ] = 1.0

    @property
    def is_big(self) -> bool:
        """Whether it is a text model of the big class."""
        return self.kind == "text" and self.params > ORDINARY_LIMIT


_TEXT = (
    ("unsloth/Llama-3.2-1B-Instruct", 1_235_814_400, 6),
    ("unsloth/Llama-3.2-3B-Instruct", 3_212_749_824, 6),
    ("NousResearch/Meta-Llama-3-8B-Instruct", 8_030_261_248, 4),
    ("unsloth/Meta-Llama-3.1-8B-Instruct", 8_030_261_248, 6),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384, 4),
    ("NousResearch/Llama-2-7b-chat-hf", 6_738_415_616, 2),
    ("codellama/CodeLlama-7b-hf", 6_738_546_688, 2),
    ("openlm-research/open_llama_3b", 3_426_473_600, 1),
    ("lmsys/vicuna-7b-v1.5", 6_738_415_616, 2),
    ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 6),
    ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 6),
    ("Qwen/Qwen2.5-3B-Instruct", 3_085_938_688, 4),
    ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, 6),
    ("Qwen/Qwen2.5-Coder-7B-Instruct", 7_615_616_512, 2),
    ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, 4),
    ("mistralai/Mistral-7B-v0.1", 7_241_732_096, 2),
    ("google/gemma-2-2b-it", 2_614_341_888, 4),
    ("google/gemma-2-9b-it", 9_241_705_984, 3),
    ("microsoft/phi-2", 2_779_683_840, 2),
    ("microsoft/Phi-3.5-mini-instruct", 3_821_079_552, 4),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000, 3),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512, 3),
    ("deepseek-ai/deepseek-coder-6.7b-instruct", 6_740_512_768, 1),
    ("01-ai/Yi-1.5-6B-Chat", 6_061_035_520, 1),
    ("01-ai/Yi-1.5-9B-Chat", 8_829_407_232, 1),
    ("internlm/internlm2_5-7b-chat", 7_737_708_544, 1),
    ("tiiuae/Falcon3-7B-Base", 7_455_550_464, 1),
    ("mosaicml/mpt-7b", 6_649_286_656, 1),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, 3),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, 3),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, 3),
    ("EleutherAI/pythia-160m", 162_322_944, 1),
    ("EleutherAI/pythia-410m", 405_334_016, 1),
    ("EleutherAI/pythia-1.4b", 1_414_647_808, 1),
    ("EleutherAI/pythia-6.9b", 6_857_302_016, 1),
    ("EleutherAI/pythia-12b", 11_846_072_320, 1),
    ("togethercomputer/RedPajama-INCITE-Base-3B-v1", 2_775_864_320, 1),
    ("openai-community/gpt2", 124_439_808, 1),
    ("openai-community/gpt2-xl", 1_557_611_200, 1),
    ("facebook/opt-125m", 125_239_296, 1),
    ("facebook/opt-1.3b", 1_315_758_080, 1),
    ("bigscience/bloom-560m", 559_214_592, 1),
    ("bigscience/bloom-7b1", 7_069_016_064, 1),
    # big: 12 to 71 billion
    ("mistralai/Mistral-Nemo-Instruct-2407", 12_247_782_400, 3),
    ("NousResearch/Llama-2-13b-chat-hf", 13_015_864_320, 2),
    ("microsoft/phi-4", 14_659_507_200, 3),
    ("Qwen/Qwen2.5-14B-Instruct", 14_770_033_664, 3),
    ("EleutherAI/gpt-neox-20b", 20_554_567_680, 1),
    ("mistralai/Mistral-Small-24B-Instruct-2501", 23_572_403_200, 2),
    ("google/gemma-2-27b-it", 27_227_128_320, 2),
    ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352, 3),
    ("deepseek-ai/deepseek-coder-33b-instruct", 33_342_991_360, 1),
    ("codellama/CodeLlama-34b-hf", 33_743_970_304, 1),
    ("01-ai/Yi-1.5-34B-Chat", 34_388_917_248, 1),
    ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704, 1),
    ("unsloth/Meta-Llama-3.1-70B-Instruct", 70_553_706_496, 2),
)

_IMAGE = (
    ("stabilityai/stable-diffusion-xl-base-1.0", 3_500_000_000, 3),
    ("SG161222/RealVisXL_V4.0", 3_500_000_000, 1),
    ("Lykon/dreamshaper-xl-1-0", 3_500_000_000, 1),
    ("black-forest-labs/FLUX.1-dev", 12_000_000_000, 2),
    ("black-forest-labs/FLUX.1-schnell", 12_000_000_000, 1),
)

CATALOGUE: tuple[Model, ...] = (
    *(Model(id=name, params=params, weight=weight) for name, params, weight in _TEXT),
    *(
        Model(id=name, params=params, kind="image", weight=weight)
        for name, params, weight in _IMAGE
    ),
)
"""The models a scenario meets unless it names its own."""
