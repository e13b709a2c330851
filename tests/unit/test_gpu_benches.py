"""The GPU benches: their arithmetic, their trials on the CPU, and what they say where they cannot
measure.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from benchmarks import (  # noqa: E402
    gpu_common,
    gpu_fsdp,
    gpu_memory,
    gpu_meter,
    gpu_model,
    gpu_ours,
    gpu_runs,
    gpu_sharing,
    gpu_throughput,
    gpu_turnaround,
)
from benchmarks.gpu_common import (  # noqa: E402
    OURS,
    PLAIN,
    attention_flops_per_token,
    estimate_s,
    flops_per_token,
    peak_of,
    shape_of,
    utilisation,
)
from benchmarks.gpu_runs import ROOT, WORKERS, Bench, Child, environment  # noqa: E402
from live.job_environment import passed, worker_environment  # noqa: E402
from live.training.terms import Settled  # noqa: E402
from live.training.ways import Family, Machine  # noqa: E402
from shared.architectures import MODULES  # noqa: E402
from shared.errors import InputError  # noqa: E402
from shared.units import GB  # noqa: E402

BENCHES = ("throughput", "memory", "sharing", "turnaround", "fsdp")
TINY = {"width": "tiny", "rank": 8, "row_tokens": 32, "steps": 2, "trial": True}
TINY_LORA = 8 * 2 * ((64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 128))


def ran(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
        cwd=ROOT,
    )


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_flops_of_a_token() -> None:
    assert flops_per_token(1000, 10, recomputed=False) == 4060
    assert flops_per_token(1000, 10, recomputed=True) == 6080


def test_utilisation_by_the_formula_and_as_the_card_sees_it() -> None:
    shape = shape_of("8b")
    base, lora = shape.base_parameters, shape.lora_parameters(128)
    at_peak = 989e12 / flops_per_token(base, lora, recomputed=True)
    found = utilisation(at_peak / 2, base, lora, shape, 2048.0, 989e12)
    assert found["hfu"] == pytest.approx(0.5)
    assert found["mfu"] == pytest.approx(0.5 * (4 * base + 6 * lora) / (6 * base + 8 * lora))
    embedding = 128256 * 4096
    attention = 4 * 2 * 2048 * 4096 * 32
    assert attention_flops_per_token(shape, 2048.0, recomputed=True) == attention
    seen = found["hfu_without_embedding_with_attention"] * 989e12 / (at_peak / 2)
    assert seen == pytest.approx(6 * (base - embedding) + 8 * lora + attention)


@pytest.mark.parametrize(
    ("card", "told", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", None, 989.0),
        ("NVIDIA H200", None, 989.0),
        ("NVIDIA H100 PCIe", None, 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 312.0),
    ],
)
def test_the_peak_is_the_card_s(card: str, told: float | None, peak: float) -> None:
    assert peak_of(card, told)[0] == peak
    assert "--peak-tflops" in peak_of("a card of 2030", None)[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", BENCHES)
def test_without_a_gpu_nothing_is_measured(name: str) -> None:
    done = ran(f"benchmarks.gpu_{name}")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"found 0 CUDA device(s), needed {2 if name == 'fsdp' else 1}: nothing measured"],
    )


def test_a_trial_runs_the_worker_s_own_step() -> None:
    done = ran("benchmarks.gpu_case", json.dumps({**TINY, "step": "ours", "rows": 4}))
    assert done.returncode == 0, done.stderr[-1500:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens_per_s"] > 0
    assert found["lora_params"] == TINY_LORA
    assert found["plan"]["lora_r"] == 8


def test_a_bench_tells_a_line_a_case_and_appends_it(tmp_path: Path) -> None:
    out = tmp_path / "lines"
    out.write_text('{"before": true}\n')
    done = ran("benchmarks.gpu_memory", "--trial", "--out", str(out))
    assert done.returncode == 0, done.stderr[-1500:]
    machine, case, summary = told = lines_of(done.stdout)
    assert lines_of(out.read_text()) == [{"before": True}, *told]
    assert machine["machine"]["trial"] is True
    assert (case["case"], case["plan"]["micro_batch"]) == ("tiny-8-32-80", 4)
    assert (summary["summary"], summary["ran"], summary["failed"]) == (True, 1, {})


def test_cases_that_no_longer_fit_are_not_run() -> None:
    done = ran("benchmarks.gpu_throughput", "--trial", "--budget-s", "0.5", "--only", "*full*")
    summary = lines_of(done.stdout)[-1]
    assert summary["ran"] == 0
    assert summary["not_run"] == ["tiny-8-full-eager", "tiny-8-full-plain"]


def test_the_most_wanted_cases_come_first_and_fit_ten_minutes() -> None:
    first, second = gpu_throughput.cases(False), gpu_memory.cases(False)
    assert [name for name, _ in first][:2] == ["8b-128-full-compiled", "8b-128-full-plain"]
    assert second[0][0] == "8b-128-2048-80-compiled"
    assert sum(estimate_s(each) for _, each in first[:3]) < 540
    assert sum(estimate_s(each) for _, each in second[:5]) < 540
    assert {name for name, _ in gpu_sharing.cases(False)} >= {"8b-128-1400-together"}
    assert [name for name, _ in gpu_fsdp.cases(False)][:2] == ["8b-128-2048-fsdp2",
                                                              "8b-128-2048-ddp"]  # fmt: skip


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_s_own_process_holds_no_gpu(name: str) -> None:
    look = f"import sys, benchmarks.gpu_{name} as b; sys.argv[1:] = ['--list']; b.main()"
    loaded = "print([m for m in ('torch', 'transformers', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{look}; {loaded}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A path on which what the plain step may not need cannot be imported."""
    for name in sorted(set(OURS) - set(PLAIN) - {"accelerate"}):
        (tmp_path / f"{name}.py").write_text(
            f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        )
    return f"{tmp_path}{os.pathsep}{ROOT}"


def test_the_plain_step_needs_nothing_of_ours(without: str) -> None:
    asked = {**TINY, "step": "plain", "lengths": "mixed", "most_rows": [4, 2]}
    done = ran("benchmarks.gpu_case", json.dumps(asked), PYTHONPATH=without)
    assert done.returncode == 0, done.stderr[-1500:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rows"], found["lora_params"]) == (4, TINY_LORA)
    assert 0 < found["padding_share"] < 1


def test_our_step_names_what_is_missing(without: str) -> None:
    asked = {**TINY, "step": "ours", "rows": 4}
    done = ran("benchmarks.gpu_case", json.dumps(asked), PYTHONPATH=without)
    assert json.loads(done.stdout.splitlines()[-1])["missing"][0] in OURS


def test_a_case_that_fails_says_why_itself() -> None:
    done = ran("benchmarks.gpu_case", json.dumps({**TINY, "step": "plain", "most_rows": [4],
                                                  "width": "no width"}))  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert found["failed"] == "KeyError"
    assert "no width" in found["last_words"]


def test_a_bench_without_its_packages_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_common, "find_spec", lambda name: None if name == "trl" else name)
    monkeypatch.setattr(sys, "argv", ["bench", "--trial"])
    assert gpu_memory.main() == 0
    (line,) = lines_of(capsys.readouterr().out)
    assert line == {"bench": "memory", "skipped": "not installed: trl"}


def bench_of(**options: Any) -> Bench:
    call = argparse.Namespace(only=None, out=None, budget_s=60.0, case_s=None, trial=True)
    vars(call).update(options)
    return Bench("a bench", call, {}, 989.0, monotonic())


def test_a_case_without_its_packages_begins_no_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = bench_of()
    found = bench.case("a", TINY, ("torch", "no_such_package"), command=pytest.fail)
    assert found is not None
    assert found["missing"] == ["no_such_package"]
    bench.ended()
    assert lines_of(capsys.readouterr().out)[-1]["missing"] == ["no_such_package"]


def command_of(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_case_that_takes_too_long_is_killed_with_all_it_began() -> None:
    grandchild = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    program = f"import subprocess, sys, time; print({grandchild}.pid, file=sys.stderr, flush=True)"
    found = bench_of(case_s=2.0).case(
        "slow", TINY, (), lambda _: command_of(f"{program}; time.sleep(60)")
    )
    assert found is not None
    assert found["failed"] == "killed after 2 s"
    until_s = monotonic() + 5
    while (alive := lives(int(found["last_words"]))) and monotonic() < until_s:
        sleep(0.05)
    assert not alive


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_case_ends_with_its_bench(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    begins = (
        "import os, signal, sys; from benchmarks.gpu_runs import Child; from pathlib import Path; "
        "child = Child.begun([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"Path({str(told)!r}).write_text(str(child.process.pid)); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(command_of(begins), cwd=ROOT)
    until_s = monotonic() + 5
    while (alive := lives(int(told.read_text()))) and monotonic() < until_s:
        sleep(0.05)
    assert not alive


@pytest.mark.parametrize(
    ("program", "failed", "words"),
    [
        ("raise MemoryError('CUDA out of memory. Tried')", "out of memory", "Tried"),
        ("import sys; sys.exit('no such card')", "ended with 1", "no such card"),
        ("print('not JSON')", "ended with 0", "none"),
    ],
)
def test_a_case_that_fails_tells_its_last_words(program: str, failed: str, words: str) -> None:
    found = Child.begun(command_of(program)).found(20.0)
    assert found["failed"] == failed
    assert words in found["last_words"]


def test_what_a_case_has_told_counts_however_it_ends() -> None:
    program = (
        "import json; print('noise'); print(json.dumps({'rate': 1})); print('bye', flush=True)"
    )
    crashed = Child.begun(command_of(f"{program}; import os; os.abort()")).found(20.0)
    assert crashed == {"rate": 1, "then": "ended with -6"}
    hung = Child.begun(command_of(f"{program}; import time; time.sleep(60)")).found(1.0)
    assert hung == {"rate": 1, "then": "killed after 1 s"}


CARD = {"devices": 1, "device": "NVIDIA H200", "total_gb": 150.8}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A card, and cases that find what is put here by their step and plan."""
    found: dict[str, Any] = {}
    begun = Child.begun

    def case(command: list[str]) -> Child:
        asked = json.loads(command[-1])
        rate = found.get("lack", {}) if asked["rank"] == 2048 else found[asked["step"]]
        return begun(command_of(f"print({json.dumps(rate)!r})"))

    monkeypatch.setattr(gpu_runs, "_card", lambda: CARD)
    monkeypatch.setattr(Child, "begun", case)
    monkeypatch.setattr(gpu_common, "find_spec", lambda n: None if n == "bitsandbytes" else n)
    monkeypatch.setattr(sys, "argv", ["bench"])
    return found


def test_the_ratios_are_over_the_plain_step(
    gpu: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gpu |= {"ours": {"tokens_per_s": 150.0, "hfu": 0.5}, "plain": {"tokens_per_s": 100.0}}
    gpu["lack"] = {"failed": "out of memory"}
    assert gpu_throughput.main() == 0
    machine, *cases, summary = lines_of(capsys.readouterr().out)
    assert (machine["peak_tflops"], machine["peak_of"]) == (989.0, "the maker's for H200")
    assert summary["ratios"]["8b-128-full-compiled"] == pytest.approx(1.5)
    assert summary["failed"]["8b-2048-full-eager"] == "out of memory"
    assert [each["case"] for each in cases] == [name for name, _ in gpu_throughput.cases(False)]


def test_memory_tells_its_largest_error_and_whether_any_plan_ran_out(
    gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu |= {"ours": {"error": -0.07}, "lack": {"error": 0.04}}
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "8b-*-2048-*"])
    assert gpu_memory.main() == 0
    summary = lines_of(capsys.readouterr().out)[-1]
    assert summary["largest_error"] == 0.07
    assert summary["missing"] == ["bitsandbytes"]  # of the plans that need it; the others ran
    assert summary["errors"]["8b-2048-2048-130"] == 0.04
    gpu["ours"] = {"error": 0.01, "evaluation": {"failed": "out of memory"}}
    assert gpu_memory.main() == 1


def test_each_of_three_is_held_against_one_alone(
    gpu: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gpu["ours"] = {"tokens_per_s": 90.0}
    assert gpu_sharing.main() == 0
    summary = lines_of(capsys.readouterr().out)[-1]
    assert summary["share_of_each"] == {"8b-128-1400-together": 1.0, "1b-128-1024-together": 1.0}


def test_a_case_is_measured_as_a_worker_runs() -> None:
    spec = gpu_turnaround.spec_of(Path("/model"), Path("/rows"), trial=False)
    theirs = worker_environment(spec, Path("/job"), 1)
    assert {name: theirs[name] for name in WORKERS} == WORKERS


def test_a_launcher_s_worker_imports_this_checkout(tmp_path: Path) -> None:
    program = "import live, os; print(os.path.dirname(os.path.dirname(live.__file__)))"
    done = subprocess.run(
        command_of(program),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**passed(environment()), "PYTHONSAFEPATH": "1"},
    )
    assert done.stdout.strip() == str(ROOT), done.stderr


def test_a_job_that_does_not_train_tells_its_log(tmp_path: Path) -> None:
    spec = gpu_turnaround.spec_of(tmp_path / "model", tmp_path / "no-rows", trial=True)
    found = gpu_turnaround.job(tmp_path / "00000001", spec, monotonic() + 60)
    assert found["failed"] == "a job did not train"
    assert "dataset: found" in found["last_words"]["result.json"]


def test_mixed_rows_and_their_padding() -> None:
    asked = {"width": "tiny", "row_tokens": 2048, "lengths": "mixed"}
    lengths = gpu_model.lengths_of(asked, 512)
    assert max(lengths) == 2048
    assert 350 < sorted(lengths)[256] < 460
    early = [2048, 2048, 2047, 2047]  # of the steps that are not counted
    assert [len(row) for row in gpu_model.rows_of(asked, 8, 4)] == [*early, *lengths[4:8]]
    batch = gpu_model.batch_of([[5, 6, 7], [8]], torch.device("cpu"))
    assert batch["labels"].tolist() == [[5, 6, 7], [8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "attention_mask" not in gpu_model.batch_of([[5, 6], [8, 9]], torch.device("cpu"))


def test_a_model_is_made_in_the_width_it_is_trained_in() -> None:
    model = gpu_model.model_of(TINY, "sdpa", torch.device("meta"))
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_memory_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"mem_get_info": (60 * GB, 80 * GB), "memory_reserved": 19 * GB,
            "max_memory_allocated": 17 * GB, "max_memory_reserved": 21 * GB}  # fmt: skip
    for name, value in said.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(gpu_meter.dist, "get_world_size", lambda: 1)
    found = gpu_meter.memory({}, torch.device("cuda"))
    assert found == {"allocated_gb": 17, "reserved_gb": 21, "context_gb": 1, "measured_gb": 22}
    beside_others = gpu_meter.memory({"jobs": 3}, torch.device("cuda"))
    assert beside_others == {"allocated_gb": 17, "reserved_gb": 21}


GPU = Machine(cuda=True, flash=False, bits8=False)


def settled(card: float | None = None, **asked: Any) -> tuple[Settled, float, str]:
    asked = {"width": "8b", "rank": 128, "row_tokens": 2048, "rows": 8, "steps": 1, **asked}
    spec = gpu_ours.spec_of(asked, "cuda")
    return gpu_ours.settled_of(asked, spec, Family(MODULES), GPU, card)


def test_a_case_is_held_to_a_slot_on_a_bigger_card() -> None:
    plan, gb, note = settled(card=150.0, or_card=True)
    assert (plan.optimizer, gb, note) == ("adamw", 80.0, "")
    assert not plan.compile


def test_the_compiled_cases_are_of_jobs_that_compile() -> None:
    for name, asked in [*gpu_throughput.cases(False), *gpu_memory.cases(False)]:
        if "rows" in asked and "2048-80" not in name:
            plan, _, _ = settled(card=150.0, **{**asked, "or_card": True, "rank": 128})
            assert plan.compile == name.endswith("compiled")


def test_without_the_8_bit_library_a_case_may_have_the_whole_card() -> None:
    plan, gb, note = settled(card=150.0, rank=2048, or_card=True)
    assert (plan.optimizer, plan.lora_r, gb) == ("adamw", 2048, 150.0)
    assert note.startswith("bitsandbytes is missing")
    for card, may in ((85.0, True), (150.0, False)):
        with pytest.raises(InputError, match="bitsandbytes"):
            settled(card=card, rank=2048, or_card=may)


def test_accumulation_is_no_more_than_memory_needs() -> None:
    usual, _, _ = settled(rows=32, row_tokens=8192)
    plan, _, _ = settled(rows=32, row_tokens=8192, most_accumulation=2)
    assert (usual.accumulation, plan.accumulation) == (4, 2)
    assert plan.predicted_gb == usual.predicted_gb


def test_either_way_of_sharing_the_work_can_be_forced() -> None:
    chosen, _, _ = settled(gpus=2, parallel="ddp")
    other, _, note = settled(gpus=2, parallel="fsdp2")
    assert (chosen.parallel, other.parallel, note) == ("ddp", "fsdp2", "forced: fsdp2")
    assert other.micro * other.accumulation == 8
    assert other.predicted_gb != chosen.predicted_gb
    with pytest.raises(InputError, match="not one row fits by ddp"):
        settled(gpus=2, parallel="ddp", rank=2048)
