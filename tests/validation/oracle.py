"""A second reading of the policy: a plain heap loop that shares no code with the product.

Written from the policy's text alone; it imports nothing of the project, and every table stands
here once more. Slow and simple on purpose.

Conventions of the made-up world, beside the policy's own rules: an accepted job holds its slot for
its start lag and its training, and for one millisecond at least (an end at the offer's own
millisecond would sort before the offer); a reservation whose start never comes, or comes no
earlier than its time to live, lapses after that time; a GPU that fails takes the jobs on it with
it, which end in the next millisecond (an end sorts before the failure), unless they end by then.
"""

import heapq

END, GPU, LAPSE, BOX, OFFER = 0, 1, 2, 4, 5

TASK_WEIGHT = 0.25  # of every task type, the unknown ones too
TASK_SUCCESS = {"InstructTextTask": 0.95, "GrpoTask": 0.95, "ImageTask": 0.90, "DpoTask": 0.90,
                "ChatTask": 0.90}  # fmt: skip
UNKNOWN_SUCCESS = 0.90
# model id: (performance of its family, billions of parameters that its name tells, else 7)
MODELS = {
    "NousResearch/Meta-Llama-3-8B-Instruct": (0.95, 8.0),
    "codellama/CodeLlama-7b-hf": (0.90, 7.0),
    "mistralai/Mistral-7B-v0.1": (0.90, 7.0),
    "Qwen/Qwen2.5-0.5B": (0.85, 0.5),
    "Qwen/Qwen1.5-110B-Chat": (0.85, 110.0),
    "01-ai/Yi-1.5-9B": (0.85, 9.0),
    "openai-community/gpt2-xl": (0.75, 7.0),
    "EleutherAI/gpt-neox-20b": (0.80, 20.0),
    "google/flan-t5-xl": (0.80, 7.0),
    "facebook/opt-1.3b": (0.80, 1.3),
    "microsoft/Phi-3.5-mini-instruct": (0.75, 7.0),
    "mistralai/Mixtral-8x7B-v0.1": (0.75, 7.0),
}
CAP = {"accuracy_4": 4, "throughput_24": 24, "universal_24": 24, "maximum_2": 2}
LIMIT = {"accuracy_4": 72.0, "throughput_24": 72.0, "universal_24": 48.0, "maximum_2": 96.0}
THRESHOLD = {"accuracy_4": 0.70, "throughput_24": 0.70, "universal_24": None, "maximum_2": 0.85}


def size_b(offer):
    """Billions of parameters, as the universal formula has them."""
    if offer["params"] is not None:
        return offer["params"] / 1e9
    return MODELS[offer["model"]][1]


def priority(preset, offer):
    """The priority of an offer, as the policy writes it."""
    tw = TASK_WEIGHT
    fp = MODELS[offer["model"]][0]
    ts = TASK_SUCCESS.get(offer["task_type"], UNKNOWN_SUCCESS)
    if preset == "universal_24":
        hours, params_b = offer["hours"], size_b(offer)
        score = (
            0.25 * (tw + fp + ts)
            + 0.10 / max(hours, 1)
            + 0.05 * min(1, 100 / max(params_b, 1))
            + 0.25
        )
        return max(score, 0.50)
    if preset == "maximum_2":
        return min(0.15 * (tw + fp + ts) + 0.40 + 0.35, 1.0)
    return min(tw * 0.20 + fp * 0.20 + ts * 0.20 + 0.30 + 0.25, 1.0)


def gpus_of(cap, slot):
    """The GPUs that a slot holds, on 8 GPUs."""
    if cap > 8:
        return {slot % 8}
    each = 8 // cap
    return set(range(slot * each, slot * each + each))


class Box:
    """The state of the box, in plain sets and dicts."""

    def __init__(self, preset, cap, threshold, ttl_ms, task_types):
        """An empty one."""
        self.preset, self.cap, self.ttl_ms, self.task_types = preset, cap, ttl_ms, task_types
        self.threshold = threshold
        self.jobs = {}  # task id: [index of its offer, slot, end, why it will end]
        self.first = {}  # task id: (when it was decided, the answer)
        self.failed_gpus = set()
        self.draining = self.storage_full = False

    def free_slots(self):
        """Slots that are neither held nor on a failed GPU, lowest first."""
        held = {slot for _, slot, _, _ in self.jobs.values()}
        return [
            slot
            for slot in range(self.cap)
            if slot not in held and not gpus_of(self.cap, slot) & self.failed_gpus
        ]

    def gate(self, offer, score):
        """The gate that decides an offer which is no repeat."""
        if self.draining:
            return "draining"
        if self.storage_full:
            return "storage"
        if len(self.free_slots()) == 0:
            return "capacity"
        if offer["hours"] > LIMIT[self.preset]:
            return "time"
        if self.task_types is not None and offer["task_type"] not in self.task_types:
            return "unsupported"
        if self.threshold is not None and not score > self.threshold:
            return "priority"
        return "accepted"

    def decide(self, now, index, offer):
        """Answer an offer: (answer, whether it took a slot)."""
        task_id = offer["task_id"]
        score = priority(self.preset, offer)
        if task_id in self.first:
            decided, answer = self.first[task_id]
            if task_id in self.jobs or now - decided <= 60_000:
                return {**answer, "repeat": True}, False
        gate = self.gate(offer, score)
        slot = self.free_slots()[0] if gate == "accepted" else None
        answer = {"gate": gate, "slot": slot, "priority": score, "repeat": False}
        self.first[task_id] = (now, answer)
        return answer, gate == "accepted"


def event_id(what, value):
    """What orders events of one millisecond and rank: drain before resume, those before storage,
    and of storage available before full."""
    if what == "drain":
        return "operator:drain" if value else "operator:resume"
    if what == "storage":
        return "storage:full" if value else "storage:available"
    return str(value)


def decide_all(offers, events, preset, *, cap=None, threshold="preset", ttl_ms, task_types=None):  # noqa: C901
    """Decide every offer; returns one dict an offer, in the order of ``offers``.

    offers: dicts of at_ms, task_id, model, task_type, hours, params, train_ms, lag_ms (None: no
    lag is modelled), starts. events: (at_ms, what, value) with what one of gpu_out, gpu_back
    (value the GPU), drain (value whether), storage (value whether it is full).
    """
    limit = THRESHOLD[preset] if threshold == "preset" else threshold
    box = Box(preset, cap or CAP[preset], limit, ttl_ms, task_types)
    heap = []
    for index, offer in enumerate(offers):
        heapq.heappush(heap, (offer["at_ms"], OFFER, offer["task_id"], 0, "offer", index))
    for order, (at_ms, what, value) in enumerate(events):
        rank = GPU if what in ("gpu_out", "gpu_back") else BOX
        heapq.heappush(heap, (at_ms, rank, event_id(what, value), order, what, value))
    answers = [{} for _ in offers]
    while heap:
        now, _, _, _, what, value = heapq.heappop(heap)
        if what == "offer":
            offer = offers[value]
            answers[value], took = box.decide(now, value, offer)
            answers[value].update(end_ms=None, why=None)
            if took:
                lag = offer["lag_ms"]
                lapses = not offer["starts"] or (lag is not None and lag >= ttl_ms)
                stay = ttl_ms if lapses else max((lag or 0) + offer["train_ms"], 1)
                why = "lapsed" if lapses else "trained"
                box.jobs[offer["task_id"]] = [value, answers[value]["slot"], now + stay, why]
                rank = LAPSE if lapses else END
                heapq.heappush(
                    heap, (now + stay, rank, offer["task_id"], 0, "end", offer["task_id"])
                )
        elif what == "end":
            job = box.jobs.get(value)
            if job is not None and job[2] == now:  # else it ended earlier
                answers[job[0]].update(end_ms=now, why=job[3])
                del box.jobs[value]
        elif what == "gpu_out":
            box.failed_gpus.add(value)
            for task_id, job in box.jobs.items():
                if value in gpus_of(box.cap, job[1]) and job[2] > now + 1:
                    job[2], job[3] = now + 1, "gpu"
                    heapq.heappush(heap, (now + 1, END, task_id, 0, "end", task_id))
        elif what == "gpu_back":
            box.failed_gpus.remove(value)
        elif what == "drain":
            box.draining = value
        elif what == "storage":
            box.storage_full = value
    return answers
