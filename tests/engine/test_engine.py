"""The engine over a model that is exact about memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.admission import EstimatedRoom
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.config import EngineConfig, Nobody, RequestError
from fairprefix.gpu_ref_engine.engine import Engine, StepError
from fairprefix.gpu_ref_engine.job import Finish
from fairprefix.gpu_ref_engine.kvcache import KVCache
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.stop import StopWatch
from fairprefix.gpu_ref_engine.tokenizer import byte_tokenizer
from tests.engine.fake import EOS, FakeRunner, continuation, next_token
from tests.engine.loads import Lab, drive

POLICIES = ("fcfs", "lpm", "vtc", "dlpm")
GREEDY = SamplingParams(max_tokens=8, temperature=0)


@pytest.mark.parametrize(
    ("policy", "reservation", "overlap"), [*product(POLICIES, ("none", "full"), (False, True))]
)
def test_every_answer_is_the_models_own(policy: str, reservation: str, *, overlap: bool) -> None:
    """Whatever shares pages, is chunked, preempted, aborted or launched ahead: every token is the right one."""
    lab = Lab(policy=policy, reservation=reservation, overlap=overlap, pages=20)
    load = drive(lab, seed=1, aborts=0.05)
    lab.close()
    for id, wanted in load.wanted.items():
        if id in load.aborted:
            assert load.got[id] == wanted[: len(load.got[id])]
        else:
            assert load.got[id] == wanted
            assert load.ends[id] is (Finish.STOP if wanted[-1] == EOS else Finish.LENGTH)
    assert (lab.engine.preemptions > 0) == (reservation == "none")
    assert lab.runner.most_ahead == 1 + overlap
    assert any(batch.from_previous is not None for batch in lab.runner.batches) == overlap


@pytest.mark.parametrize("setting", ["prefix_cache", "chunk", "max_batch", "pages", "overlap"])
def test_outputs_do_not_depend_on_how_they_are_computed(setting: str) -> None:
    """Greedy outputs are the same with and without reuse, chunks, preemption, overlap, at any batch size."""
    values = {
        "prefix_cache": (False, True),
        "chunk": (8, 64),
        "max_batch": (1, 8),
        "pages": (20, 400),
        "overlap": (False, True),
    }[setting]
    first, second = (drive(Lab(**{setting: value}), seed=2) for value in values)  # type: ignore[arg-type]
    assert first.got == second.got


def test_what_is_cached_is_not_computed_again() -> None:
    """The second question about a document costs its own tokens only."""
    lab = Lab()
    document = list(range(1, 33))
    for question in (40, 41):
        lab.engine.add("a", [*document, question], GREEDY)
        while lab.engine.busy:
            lab.engine.step()
    computed = [int(batch.query_lens[0]) for batch in lab.runner.batches if batch.query_lens[0] > 1]
    assert computed == [32], "one chunk of the first prompt, and after it nothing but single tokens"


def test_a_prompt_is_shared_while_its_request_still_runs() -> None:
    """Whoever comes in the next step finds the pages of a prompt that was computed in this one."""
    lab = Lab()
    document = list(range(1, 25))
    lab.engine.add("a", [*document, 40], GREEDY)
    lab.engine.step()
    lab.engine.add("b", [*document, 41], GREEDY)
    lab.engine.step()
    assert [int(length) for length in lab.runner.batches[1].query_lens] == [1, 1]


def test_the_estimate_of_room_learns_from_preemptions() -> None:
    """The share of outputs reckoned with rises when a request is preempted, and falls while all goes well."""
    room = EstimatedRoom(KVCache(8, 4, PrefixIndex(4)))
    first = room.share
    room.sampled(0)
    assert room.share < first
    room.retracted()
    careful = room.share
    assert first < careful <= 1
    room.sampled(0)
    assert room.share < careful


def test_every_preemption_makes_admission_more_careful() -> None:
    """The estimate of room hears of each preemption."""
    lab = Lab(pages=20)
    room, told = lab.engine._scheduler._room, list[float]()
    retracted = room.retracted
    room.retracted = lambda: (retracted(), told.append(1))[0]  # type: ignore[method-assign, func-returns-value]
    drive(lab, seed=1)
    assert len(told) == lab.engine.preemptions > 0


def test_an_answer_is_cached_for_the_next_turn() -> None:
    """A conversation that goes on finds the pages of its last answer."""
    lab = Lab(pages=100, chunk=64)
    prompt = list(range(1, 30))
    lab.engine.add("a", prompt, SamplingParams(max_tokens=15, temperature=0, ignore_eos=True))
    answer: list[int] = []
    while lab.engine.busy:
        answer += [token for output in lab.engine.step() for token in output.tokens]
    lab.engine.add("a", [*prompt, *answer, 5, 6], GREEDY)
    assert lab.engine.step()[0].cached_tokens == (29 + 15 - 1) // 4 * 4


def test_prefill_and_decode_share_a_step() -> None:
    """A long prompt does not stop those that decode: each of them gets a token in every step."""
    lab = Lab(chunk=16, pages=200)
    lab.engine.add("a", [1, 2, 3], SamplingParams(max_tokens=30, temperature=0, ignore_eos=True))
    lab.engine.step()
    lab.engine.add("b", list(range(1, 91)), GREEDY)
    for _ in range(6):
        assert any(output.id == "request-1" for output in lab.engine.step())
    mixed = [batch for batch in lab.runner.batches if len(batch.query_lens) == 2]
    assert [int(batch.query_lens.sum()) for batch in mixed[:5]] == [16] * 5


class Charges(Nobody):
    """Adds up what the engine says it has produced."""

    def __init__(self) -> None:
        self.tokens: Counter[Client] = Counter()

    def produced(self, tokens: Mapping[Client, int], at: int) -> None:  # noqa: ARG002
        """Add up."""
        self.tokens.update(tokens)


@pytest.mark.parametrize("overlap", [False, True])
def test_what_is_charged_is_what_was_handed_out(*, overlap: bool) -> None:
    """Tokens under way when their request ends are neither handed out nor charged."""
    charges = Charges()
    lab = Lab(overlap=overlap, observer=charges)
    load = drive(lab, seed=3, aborts=0.1)
    assert load.aborted
    assert sum(charges.tokens.values()) == sum(len(tokens) for tokens in load.got.values())


def test_a_seeded_request_draws_the_same_whatever_runs_beside_it() -> None:
    """With a seed, the draw is fixed by the request and the place, preempted or not."""
    params = SamplingParams(max_tokens=20, seed=7, ignore_eos=True)
    wanted: list[int] = []
    while len(wanted) < 20:
        wanted.append(next_token([1, 2, 3, *wanted], 97, 7, len(wanted)))
    for pages, others in ((64, 0), (11, 6)):
        lab = Lab(pages=pages)
        for number in range(others):
            lab.engine.add("b", [9 + number] * 5, GREEDY)
        lab.engine.add("a", [1, 2, 3], params, id="mine")
        got: list[int] = []
        while lab.engine.busy:
            got += [token for output in lab.engine.step() if output.id == "mine" for token in output.tokens]
        assert got == wanted


@pytest.mark.parametrize("overlap", [False, True])
def test_a_failing_model_costs_the_requests_that_ran_and_no_others(*, overlap: bool) -> None:
    """After a failed step those that ran end with an error, those that waited are answered, no page is lost."""
    lab = Lab(max_batch=2, overlap=overlap)
    prompts = {f"r{number}": [*range(1, 13), number + 1] for number in range(6)}
    for id, prompt in prompts.items():
        lab.engine.add("a", prompt, GREEDY, id=id)
    lab.engine.step()

    def fail(_batch: StepBatch) -> None:
        lab.runner.memory.fill(-1)  # nobody knows what is in memory now: nothing cached may be used again
        raise RuntimeError("no memory on the device")

    lab.runner.on_launch = fail
    with pytest.raises(StepError, match="no memory on the device") as caught:
        lab.engine.step()
    lab.runner.on_launch = None
    lab.runner.under_way.clear()
    lost = [output.id for output in caught.value.outputs if output.finish is Finish.ERROR]
    assert len(lost) == 2
    got: dict[str, list[int]] = {id: [] for id in prompts}
    while lab.engine.busy:
        for output in lab.engine.step():
            got[output.id] += output.tokens
    lab.close()
    assert all(got[id] == continuation(prompt, 8, 97) for id, prompt in prompts.items() if id not in lost)


def test_an_engine_never_stands_still_for_a_policy_that_offers_nobody() -> None:
    """Where nothing runs and the policy offers nobody, the oldest request is served all the same."""
    lab = Lab()
    lab.contract.peek = lambda: None  # type: ignore[method-assign]
    load = drive(lab, seed=4, requests=8)
    assert load.got == load.wanted
    assert lab.engine.stalls >= 1


@pytest.mark.parametrize(
    ("prompt", "tokens", "message"),
    [
        ([], 8, "empty"),
        ([1] * 250, 8, "together 258: expected at most 256"),
        ([97], 8, "from 0 to 96"),
        ([-1], 8, "from 0 to 96"),
    ],
)
def test_a_request_that_can_never_be_served_is_refused(prompt: list[int], tokens: int, message: str) -> None:
    """The message says what is wrong and what would be right."""
    lab = Lab()
    with pytest.raises(RequestError, match=message):
        lab.engine.add("a", prompt, SamplingParams(max_tokens=tokens))
    lab.close()


def test_an_id_is_used_once_at_a_time() -> None:
    """A second request of the same id is refused while the first is not over, and taken afterwards."""
    lab = Lab()
    lab.engine.add("a", [1], GREEDY, id="x")
    with pytest.raises(RequestError, match="'x' is taken"):
        lab.engine.add("a", [1], GREEDY, id="x")
    lab.engine.abort("x")
    lab.engine.add("a", [1], GREEDY, id="x")


def test_stop_strings_need_somebody_to_find_them() -> None:
    """A request with stop strings and without a detokenizer is refused instead of running on."""
    with pytest.raises(RequestError, match="StopWatch"):
        Lab().engine.add("a", [1], SamplingParams(stop=("x",)))


def test_a_stop_string_ends_an_answer() -> None:
    """The answer ends with the token that completes a stop string; later ones are not charged."""
    runner = FakeRunner(vocabulary=300)
    engine = Engine(runner, PolicyConfig(policy="fcfs", reservation="none"))
    answer = continuation([1, 2, 3], 12, 300, eos=None)
    tokenizer = byte_tokenizer(300)
    text = tokenizer.decode(answer)
    stop = text[4:6]
    watch = StopWatch(tokenizer.detokenizer(), (stop,))
    engine.add("a", [1, 2, 3], SamplingParams(max_tokens=12, stop=(stop,), temperature=0), stop=watch)
    outputs = []
    while engine.busy:
        outputs += engine.step()
    assert outputs[-1].finish is Finish.STOP
    got = [token for output in outputs for token in output.tokens]
    assert got == answer[: len(got)]
    assert stop in tokenizer.decode(got)
    assert stop not in tokenizer.decode(got[:-1])


def test_both_configurations_must_agree_on_the_reservation_mode() -> None:
    """The policy's bound follows from how the engine admits, so a contradiction is an error."""
    with pytest.raises(ConfigError, match=r"reservation = 'full' is not valid"):
        Engine(FakeRunner(), PolicyConfig(reservation="full"), EngineConfig(reservation="none"))


def test_a_step_must_have_room_for_everything_that_decodes() -> None:
    """`chunk` below `max_batch` would let a decoding request wait for its token."""
    with pytest.raises(ConfigError, match="chunk = 8 is not valid"):
        EngineConfig(chunk=8, max_batch=9)


def test_ten_thousand_waiting_requests_cost_a_step_nothing() -> None:
    """A step looks at the few requests that the policy offers, never at the queue."""
    looks: dict[int, int] = {}
    for waiting in (100, 10_000):
        lab = Lab(max_batch=2, pages=64)
        for number in range(waiting):
            lab.engine.add(f"c{number % 50}", [number % 90 + 1, number // 90 % 90 + 1, 5], GREEDY)
        lab.engine.step()
        calls = Counter[str]()
        for name in ("peek", "take", "defer", "begin_pass"):
            _count(lab, name, calls)
        for _ in range(30):
            lab.engine.step()
        looks[waiting] = sum(calls.values())
    assert looks[10_000] <= looks[100] * 1.5 + 10


def _count(lab: Lab, name: str, calls: Counter[str]) -> None:
    inner = getattr(lab.contract, name)

    def counted(*args: object, **named: object) -> object:
        calls[name] += 1
        return inner(*args, **named)

    setattr(lab.contract, name, counted)


def test_the_profile_accounts_for_the_whole_step() -> None:
    """The phases of a step add up to its time, and its trace nests them."""
    lab = Lab()
    drive(lab, seed=5, requests=10)
    latest = lab.engine.profile.latest()
    assert len(latest["start"]) == lab.engine.profile.steps > 10
    trace = lab.engine.profile.chrome_trace()["traceEvents"]
    steps = [event for event in trace if event["name"] == "step"]
    assert len(steps) == lab.engine.profile.steps
    for event in trace[1:7]:
        assert (
            steps[0]["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= steps[0]["ts"] + steps[0]["dur"] + 0.01
        )
    assert sum(lab.engine.profile.shares().values()) == pytest.approx(1)
