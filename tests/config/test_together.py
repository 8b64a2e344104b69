"""Which SAEs train in one job, and what happens to that when the configuration changes."""

from medsae.config.sae_section import Sae
from medsae.config.together import LARGEST, batch_of, key, members, training_digest


def sae(name, **changes):
    return Sae(**{"name": name, "n_latents": 64, "k": 4, "together": "sweep", **changes})


def never(_):
    return False


def batches(saes, made=(), is_trained=never):
    return [batch_of(each, saes, 1, made, is_trained) for each in saes]


def test_a_new_group_is_one_batch_named_by_its_members():
    saes = [sae("a"), sae("b", k=5), sae("alone", together=None), sae("other", together="x")]
    first, second, alone, other = batches(saes)
    assert first == second and alone is None and other == key(saes[3], 1)
    assert members(first, saes, 1) == saes[:2]


def test_one_that_joins_or_changes_is_a_batch_of_its_own_and_the_others_keep_theirs():
    saes = [sae("a"), sae("b")]
    (made, _) = batches(saes)
    joined = [*saes, sae("c")]
    assert batches(joined, [made]) == [made, made, key(joined[2], 1)]
    changed = [sae("a", k=5), saes[1]]
    assert batches(changed, [made]) == [key(changed[0], 1), made]
    assert members(made, changed, 1) == [saes[1]]


def test_what_was_trained_by_itself_stays_so_when_it_joins_a_group():
    saes = [sae("a"), sae("b"), sae("c")]
    found = batches(saes, is_trained=lambda each: each.name == "a")
    assert found[0] is None
    assert members(found[1], saes, 1) == saes[1:]


def test_what_was_trained_together_stays_so_when_it_leaves_its_group():
    saes = [sae("a"), sae("b")]
    (made, _) = batches(saes)
    assert batches([sae("a", together=None), saes[1]], [made]) == [made, made]


def test_only_what_defines_the_weights_is_in_a_key():
    one = sae("a")
    assert key(one, 1) == key(sae("a", gpus=2, processes=2, together="x"), 1)
    others = [key(sae("b"), 1), key(sae("a", k=5), 1), key(one, 2)]
    assert key(one, 1) not in others and len(set(others)) == 3
    assert training_digest(one, 1) == training_digest(sae("b"), 1)


def test_a_large_group_is_cut():
    saes = [sae(f"sae-{number}") for number in range(2 * LARGEST + 1)]
    sizes = sorted(len(members(batch, saes, 1)) for batch in set(batches(saes)))
    assert sizes == [1, LARGEST, LARGEST]
