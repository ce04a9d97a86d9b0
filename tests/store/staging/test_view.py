from hypothesis import given
from hypothesis import strategies as st

from qatqfs.store.staging.view import ChunkMap, chunks_of

CHUNK = 10
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(0, 12), st.integers(0, 6)),
        st.tuples(st.just("cut"), st.integers(0, 150), st.just(0)),
    ),
    max_size=12,
)


def played(base_length: int, changes) -> tuple[ChunkMap, set[int], int]:
    """A map, and what a set of numbers says."""
    chunks, held = ChunkMap(CHUNK, base_length), set()
    for kind, first, count in changes:
        if kind == "hold":
            chunks.hold(first, first + count)
            held |= set(range(first, first + count))
        else:
            chunks.cut(first)
            held = {chunk for chunk in held if chunk * CHUNK < first}
            base_length = min(base_length, first)
    return chunks, held, base_length


@given(st.integers(0, 150), steps)
def test_the_map_says_what_a_set_of_numbers_says(base_length: int, changes) -> None:
    chunks, held, base_length = played(base_length, changes)
    from_base = set(range(chunks_of(base_length, CHUNK))) - held
    assert {c for c in range(40) if chunks.holds(c)} == held
    assert {c for c in range(40) if chunks.is_from_base(c)} == from_base
    for first in range(0, 20, 3):
        for stop in range(first, 25, 4):
            some = set(range(first, stop))
            assert chunks.any_from_base(first, stop) == bool(some & from_base)
            assert chunks.all_held(first, stop) == (some <= held)
            assert chunks.missing(first, stop) == len(some - held)
            assert {c for start, end in chunks.runs(first, stop) for c in range(start, end)} == some & held
    assert chunks.held_bytes(10**9) == len(held) * CHUNK
    assert chunks.held_bytes(7, more=3) == min(7, (len(held) + 3) * CHUNK)


@given(st.integers(0, 150), steps, st.integers(0, 180), st.integers(0, 60))
def test_pieces_cover_a_range_and_say_where_each_byte_is(base_length: int, changes, start: int, size: int) -> None:
    chunks, _, _ = played(base_length, changes)
    found = [(at, based) for first, stop, based in chunks.pieces(start, start + size) for at in range(first, stop)]
    assert found == [(at, chunks.is_from_base(at // CHUNK)) for at in range(start, start + size)]


def test_a_copy_goes_its_own_way() -> None:
    one = ChunkMap(CHUNK, 100)
    one.hold(1, 3)
    other = one.copy()
    one.hold(5, 6)
    one.cut(15)
    assert [other.holds(c) for c in (1, 2, 5)] == [True, True, False]
    assert other.base_length == 100
