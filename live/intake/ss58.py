"""SS58 addresses: how the chain writes a public key as text."""

from hashlib import blake2b

from shared.errors import InputError
from shared.wire import found

SUBSTRATE = 42
"""The address format of any Substrate chain, Bittensor's too."""

_LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_LETTERS)}
_KEY, _CHECK = 32, 2
_LONGEST = 64
"""No address of a 32-byte key is longer; base 58 takes quadratic time."""
_TWO_BYTE_FORMATS = range(64, 128)


def public_key(address: str) -> bytes:
    """The 32 bytes of the public key that an address stands for.

    Raises InputError when it is no SS58 address of a 32-byte key, or its checksum is wrong.
    """
    raw = _from_base58(address)
    prefix = 2 if raw and raw[0] in _TWO_BYTE_FORMATS else 1
    body, check = raw[:-_CHECK], raw[-_CHECK:]
    if len(body) != prefix + _KEY or _checksum(body) != check:
        raise _no_address(address)
    return body[prefix:]


def address_of(key: bytes, address_format: int = SUBSTRATE) -> str:
    """The address of a 32-byte public key. address_format: 0 to 63."""
    body = bytes([address_format]) + key
    return _to_base58(body + _checksum(body))


def _checksum(body: bytes) -> bytes:
    return blake2b(b"SS58PRE" + body).digest()[:_CHECK]


def _from_base58(text: str) -> bytes:
    if not 0 < len(text) <= _LONGEST:
        raise _no_address(text)
    number = 0
    for letter in text:
        if letter not in _VALUES:
            raise _no_address(text)
        number = number * 58 + _VALUES[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _to_base58(raw: bytes) -> str:
    number, letters = int.from_bytes(raw), ""
    while number:
        number, value = divmod(number, 58)
        letters = _LETTERS[value] + letters
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + letters


def _no_address(text: str) -> InputError:
    return InputError(f"found {found(text)}, allowed is an SS58 address of a 32-byte key")
