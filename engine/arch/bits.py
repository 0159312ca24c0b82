"""Fields and masks of 64-bit words."""

U64 = (1 << 64) - 1


def bit(n: int) -> int:
    """The mask of bit ``n``."""
    return 1 << n


def mask(hi: int, lo: int) -> int:
    """The mask of bits ``hi`` .. ``lo``, both included; 0 where ``hi < lo`` (an empty field)."""
    return ((1 << (hi + 1)) - 1) & ~((1 << lo) - 1) if hi >= lo else 0


def field(value: int, hi: int, lo: int) -> int:
    """Bits ``hi`` .. ``lo`` of ``value``, shifted down."""
    return (value >> lo) & ((1 << (hi - lo + 1)) - 1)


def runs(bits: int) -> list[tuple[int, int]]:
    """The runs of ones in ``bits`` as ``(hi, lo)`` pairs, highest first: 0xE1 -> [(7, 5), (0, 0)]."""
    found = []
    while bits:
        hi = bits.bit_length() - 1
        lo = hi
        while lo and bits >> (lo - 1) & 1:
            lo -= 1
        found.append((hi, lo))
        bits &= (1 << lo) - 1
    return found


def bit_names(bits: int) -> str:
    """``bits`` as a manual writes them: 0xE1 -> "7:5, 0"."""
    return ", ".join(str(hi) if hi == lo else f"{hi}:{lo}" for hi, lo in runs(bits))
