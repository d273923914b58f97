"""Translation: which configs it takes, and what the data say of them."""

import pytest
import tiny

from transformer_jax.errors import UserError
from transformer_jax.tasks import TASKS

TASK = TASKS["translation"]


def test_one_table_for_two_vocabularies_is_refused():
    with pytest.raises(UserError) as refused:
        TASK.check(tiny.config({"data.joint_vocabulary": False}))
    for word in ("three_way", "joint_vocabulary"):
        assert word in str(refused.value)
    TASK.check(tiny.config({"data.joint_vocabulary": False, "model.embedding.tying": "decoder"}))
