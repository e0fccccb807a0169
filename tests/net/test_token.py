import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tq.errors import BadRequest, Unauthorised
from tq.net.token import RANDOM_BYTES, is_token, make_token, parse_token, sha256_of

ROLES = {"admin": "tqa_", "submit": "tqs_", "worker": "tqw_", "read": "tqr_"}
RANDOM = bytes(range(RANDOM_BYTES))


@pytest.mark.parametrize("role", ROLES)
@given(random=st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_token_says_its_role_and_its_id(role: str, random: bytes) -> None:
    token = make_token(role, random)

    assert token.text.startswith(f"{ROLES[role]}{token.id}_")
    assert parse_token(token.text) == token
    assert token.role == role


def test_this_token_is_this_text() -> None:
    assert make_token("worker", RANDOM).text == "tqw_aaaqeayeau_BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY0ktgF0"


def test_what_is_stored_is_the_digest_of_the_whole_text() -> None:
    token = make_token("read", RANDOM)

    assert token.digest == sha256_of(token.text) == hashlib.sha256(token.text.encode()).digest()


def test_only_the_token_itself_matches_its_digest() -> None:
    token = make_token("read", RANDOM)

    assert is_token(token.text, token.digest)
    assert not is_token(make_token("read", RANDOM[::-1]).text, token.digest)
    assert not is_token(token.text + " ", token.digest)
    assert not is_token("", token.digest)
    assert not is_token("\udcff", token.digest)


def test_every_slip_of_the_hand_is_noticed() -> None:
    text = make_token("admin", RANDOM).text
    wrong = [text[:at] + other + text[at + 1 :] for at in range(len(text)) for other in "aZ2-" if text[at] != other]
    wrong += [text[:at] + text[at + 1 :] for at in range(len(text))]

    for slip in wrong:
        with pytest.raises(Unauthorised):
            parse_token(slip)


@pytest.mark.parametrize("text", ["", "secret", "tqx_aaaqeayeau_" + "a" * 49, "tqa_" + "a" * 5_000, "tqa_é", "\udcff"])
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(Unauthorised) as caught:
        parse_token(text)

    assert not text or text not in str(caught.value) + caught.value.hint


def test_a_token_shows_no_secret_when_it_is_printed() -> None:
    token = make_token("admin", RANDOM)

    assert token.text not in f"{token!r} {token}"


def test_there_are_four_roles() -> None:
    with pytest.raises(BadRequest, match="root"):
        make_token("root", RANDOM)


def test_too_few_dice_make_no_token() -> None:
    with pytest.raises(ValueError, match="random bytes"):
        make_token("admin", b"1234")
