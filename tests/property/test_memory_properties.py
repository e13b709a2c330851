from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.architectures import MODULES, architecture_of
from shared.memory import fits, peak_memory, strategies, usable_gb
from shared.plan import largest_plan
from shared.profiles import ACCURACY_PROFILE
from shared.training_step import ADAMW, ADAMW_8BIT, TrainingStep

NAMES = [
    "Llama-3.2-1B", "Llama-3.1-8B", "Qwen2.5-7B", "Qwen2.5-14B", "Llama-3.3-70B", "Qwen3-4B",
    "Mixtral-8x7B", "org/unknown-2b", "org/unknown",
]  # fmt: skip
models = st.sampled_from(NAMES)
counts = st.none() | st.integers(1, 10**12)
gpu_counts = st.integers(1, 4)
memory = st.floats(1, 400)
rows_tokens = st.integers(1, 16384)


@st.composite
def steps(draw):
    gpus = draw(gpu_counts)
    return TrainingStep(
        architecture_of(draw(models), draw(counts)),
        draw(st.integers(1, 4096)),
        draw(st.integers(1, 64)),
        draw(rows_tokens),
        tuple(draw(st.sets(st.sampled_from(MODULES)))),
        gpus=gpus,
        parallel=draw(st.sampled_from(strategies(gpus))),
        optimizer=draw(st.sampled_from([ADAMW, ADAMW_8BIT])),
        chunked_loss=draw(st.booleans()),
        gradient_checkpointing=draw(st.booleans()),
        resident_gradients=draw(st.booleans()),
        bucket_view=draw(st.booleans()),
        dropout=draw(st.booleans()),
        autocast=draw(st.booleans()),
        device=draw(st.sampled_from(["cuda", "cpu"])),
    )


@settings(deadline=None)
@given(steps(), st.sampled_from(["lora_r", "rows", "row_tokens"]), st.integers(1, 5000))
def test_more_of_anything_never_needs_less(step, field, more):
    larger = replace(step, **{field: getattr(step, field) + more})
    assert peak_memory(larger).tensor_bytes >= peak_memory(step).tensor_bytes


@settings(deadline=None)
@given(steps())
def test_no_part_is_negative_and_the_base_is_always_there(step):
    peak = peak_memory(step)
    parts = (peak.adapters, peak.optimizer, peak.gradients, peak.buckets, peak.gathered)
    assert min(*parts, peak.activations, peak.logits, peak.overhead) >= 0
    assert peak.base_weights * step.shards >= 2 * step.architecture.base_parameters


@settings(deadline=None)
@given(steps())
def test_savings_save(step):
    assert peak_memory(replace(step, resident_gradients=True)).total_gb >= (
        peak_memory(replace(step, resident_gradients=False)).total_gb
    )
    assert peak_memory(replace(step, optimizer=ADAMW)).total_gb >= (
        peak_memory(replace(step, optimizer=ADAMW_8BIT)).total_gb
    )


@settings(deadline=None)
@given(models, counts, gpu_counts, memory, rows_tokens, st.floats(0, 200), st.integers(0, 9000))
def test_fits_is_monotone_in_memory_and_in_row_length(name, count, gpus, gb, row, gain, longer):
    if fits(name, count, gpus, gb, row):
        assert fits(name, count, gpus, gb + gain, row)
    else:
        assert not fits(name, count, gpus, gb, row + longer)


@settings(deadline=None)
@given(models, counts, gpu_counts, memory, rows_tokens)
def test_what_fits_has_a_plan_and_what_does_not_has_none(name, count, gpus, gb, row):
    profile = replace(ACCURACY_PROFILE, max_length=row)
    plan = largest_plan(architecture_of(name, count), profile, gpus=gpus, gb_per_gpu=gb)
    assert (plan is not None) == fits(name, count, gpus, gb, row)


@settings(deadline=None)
@given(
    models, gpu_counts, memory, rows_tokens,
    st.integers(1, 64), st.integers(1, 16), st.sampled_from([8, 64, 256, 2048, 8192]),
)  # fmt: skip
def test_a_plan_keeps_the_batch_and_fits(name, gpus, gb, row, batch, accumulation, rank):
    profile = replace(
        ACCURACY_PROFILE,
        batch_size=batch,
        gradient_accumulation_steps=accumulation,
        lora_r=rank,
    )
    plan = largest_plan(architecture_of(name), profile, gpus=gpus, gb_per_gpu=gb, longest_row=row)
    if plan is None:
        return
    assert plan.predicted_gb <= usable_gb(gb)
    assert plan.effective_batch == batch * accumulation * gpus
    assert 1 <= plan.micro_batch <= batch
    assert 8 <= plan.lora_r <= rank
    assert all(d.wanted != d.given and d.why for d in plan.deviations)
    assert plan.parallel == "ddp" or gpus > 1


@settings(deadline=None)
@given(st.text(max_size=40), st.none() | st.integers(-5, 10**30))
def test_any_name_and_count_have_a_shape(name, count):
    shape = architecture_of(name, count)
    assert shape.base_parameters > 0
    assert shape.heads >= shape.kv_heads >= 1
