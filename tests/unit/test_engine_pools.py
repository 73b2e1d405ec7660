"""What a pool's state says of flattened names under an operator's force."""

from __future__ import annotations

from coordinator import pool as judgement
from gtm.model import Address, Pool
from gtm.state import AddressSet, ForceAction, PoolState

NAMES = ("both.test", "four.test", "gone.test")
POOL = Pool(
    type="domain", flatten=True, addresses=tuple(Address(value=name, checks=()) for name in NAMES)
)
SETS = {
    "both.test": AddressSet(addresses=("192.0.2.1", "2001:db8::1"), ttl=60, since=0.0),
    "four.test": AddressSet(addresses=("192.0.2.2",), ttl=60, since=0.0),
}


def judged(**forces: ForceAction) -> PoolState:
    """The pool under forces on its members (by the first label) or on it as a whole (`whole`)."""
    named = {"whole": judgement.WHOLE, **{name.partition(".")[0]: name for name in NAMES}}
    state = judgement.judge(
        POOL,
        [(), (), ()],
        None,
        patient=False,
        generation=1,
        wall_s=0.0,
        sets=SETS,
        forces={named[name]: action for name, action in forces.items()},
    )
    assert state is not None
    return state


def test_a_drained_name_counts_only_while_others_answer_in_each_of_its_families() -> None:
    both = judged(both="drain").members[0]
    assert (both.why, both.answered, both.counted) == ("drained", False, False)
    four = judged(four="drain").members[1]
    assert (four.why, four.answered, four.counted) == ("drained", False, True)
    assert not any(member.counted for member in judged(whole="drain").members)


def test_a_name_without_an_address_is_not_forced_up_but_may_be_forced_down() -> None:
    for action, why in (("up", "unresolved"), ("drain", "unresolved"), ("down", "forced_down")):
        member = judged(gone=action).members[2]  # type: ignore[arg-type]
        assert (member.why, member.judged, member.answered) == (why, "unresolved", False)
