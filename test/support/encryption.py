"""Encrypted objects by another implementation of their format: that of the Python package `cryptography`.

    pip install 'cryptography>=50'
    python encryption.py decrypt SECRET KEY < object    writes the bytes of the object
    python encryption.py encrypt SECRET KEY < bytes     writes an object, whose master key has the id "python"

SECRET is the master key in hexadecimal, KEY the key of the object.
"""
import hashlib
import sys

from cryptography.cobblestone import (
    Cobblestone128Decryptor,
    Cobblestone128Encryptor,
    Cobblestone256Decryptor,
    Cobblestone256Encryptor,
)

operation, secret, key = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3].encode()
data = sys.stdin.buffer.read()


def run(transform, data):
    return transform.update(data) + transform.finalize()


if operation == "decrypt":
    content, message = data[:936], data[968:]
    assert content[:8] == b"SWCRYPT1" and data[936:968] == hashlib.sha256(content).digest()
    at = 9 + content[8] + 2
    wrapped = content[at:at + int.from_bytes(content[at - 2:at])]
    data_key = run(Cobblestone256Decryptor(secret, key), wrapped)
    result = run(Cobblestone128Decryptor(data_key, key), message)
else:
    data_key = Cobblestone128Encryptor.generate_key()
    wrapped = run(Cobblestone256Encryptor(secret, key), data_key)
    content = (b"SWCRYPT1\x06python" + len(wrapped).to_bytes(2) + wrapped).ljust(936, b"\0")
    result = content + hashlib.sha256(content).digest() + run(Cobblestone128Encryptor(data_key, key), data)
sys.stdout.buffer.write(result)
