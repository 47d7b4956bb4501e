"""The network: its loss against a plain loop, where gradients go, and how sequences are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from helpers import MLP, SENTENCE_TEXT, TRANSFORMER, model_values, noise, ragged, tiny_model, tone, training_batch
from pengi import checkpoint
from pengi import model as model_module
from pengi.config import ModelConfig
from pengi.encoders.yamnet import YamnetEncoder, YamnetInnerEncoder
from pengi.language_model import LanguageModel
from pengi.mapper import WordsMapper
from pengi.model import Batch, PengiModel, join, limit_tokens

WAVEFORMS = [noise(2.0), tone(0.5), noise(0.02, seed=1)]
EXAMPLES = [
    (0, "this is a sound of", "rain on a roof"),
    (1, "question: is there a dog? answer:", "no"),
    (0, "generate audio caption", "Rain falls on a roof, and somewhere a bell rings all the time."),
    (2, "this is a sound of", "wind"),
    (0, "question: do you hear rain? answer:", "yes"),
    (1, "question: is the rain louder than the dog? answer:", "no"),
]
BRANCH = {"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": MLP}
FORMS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "transformer": {"audio": [{**BRANCH, "mapper": {**TRANSFORMER, "positions": True}}]},
    "pooled": {"audio": [{**BRANCH, "mapper": {**TRANSFORMER, "input": "pooled"}}]},
    "two branches": {"audio": [BRANCH, {**BRANCH, "trained": False, "mapper": TRANSFORMER}]},
    "text encoder": {"text": SENTENCE_TEXT},
    "prompt through a transformer": {"text": {"mapper": TRANSFORMER}},
    "few tokens": {"audio": [{**BRANCH, "max_tokens": 2}]},
    "mentions": {
        "audio": [
            {**BRANCH, "trained": False, "mapper": {"kind": "words", "tokens": 2, "words": {"dog": 0, "rain": 1}}}
        ],
        "mentions": {"branch": 0},
    },
    "mentions with levels": {
        "audio": [
            {**BRANCH, "trained": False, "mapper": {"kind": "words", "tokens": 2, "words": {"dog": 0, "rain": 1}}},
            {**BRANCH, "encoder": "level", "trained": False, "mapper": {"kind": "none"}},
        ],
        "mentions": {"branch": 0, "levels": 1},
    },
}


def expected_losses(
    model: PengiModel, waveforms: Sequence[Any], examples: Sequence[tuple[int, str, str]]
) -> list[Tensor]:
    """Equation 2, one example at a time, through the language model as Hugging Face made it."""
    lm = model.language_model
    losses = []
    for clip, prompt, target in examples:
        waveform = torch.from_numpy(waveforms[clip])[None]
        parts, heard = [], []
        for branch in model.branches:
            tokens, mask = branch.encoder(waveform, torch.tensor([waveform.shape[1]]))
            heard.append((tokens, mask))
            prefix, told = branch.mapper(*limit_tokens(tokens, mask, branch.config.max_tokens))
            parts.append(prefix[told][None])
        for mentioned, told in model.tell_mentions(model.listen(heard), [prompt]):
            parts.append(mentioned[told][None])
        if model.text_encoder is not None:
            embedding = model.text_encoder.embed([prompt])[:, None]
        else:
            embedding = lm.embed(torch.tensor([lm.encode(prompt)]))
        parts.append(model.text_mapper(embedding, torch.ones(embedding.shape[:2], dtype=torch.bool))[0])
        prefix = torch.cat(parts, 1)
        ids = [*lm.encode(" " + target)[: model.config.language_model.target_tokens - 1], lm.end_id]
        sequence = torch.cat([prefix, lm.embed(torch.tensor([ids]))], 1)
        logits = lm.model(inputs_embeds=sequence).logits[0, prefix.shape[1] - 1 : -1]
        losses.append(functional.cross_entropy(logits, torch.tensor(ids), reduction="none"))
    return losses


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_that_of_single_examples(form: str) -> None:
    model = tiny_model(**FORMS[form])
    with torch.no_grad():
        loss = model.loss(training_batch(model, WAVEFORMS, EXAMPLES))
        expected = expected_losses(model, WAVEFORMS, EXAMPLES)
    torch.testing.assert_close(loss.mean, torch.cat(expected).mean(), rtol=1e-4, atol=1e-4)
    for example, losses in enumerate(expected):
        torch.testing.assert_close(loss.token_losses_N[loss.example_N == example], losses, rtol=1e-3, atol=1e-3)


def test_groups_of_examples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    batch = training_batch(model, WAVEFORMS, EXAMPLES)
    with torch.no_grad():
        whole = model.loss(batch)
        monkeypatch.setattr(model_module, "EXAMPLES_READ_TOGETHER", 2)
        parts = model.loss(batch)
    torch.testing.assert_close(whole.mean, parts.mean)
    for example in range(len(EXAMPLES)):
        torch.testing.assert_close(
            whole.token_losses_N[whole.example_N == example], parts.token_losses_N[parts.example_N == example],
            rtol=1e-3, atol=1e-4,
        )  # fmt: skip


def test_questions_that_share_a_clip_train_as_if_each_had_its_own() -> None:
    """The shared prefix gathers the gradient of every question about it."""
    shared, apart = tiny_model(), tiny_model()
    own = [(place, prompt, target) for place, (_, prompt, target) in enumerate(EXAMPLES)]
    shared.loss(training_batch(shared, WAVEFORMS, EXAMPLES)).mean.backward()
    apart.loss(training_batch(apart, [WAVEFORMS[clip] for clip, _, _ in EXAMPLES], own)).mean.backward()
    others = dict(apart.named_parameters())
    for name, value in shared.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, others[name].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_mappers_and_trained_layers_and_nothing_frozen(form: str) -> None:
    model = tiny_model(**FORMS[form]).train()
    model.loss(training_batch(model, WAVEFORMS, EXAMPLES)).mean.backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    expected = {name for name, value in model.named_parameters() if name.startswith("text_mapper.") and value.numel()}
    for index, branch in enumerate(model.branches):
        expected |= {f"audio.{index}.mapper.{name}" for name, _ in branch.mapper.named_parameters()}
        layers = range(branch.config.frozen_layers, len(branch.encoder.conv)) if branch.config.trained else ()
        expected |= {f"audio.{index}.encoder.conv.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    if model.mentions is not None:
        expected |= {"mentions.much_FD", "mentions.when_FD"}
        expected |= {"mentions.louder_FD"} if model.mentions.config.levels is not None else set()
    assert reached == expected
    assert all(value.grad is None for value in model.language_model.parameters())


def test_training_mode_leaves_the_frozen_parts_in_evaluation_mode() -> None:
    model = tiny_model(text=SENTENCE_TEXT).train()
    assert model.text_encoder is not None
    assert not any(module.training for module in model.language_model.modules())
    assert not any(module.training for module in model.text_encoder.modules())
    assert all(branch.mapper.training for branch in model.branches)


def test_edits_and_augmentation_reach_the_loss() -> None:
    model = tiny_model(audio=[{**BRANCH, "frozen_layers": 0}])
    batch = training_batch(model, WAVEFORMS, EXAMPLES)
    with torch.no_grad():
        plain = model.loss(batch).mean
        edited = model.loss(batch, edit=lambda tokens: [(values.flip(-1), mask) for values, mask in tokens]).mean
        augmented = model.loss(batch, augment=torch.zeros_like).mean
    assert not torch.isclose(plain, edited)
    assert not torch.isclose(plain, augmented)


def test_a_frozen_branch_is_never_augmented() -> None:
    model = tiny_model(audio=[{**BRANCH, "frozen_layers": 0, "trained": False}])
    batch = training_batch(model, WAVEFORMS, EXAMPLES)
    with torch.no_grad():
        assert torch.equal(model.loss(batch).mean, model.loss(batch, augment=torch.zeros_like).mean)


def test_a_clip_that_a_branch_does_not_hear_takes_nothing_from_it() -> None:
    """Branch dropout empties the mask of one branch: its tokens stand nowhere in the prefix."""
    model = tiny_model(audio=[BRANCH, {**BRANCH, "mapper": {**MLP, "constants": 0}}])
    batch = training_batch(model, WAVEFORMS[:1], [(0, "this is a sound of", "rain")])
    one = Batch(batch.features[:1], batch.clip_E, batch.prompts, batch.targets)
    single = tiny_model(audio=[BRANCH])
    single.load_state_dict({name: value for name, value in model.state_dict().items() if ".1." not in name[:8]})
    with torch.no_grad():
        deaf = model.loss(batch, edit=lambda tokens: [tokens[0], (tokens[1][0], torch.zeros_like(tokens[1][1]))])
        torch.testing.assert_close(deaf.mean, single.loss(one).mean, rtol=1e-5, atol=1e-5)


OTHER_WORDS = {"rain": 1, "breaking glass": 3, "wind": 5}


def in_other_words(model: PengiModel) -> ModelConfig:
    """The configuration of a model whose first branch tells words, with others, and phrases for them."""
    words, *others = model.config.audio
    words = words.model_copy(update={"mapper": words.mapper.model_copy(update={"words": OTHER_WORDS})})
    mentions = model.config.mentions and model.config.mentions.model_copy(update={"phrases": {"a storm": "wind"}})
    return model.config.model_copy(update={"audio": (words, *others), "mentions": mentions})


@pytest.mark.parametrize("form", ["words", "mentions", "mentions with levels"])
def test_a_model_takes_other_words_and_tells_them_as_before(form: str) -> None:
    model = tiny_model(**({"audio": FORMS["mentions"]["audio"]} if form == "words" else FORMS[form]))
    before = model.branches[0].mapper
    assert isinstance(before, WordsMapper)
    told = {name: value for name, value in model.named_parameters() if "mapper" in name or name.startswith("mentions.")}
    with torch.no_grad():
        for value in told.values():
            value.add_(torch.randn_like(value) * 0.1)
        before.weigh(torch.tensor([2.0, 3.0]), torch.tensor([0.5, -0.5]))
    config = in_other_words(model)
    model.say(config)
    assert model.config == config
    assert model.branches[0].config == config.audio[0]
    mapper = model.branches[0].mapper
    assert isinstance(mapper, WordsMapper)
    assert (mapper.words, mapper.classes_V.tolist()) == (tuple(OTHER_WORDS), list(OTHER_WORDS.values()))
    assert (mapper.scale_V.tolist(), mapper.bias_V.tolist()) == ([1.0] * 3, [0.0] * 3)  # still to be fitted
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in told.items())
    assert all(now[name].requires_grad for name in told)
    # It is the model that its new configuration makes, with its own weights.
    made = checkpoint.create(config).eval()
    made.load_state_dict(model.state_dict())
    waveforms = torch.from_numpy(noise(2.0))[None]
    tokens = model.hear(waveforms, torch.tensor([waveforms.shape[1]]))
    with torch.no_grad():
        prefix, mask = model.prefix(tokens, ["is there a storm?"])
        torch.testing.assert_close(prefix, made.prefix(tokens, ["is there a storm?"])[0])
        assert mask.all()
        assert model.loss(training_batch(model, WAVEFORMS, EXAMPLES)).mean.isfinite()


@pytest.mark.parametrize(("trained", "passes"), [(False, 1), (True, 2)])
def test_the_first_layers_of_another_encoder_need_no_pass_of_their_own(
    trained: bool, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the other one is trained: its weights are then no longer the stock ones that both began with."""
    none = {"encoder": "yamnet-tiny-random", "trained": False, "frozen_layers": 7, "mapper": {"kind": "none"}}
    whole = {**none, "trained": trained, "mapper": MLP}
    config = ModelConfig.parse(model_values(audio=[{**none, "encoder": "yamnet-conv17"}, whole]), "test")
    inner = YamnetInnerEncoder(3, 4, ((8, 2), (16, 2), (16, 2)))
    inner.inner_of = "yamnet-tiny-random"
    stock = YamnetEncoder.tiny(7)
    inner.load_state_dict({name: value for name, value in stock.state_dict().items() if name in inner.state_dict()})
    model = PengiModel(config, [inner, stock], None, LanguageModel.tiny()).eval()
    expected = [encoder(*ragged(WAVEFORMS)) for encoder in (inner, stock)]
    spectrograms: list[YamnetEncoder] = []
    log_mel = YamnetEncoder.log_mel

    def counted(self: YamnetEncoder, waveform_BS: torch.Tensor) -> torch.Tensor:
        spectrograms.append(self)
        return log_mel(self, waveform_BS)

    monkeypatch.setattr(YamnetEncoder, "log_mel", counted)
    heard = model.hear(*ragged(WAVEFORMS))
    assert len(spectrograms) == passes
    for (tokens, mask), (alone, alone_mask) in zip(heard, expected, strict=True):
        torch.testing.assert_close(tokens, alone, rtol=0, atol=1e-6)
        assert torch.equal(mask, alone_mask)


def test_other_phrases_are_listened_for_and_the_old_ones_no_more() -> None:
    model = tiny_model(**FORMS["mentions"])
    waveforms = torch.from_numpy(noise(2.0))[None]
    tokens = model.hear(waveforms, torch.tensor([waveforms.shape[1]]))

    def mentioned(prompt: str) -> bool:
        ((_, mask),) = model.tell_mentions(model.listen(tokens), [prompt])
        return bool(mask.any())

    prompts = ["is there a storm?", "is there breaking glass?", "is there a dog?", "is there rain?"]
    assert [mentioned(prompt) for prompt in prompts] == [False, False, True, True]
    model.say(in_other_words(model))
    assert [mentioned(prompt) for prompt in prompts] == [True, True, False, True]


def test_targets_are_cut_and_end_with_the_end_token() -> None:
    model = tiny_model(language_model={"name": "tiny-random", "target_tokens": 6})
    lm = model.language_model
    assert model.target_ids(" rain ") == [*lm.encode(" rain"), lm.end_id][:6]
    ids = model.target_ids("a very long answer that nobody wants to hear")
    assert len(ids) == 6
    assert ids[-1] == lm.end_id
    assert lm.decode(ids[:-1]).startswith(" a")


def test_prompts_are_cut_to_the_configured_length() -> None:
    model = tiny_model(text={"max_tokens": 5, "mapper": {"kind": "identity"}})
    prefix, mask = model.text_prefix(["this is a sound of", "a"])
    assert prefix.shape[:2] == (2, 5)
    assert mask.sum(1).tolist() == [5, 1]


def test_the_prefix_of_a_clip_is_the_same_alone_and_beside_others() -> None:
    model = tiny_model(**FORMS["two branches"])
    prompts = ["this is a sound of", "x", "question: what do you hear? answer:"]
    with torch.no_grad():
        tokens = model.audio_tokens(training_batch(model, WAVEFORMS, EXAMPLES).features)
        together, mask = model.prefix(tokens, prompts)
        for row, prompt in enumerate(prompts):
            single = [(values[row : row + 1], real[row : row + 1]) for values, real in tokens]
            alone, real = model.prefix(single, [prompt])
            assert mask[row].tolist() == [False] * (mask.shape[1] - int(real.sum())) + [True] * int(real.sum())
            torch.testing.assert_close(together[row][mask[row]], alone[0][real[0]], rtol=0, atol=1e-5)


masks = st.integers(1, 3).flatmap(
    lambda rows: st.lists(
        st.integers(0, 4).flatmap(
            lambda width: st.lists(
                st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows
            )
        ),
        min_size=1,
        max_size=3,
    )
)


@settings(deadline=None)
@given(masks, st.sampled_from(["left", "right"]))
def test_join_keeps_real_tokens_in_order_and_padding_at_one_side(parts: list[list[list[bool]]], padding: str) -> None:
    rows = len(parts[0])
    values = [torch.randn(rows, len(mask[0]), 2) for mask in parts]
    tensors = [torch.tensor(mask, dtype=torch.bool).reshape(rows, -1) for mask in parts]
    joined, mask = join(list(zip(values, tensors, strict=True)), padding=padding)
    counts = sum(tensor.sum(1) for tensor in tensors)
    assert isinstance(counts, Tensor)
    assert joined.shape == (rows, int(counts.max()), 2)
    for row in range(rows):
        real = torch.cat([value[row][tensor[row]] for value, tensor in zip(values, tensors, strict=True)])
        assert torch.equal(joined[row][mask[row]], real)
        shape = [True] * len(real) + [False] * (joined.shape[1] - len(real))
        assert mask[row].tolist() == (shape if padding == "right" else shape[::-1])


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3), st.integers(1, 10))
def test_limited_tokens_are_means_over_equal_shares_of_the_real_ones(rows: list[list[bool]], most: int) -> None:
    mask = torch.tensor(rows)
    tokens = torch.randn(*mask.shape, 2)
    limited, kept = limit_tokens(tokens, mask, most)
    assert limited.shape[1] == min(9, most)
    for row in range(len(rows)):
        real = tokens[row][mask[row]]
        found = limited[row][kept[row]]
        assert len(found) == min(len(real), most)
        if len(real) <= most:
            assert torch.equal(found, real)
        else:
            edges = [(place * len(real) // most, -(-(place + 1) * len(real) // most)) for place in range(most)]
            torch.testing.assert_close(found, torch.stack([real[start:end].mean(0) for start, end in edges]))
