"""The words for where a profile comes from say the same when they are read."""

import pytest

from bac.profile_source import Source, describe, describe_dataset, describe_rollouts


@pytest.mark.parametrize("noise", [None, "0123abcd"])
@pytest.mark.parametrize("all_seen", [False, True])
def test_what_is_written_is_what_is_read(noise, all_seen):
    text = describe(describe_rollouts(20000, 8), noise, all_seen)
    assert Source.parse(text) == Source("rollouts", 20000, 8, noise, all_seen)
    text = describe(describe_dataset(40), noise, all_seen)
    assert Source.parse(text) == Source("dataset", None, None, noise, all_seen)


def test_stored_words_keep_their_meaning():
    stored = Source.parse("rollouts of the full policy from seeds 20000..20007, noise schedule 0123abcd")
    assert stored == Source("rollouts", 20000, 8, "0123abcd") and stored.settings == {
        "seed_start": 20000,
        "n_episodes": 8,
    }
    assert Source.parse("recorded observations") == Source(None)
