"""The places of a worker process."""

from __future__ import annotations

from workers.places import Place, Places


def test_last_place_is_known_and_reserved_ones_are_for_newcomers() -> None:
    places = Places(2, 1)

    taken = [places.take(newcomer=newcomer) for newcomer in (False, False, False, True, True)]

    assert taken == [Place.FREE, Place.LAST, None, Place.RESERVED, None]


def test_released_place_can_be_taken_again() -> None:
    places = Places(1, 1)
    for _ in range(2):
        places.take()

    places.release()
    places.release()

    assert [places.take(), places.take(), places.take()] == [Place.LAST, Place.RESERVED, None]
