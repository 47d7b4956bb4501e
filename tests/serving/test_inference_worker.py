"""The worker: who shares a call of the engine, who is turned away, and what becomes of requests nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from helpers import RATE, noise
from helpers.serving import EXAMPLES, PATIENCE_S, HeldEngine, StepSpy, clip, encoded, wait_for
from pengi import Pengi
from pengi.decoding import DecodeOptions
from pengi.errors import AudioError, InputError
from pengi.results import Answer
from pengi.serving import inference_worker, queries
from pengi.serving.inference_worker import BusyError, ClosingError, DeadlineError, InferenceWorker
from pengi.serving.queries import Query
from pengi.serving.running_calls import QueuedRequest
from pengi.serving.settings import ServingSettings


@contextmanager
def running_worker(engine: Any, **settings: Any) -> Iterator[InferenceWorker]:
    worker = InferenceWorker(engine, ServingSettings(page=False, **settings))
    try:
        yield worker
    finally:
        if isinstance(engine, HeldEngine):
            engine.free.set()
        worker.close()


def occupied(worker: InferenceWorker, engine: HeldEngine) -> QueuedRequest[Any]:
    """A request that keeps the model busy until the engine is free."""
    request = worker.submit(clip(0), queries.embed())
    wait_for(engine.started.is_set)
    return request


def waiting(worker: InferenceWorker, count: int) -> None:
    """Return once so many requests are decoded and wait for the model."""
    wait_for(lambda: len(worker._waiting) == count)


class TestBatches:
    def test_requests_that_come_together_share_a_call_and_get_their_own_answers(self, held: HeldEngine) -> None:
        with running_worker(held) as worker:
            occupied(worker, held)
            requests = [worker.submit(clip(seed, 1 + seed / 4), queries.ask(f"question {seed}")) for seed in range(6)]
            waiting(worker, 6)
            held.free.set()
            texts = [request.future.result(PATIENCE_S).text for request in requests]
        assert texts == [f"question {seed} of {1 + seed / 4:.2f} s" for seed in range(6)]
        assert held.encoded == [6]
        assert [(task, len(rows)) for task, rows in held.calls] == [("embed", 1), *[("ask", 1)] * 6]

    def test_texts_of_any_kind_are_encoded_together(self, held: HeldEngine) -> None:
        with running_worker(held) as worker:
            occupied(worker, held)
            asked = [queries.ask("what?"), queries.describe(), queries.ask("who?", explain=True)]
            requests = [worker.submit(clip(0), query) for query in asked]
            waiting(worker, 3)
            held.free.set()
            for request in requests:
                request.future.result(PATIENCE_S)
        assert held.encoded == [3]

    def test_only_equal_options_share_a_call(self, held: HeldEngine) -> None:
        with running_worker(held) as worker:
            occupied(worker, held)
            classifications = [queries.classify(labels) for labels in (["a"], ["a", "b"], ["a"])]
            requests = [worker.submit(clip(0), query) for query in [*classifications, queries.describe()]]
            waiting(worker, 4)
            held.free.set()
            scores = [request.future.result(PATIENCE_S) for request in requests[:3]]
        assert [len(found.scores) for found in scores] == [1, 2, 1]
        sizes = sorted((task, len(rows)) for task, rows in held.calls[1:])
        assert sizes == [("classify", 1), ("classify", 2), ("describe", 1)]

    def test_a_batch_is_bounded_in_rows_and_in_tokens(self, held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference_worker, "BATCH_TOKENS", 70)
        with running_worker(held, batch_size=3) as worker:
            occupied(worker, held)
            requests: list[QueuedRequest[Any]] = [worker.submit(clip(0, 0.5), queries.tags()) for _ in range(5)]
            waiting(worker, 5)
            requests += [worker.submit(clip(0, 3.0), queries.embed()) for _ in range(3)]
            waiting(worker, 8)
            held.free.set()
            for request in requests:
                request.future.result(PATIENCE_S)
        assert [len(rows) for task, rows in held.calls[1:] if task == "tags"] == [3, 2]
        assert [len(rows) for task, rows in held.calls[1:] if task == "embed"] == [2, 1]

    def test_a_recording_longer_than_a_batch_has_its_own_call(
        self, held: HeldEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inference_worker, "BATCH_TOKENS", 10)
        held.free.set()
        with running_worker(held) as worker:
            assert worker.describe(clip(0, 2.0)).duration_s == 2.0

    def test_many_callers_get_what_the_engine_says_alone(self, tiny: Pengi) -> None:
        clips = [clip(seed, 0.5 + 0.7 * seed) for seed in range(4)] + [(EXAMPLES / "dog.opus").read_bytes()]
        with running_worker(tiny) as worker, ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(lambda content: worker.ask(content, f"what is {len(content)}?"), clips))
            described = list(pool.map(worker.describe, clips))
            embedded = list(pool.map(worker.embed, clips))
        for content, answer, description, vector in zip(clips, asked, described, embedded, strict=True):
            assert answer.text == tiny.ask(content, f"what is {len(content)}?").text
            assert description.text == tiny.describe(content).text
            np.testing.assert_allclose(vector, tiny.embed(content), atol=1e-5)
        assert len({answer.text for answer in asked}) > 2

    def test_blocking_methods_mirror_the_engine(self, tiny: Pengi) -> None:
        audio = (noise(3.0, 1), RATE)
        with running_worker(tiny) as worker:
            assert worker.describe(audio, style="paper").text == tiny.describe(audio, style="paper").text
            found = worker.classify(audio, ["rain", "dog"], method="generate", top=1)
            assert found.label == tiny.classify(audio, ["rain", "dog"], method="generate").label
            assert len(found.scores) == 1
            timeline = worker.timeline(audio, window_s=1.0, hop_s=1.0)
            assert timeline.to_dict() == tiny.timeline(audio, window_s=1.0, hop_s=1.0).to_dict()
            assert worker.name == "tiny"


def long_question(number: int, beams: int = 1) -> Query[Answer]:
    """A question whose answer is 12 tokens long."""
    return queries.ask(f"question {number}", options=DecodeOptions(beams=beams, max_tokens=12))


def text_alone(tiny: Pengi, number: int, *, beams: int = 1, seconds: float = 1.0) -> str:
    """The answer to a long question about a clip if nothing else runs."""
    options = DecodeOptions(beams=beams, max_tokens=12)
    return tiny.ask(clip(number, seconds), f"question {number}", options=options).text


@contextmanager
def together(worker: InferenceWorker, count: int) -> Iterator[None]:
    """The model begins with so many requests that are submitted here at once."""
    compatible = worker._compatible
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_compatible", lambda excluded=None: [])
        yield
        waiting(worker, count)
        patch.setattr(worker, "_compatible", compatible)
        with worker._changed:
            worker._changed.notify_all()


class TestContinuousBatching:
    def test_a_late_request_joins_at_the_next_step(self, tiny: Pengi, steps: StepSpy) -> None:
        late: list[QueuedRequest[Answer]] = []
        with running_worker(tiny) as worker:

            def come() -> None:
                late.append(worker.submit(clip(2, 3.0), long_question(2)))
                waiting(worker, 1)

            steps.before[3] = come
            early = worker.submit(clip(1), long_question(1))
            texts = [early.future.result(PATIENCE_S).text, late[0].future.result(PATIENCE_S).text]
        assert steps.rows == [1] * 4 + [2] * 7 + [1] * 4
        assert texts == [text_alone(tiny, 1), text_alone(tiny, 2, seconds=3.0)]

    def test_rows_are_bounded_and_all_kinds_of_searches_share_steps(self, tiny: Pengi, steps: StepSpy) -> None:
        beams_of = (1, 3, 3, 3)
        with running_worker(tiny, batch_size=3) as worker:
            with together(worker, len(beams_of)):
                requests = [
                    worker.submit(clip(seed), long_question(seed, beams)) for seed, beams in enumerate(beams_of)
                ]
            answers = [request.future.result(PATIENCE_S) for request in requests]
        assert max(steps.rows) in (7, 9)  # of three requests; which ones are decoded first varies
        for seed, (answer, beams) in enumerate(zip(answers, beams_of, strict=True)):
            assert answer.text == text_alone(tiny, seed, beams=beams)

    def test_a_cancelled_request_leaves_at_the_next_step(self, tiny: Pengi, steps: StepSpy) -> None:
        with running_worker(tiny) as worker:
            with together(worker, 2):
                given_up, kept = (worker.submit(clip(seed), long_question(seed)) for seed in (1, 2))
                steps.before[4] = given_up.future.cancel
            text = kept.future.result(PATIENCE_S).text
            wait_for(lambda: not worker._accepted)
        assert steps.rows == [2] * 5 + [1] * 6
        assert text == text_alone(tiny, 2)

    def test_a_step_that_fails_for_all_is_made_for_each(self, tiny: Pengi, steps: StepSpy) -> None:
        def fail() -> None:
            raise MemoryError("too many rows")

        with running_worker(tiny) as worker:
            with together(worker, 2):
                requests = [worker.submit(clip(seed), long_question(seed)) for seed in (1, 2)]
                steps.before[2] = fail
            texts = [request.future.result(PATIENCE_S).text for request in requests]
        assert steps.rows == [2, 2, 2, 1, 1, *[2] * 8]
        assert texts == [text_alone(tiny, 1), text_alone(tiny, 2)]

    def test_a_search_that_fails_ends_its_request_and_no_other(self, tiny: Pengi, steps: StepSpy) -> None:
        def fail(_: str) -> None:
            if len(steps.rows) > 3:
                raise RuntimeError("nobody reads on")

        with running_worker(tiny) as worker:
            with together(worker, 2):
                bad = worker.submit(clip(1), long_question(1), fail)
                good = worker.submit(clip(2), long_question(2))
            text = good.future.result(PATIENCE_S).text
            with pytest.raises(RuntimeError, match="nobody reads on"):
                bad.future.result(PATIENCE_S)
        assert sorted(set(steps.rows), reverse=True) == [2, 1]
        assert text == text_alone(tiny, 2)

    def test_a_text_is_given_while_it_is_written(self, tiny: Pengi, steps: StepSpy) -> None:
        pieces: list[str] = []
        with running_worker(tiny) as worker:
            seen: list[str] = []
            steps.before[8] = lambda: seen.extend(pieces)
            text = worker.submit(clip(1), long_question(1), pieces.append).future.result(PATIENCE_S).text
        assert text.startswith("".join(pieces))
        assert 0 < len(seen) < len(pieces)


class TestMistakes:
    def test_a_bad_recording_leaves_the_others_alone(self, tiny: Pengi) -> None:
        with running_worker(tiny) as worker, ThreadPoolExecutor(3) as pool:
            requests = [pool.submit(worker.describe, content) for content in (clip(1), b"<html>", clip(2))]
            assert requests[0].result(PATIENCE_S).text == tiny.describe(clip(1)).text
            assert requests[2].result(PATIENCE_S).text == tiny.describe(clip(2)).text
            with pytest.raises(AudioError, match="not audio"):
                requests[1].result(PATIENCE_S)

    def test_a_question_the_engine_refuses_fails_alone(self, tiny: Pengi) -> None:
        with running_worker(tiny, gather_s=0.5) as worker:
            requests = [worker.submit(clip(0), queries.ask(text)) for text in ("what?", "why " * 500, "where?")]
            assert requests[0].future.result(PATIENCE_S).text == tiny.ask(clip(0), "what?").text
            assert requests[2].future.result(PATIENCE_S).text == tiny.ask(clip(0), "where?").text
            with pytest.raises(InputError, match="too long"):
                requests[1].future.result(PATIENCE_S)

    def test_a_broken_call_neither_ends_the_server_nor_its_neighbours(self, held: HeldEngine) -> None:
        with running_worker(held) as worker:
            occupied(worker, held)
            requests = [worker.submit(clip(0), queries.ask(text)) for text in ("one", "break", "two")]
            waiting(worker, 3)
            held.free.set()
            assert [requests[index].future.result(PATIENCE_S).question for index in (0, 2)] == ["one", "two"]
            with pytest.raises(RuntimeError, match="broken by a question"):
                requests[1].future.result(PATIENCE_S)
            assert worker.alive

    def test_an_encoder_that_fails_fails_alone(self) -> None:
        class Fragile(HeldEngine):
            def encode(self, audio: Any, *, on_error: str) -> list[Any]:
                if any(len(samples) == 2 * rate for samples, rate in audio):
                    raise RuntimeError("broken by a recording")
                return super().encode(audio, on_error=on_error)

        engine = Fragile()
        with running_worker(engine) as worker:
            occupied(worker, engine)
            requests = [worker.submit(clip(0, seconds), queries.describe()) for seconds in (1.0, 2.0, 3.0)]
            waiting(worker, 3)
            engine.free.set()
            assert [requests[place].future.result(PATIENCE_S).duration_s for place in (0, 2)] == [1.0, 3.0]
            with pytest.raises(RuntimeError, match="broken by a recording"):
                requests[1].future.result(PATIENCE_S)

    def test_too_long_is_refused_and_the_limit_itself_is_not(self, tiny: Pengi) -> None:
        with running_worker(tiny, max_seconds=2) as worker:
            assert worker.embed(clip(0, 2.0)).shape
            with pytest.raises(AudioError, match="longer than the 2 seconds that are accepted"):
                worker.embed(clip(0, 2.1))


class TestRoom:
    def test_a_full_queue_refuses_requests_and_says_when_to_retry(self, held: HeldEngine) -> None:
        with running_worker(held, max_requests=3) as worker:
            requests = [occupied(worker, held), *(worker.submit(clip(0), queries.describe()) for _ in range(2))]
            with pytest.raises(BusyError) as caught:
                worker.submit(clip(0), queries.describe())
            assert 1 <= caught.value.retry_after_s <= 60
            held.free.set()
            for request in requests:
                request.future.result(PATIENCE_S)
            assert worker.describe(clip(0)).duration_s == 1.0

    def test_no_more_is_taken_than_can_be_answered_in_time(self, held: HeldEngine) -> None:
        with running_worker(held, timeout_s=10) as worker:
            worker._token_s = 0.1
            occupied(worker, held)  # 1 s of work
            worker.submit(clip(0, 8.0), queries.embed())  # 8 s
            waiting(worker, 1)
            worker.submit(clip(0, 9.0), queries.embed())
            waiting(worker, 2)
            with pytest.raises(BusyError):
                worker.submit(clip(0, 9.0), queries.embed()).future.result(PATIENCE_S)
            worker.submit(clip(0, 2.0), queries.embed())  # comes before them
            waiting(worker, 3)

    def test_the_time_of_a_token_is_measured(self, held: HeldEngine) -> None:
        held.free.set()
        with running_worker(held) as worker:
            worker._token_s = 1000.0
            worker.embed(clip(0, 20.0))
            wait_for(lambda: worker._token_s < 950.0)
            worker.embed(clip(0, 200.0))
            wait_for(lambda: worker._token_s < 1.0)

    def test_decoded_audio_is_bounded(self, held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ServingSettings, "held_seconds", 5.0)
        with running_worker(held) as worker:
            occupied(worker, held)
            fits = worker.submit(clip(0, 3.0), queries.describe())
            waiting(worker, 1)
            with pytest.raises(BusyError):
                worker.submit(clip(0, 3.0), queries.describe()).future.result(PATIENCE_S)
            held.free.set()
            assert fits.future.result(PATIENCE_S).duration_s == 3.0


class TestOrder:
    def order(self, worker: InferenceWorker, held: HeldEngine, *lengths_s: float) -> list[float]:
        """In which order requests for an embedding are answered, one after the other, that came in this one."""
        for count, seconds in enumerate(lengths_s, start=len(worker._waiting) + 1):
            worker.submit(clip(0, seconds), queries.embed())
            waiting(worker, count)
        held.free.set()
        wait_for(lambda: not worker._accepted)
        return [rows[0] for _, rows in held.calls[1:]]

    def test_short_requests_pass_long_ones_and_equal_ones_keep_their_order(self, held: HeldEngine) -> None:
        with running_worker(held, batch_size=1) as worker:
            occupied(worker, held)
            assert self.order(worker, held, 4.0, 2.0, 3.0, 1.0) == [1.0, 2.0, 3.0, 4.0]

    def test_a_long_request_is_not_passed_for_ever(self) -> None:
        class Endless(HeldEngine):
            """While it works on a request, a short one comes."""

            def embed(self, audio: Any, *, on_error: str) -> list[Any]:
                answers = super().embed(audio, on_error=on_error)
                if len(self.calls) < 20:
                    count = len(worker._waiting)
                    worker.submit(clip(0), queries.embed())
                    waiting(worker, count + 1)
                return answers

        engine = Endless()
        with running_worker(engine, batch_size=1) as worker:
            occupied(worker, engine)
            order = self.order(worker, engine, 4.0)
        # Two wait at any time. At half the rate each, the long one would end after 8 s of work. A short one that comes
        # after 6 s would end then, too, so it is the first that does not pass.
        assert order.index(4.0) == 6

    def test_a_batch_is_the_work_of_all_that_wait(self, held: HeldEngine) -> None:
        with running_worker(held, batch_size=3) as worker:
            occupied(worker, held)
            before = worker._served
            assert self.order(worker, held, 1.0, 1.0, 1.0, 9.0)[-1] == 9.0
            assert worker._served - before == 30 / 4 + 90


class TestGone:
    def test_a_request_nobody_waits_for_is_never_run(self, held: HeldEngine) -> None:
        with running_worker(held) as worker:
            occupied(worker, held)
            given_up, kept = (worker.submit(clip(0, seconds), queries.describe()) for seconds in (2.0, 3.0))
            waiting(worker, 2)
            given_up.future.cancel()
            assert len(worker._accepted) == 2
            held.free.set()
            kept.future.result(PATIENCE_S)
            wait_for(lambda: not worker._accepted)
        assert held.calls == [("embed", [1.0]), ("describe", [3.0])]

    def test_an_answer_that_takes_too_long_is_given_up(self, held: HeldEngine) -> None:
        with running_worker(held, timeout_s=1.5) as worker:
            with pytest.raises(DeadlineError, match=r"within 1\.5 seconds"):
                worker.timeline(clip(0))
            wait_for(lambda: not worker._accepted)
            assert not held.free.is_set()

    def test_a_request_that_was_not_begun_in_time_is_asked_to_retry(self, held: HeldEngine) -> None:
        with running_worker(held, timeout_s=1) as worker:
            occupied(worker, held)
            with pytest.raises(BusyError):
                worker.describe(clip(0, 2.0))
            assert len(worker._accepted) == 1
        assert held.calls == [("embed", [1.0])]

    def test_cancelling_in_the_event_loop_ends_a_timeline(self, held: HeldEngine) -> None:
        async def give_up(worker: InferenceWorker) -> None:
            task = asyncio.ensure_future(worker.answer(worker.submit(clip(0), queries.timeline())))
            while not held.windows:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with running_worker(held) as worker:
            asyncio.run(give_up(worker))
            wait_for(lambda: not worker._accepted)
            assert not held.free.is_set()

    def test_a_long_timeline_lets_others_in_between(self, held: HeldEngine) -> None:
        class Quick(HeldEngine):
            def embed(self, audio: Any, *, on_error: str) -> list[Any]:
                assert threading.current_thread().name == "pengi-model"
                return [np.ones(2)]

        engine = Quick()
        with running_worker(engine) as worker:
            timelines = [worker.submit(clip(0), queries.timeline()) for _ in range(2)]
            wait_for(lambda: engine.windows)
            assert worker.embed(clip(0)).tolist() == [1.0, 1.0]
            assert not any(request.future.done() for request in timelines)
            engine.free.set()
            assert [request.future.result(PATIENCE_S).duration_s for request in timelines] == [0.0, 0.0]


class TestClosing:
    def test_what_is_inside_is_answered_and_nothing_new_is_taken(self, held: HeldEngine) -> None:
        worker = InferenceWorker(held, ServingSettings(page=False))
        requests = [occupied(worker, held), *(worker.submit(clip(0), queries.describe()) for _ in range(3))]
        waiting(worker, 3)
        closer = threading.Thread(target=worker.close)
        closer.start()
        wait_for(lambda: not worker.alive)
        with pytest.raises(ClosingError):
            worker.submit(clip(0), queries.describe())
        held.free.set()
        assert [request.future.result(PATIENCE_S) is not None for request in requests] == [True] * 4
        closer.join(PATIENCE_S)
        assert not closer.is_alive()
        assert not worker._model.is_alive()

    def test_an_idle_worker_ends_at_once(self, tiny: Pengi) -> None:
        worker = InferenceWorker(tiny, ServingSettings(page=False))
        worker.close()
        assert not worker._model.is_alive()


def test_a_stereo_file_of_another_rate_is_the_same_as_for_the_engine(tiny: Pengi) -> None:
    content = encoded(np.stack([noise(1.5, 1), noise(1.5, 2)], axis=1), "FLAC", 22_050)
    with running_worker(tiny) as worker:
        np.testing.assert_array_equal(worker.embed(content), tiny.embed(content))
