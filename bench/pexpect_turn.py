"""Measured by `cargo xtask bench turn`: pexpect_turn.py PROGRAM COUNT prints the time of a turn in seconds."""

import sys
import time

import pexpect

program, count = sys.argv[1], int(sys.argv[2])
child = pexpect.spawn(program, timeout=10, echo=False)


def turn() -> None:
    child.send("hello\n:fence 0123456789abcdef 0123456789abcdef\n")
    child.expect_exact("0123456789abcdef0123456789abcdef\r\n")


child.delaybeforesend = None
turn()
began = time.perf_counter()
for _ in range(count):
    turn()
print((time.perf_counter() - began) / count)
child.close(force=True)
