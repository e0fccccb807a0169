"""For how long after a start of the server workers may run on, unheard, what an earlier life has let them."""

from tests.support.house import House
from tq.core.engine.engine import Engine
from tq.core.vocabulary import Recover, Recovered


class Reaper(House):
    """A server that starts again and again, each time with other beats."""

    def start(self, beat_ms: int) -> int:
        """Start, and return for how long what was before may go on."""
        self.engine = Engine(self.store, self.bounds)
        answer = self.do(Recover(7, beat_ms))
        assert isinstance(answer, Recovered)
        return answer.held_ms


def test_a_new_store_has_let_nobody_run_anything() -> None:
    house = House()
    assert house.engine.meta is not None
    assert house.engine.meta.held_until_ms <= house.now_ms


def test_a_start_knows_three_beats_of_the_life_before() -> None:
    lives = Reaper()
    lives.start(5_000)
    assert lives.start(100) == 15_000


def test_it_is_so_in_a_store_whose_last_release_did_not_say() -> None:
    lives = Reaper()
    meta = lives.engine.meta
    assert meta is not None
    assert type(meta)(meta.lineage).beat_ms == 5_000


def test_a_life_that_was_short_leaves_the_rest_to_the_next_one() -> None:
    lives = Reaper()
    lives.start(5_000)
    lives.start(100)
    lives.now_ms += 4_000
    lives.submit()
    held_ms = lives.start(100)
    assert 10_000 < held_ms < 11_100
    lives.now_ms += 11_000
    lives.submit()
    assert lives.start(100) == 300


def test_time_that_nobody_has_seen_passing_is_not_taken_off() -> None:
    """The wall's clock says how long the server was down, and may have been set meanwhile."""
    lives = Reaper()
    lives.start(5_000)
    lives.start(100)
    lives.now_ms += 3_600_000
    assert lives.start(100) > 14_000
