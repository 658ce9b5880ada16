"""Powers of floating-point numbers that are the same on every machine.

Products, quotients and square roots are rounded alike wherever IEEE 754 holds; powers, exponentials and logarithms of
mathematics libraries are not. So these are made of the former. They are exact to some 14 digits, which is all that is
asked of them.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_E: Final = 2.718281828459045
_BITS: Final = 40


def powers(bases: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """`bases`, above 0, to the power of `exponent`, which is 0 or more and of which 40 binary places count."""
    whole = int(exponent)
    fraction = round((exponent - whole) * 2**_BITS)
    result = np.ones(len(bases))
    for _ in range(whole):
        result = result * bases
    root = bases
    for place in range(1, _BITS + 1):
        root = np.sqrt(root)
        if fraction >> (_BITS - place) & 1:
            result = result * root
    return result * bases if fraction >> _BITS else result


def exponential(number: float) -> float:
    """e to the power of `number`."""
    power = float(powers(np.array([_E]), abs(number))[0])
    return power if number >= 0 else 1 / power
