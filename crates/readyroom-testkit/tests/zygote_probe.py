"""A tool that tells what it finds about itself, so that a fork can be compared with a start."""

import gc
import os
import resource
import signal
import subprocess
import sys

COUNT = [0]


def facts():
    COUNT[0] += 1
    names = ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD", "SIGUSR1"]
    marks = ["READYROOM_TREE", "READYROOM_OWNER"]
    yield "argv", sys.argv
    yield "path", sys.path
    yield "name", __name__, __file__
    yield "environment", sorted((name, value) for name, value in os.environ.items() if name not in marks)
    yield "inherited", sorted(name for name in marks if name in os.environ)
    yield "directory", os.getcwd()
    yield "signals", [str(signal.getsignal(getattr(signal, name))) for name in names]
    yield "blocked", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    yield "limits", [resource.getrlimit(limit) for limit in range(16) if limit != 15]
    yield "marked", resource.getrlimit(15)[0] >> 60
    yield "leads", os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()
    yield "descriptors", sorted(name for name in os.listdir("/proc/self/fd") if int(name) < 3), len(os.listdir("/proc/self/fd"))
    yield "streams", [(stream.encoding, stream.errors, stream.line_buffering, stream.isatty()) for stream in (sys.stdin, sys.stdout, sys.stderr)]
    yield "garbage", gc.isenabled(), gc.get_threshold(), gc.get_debug()
    yield "threads", len(os.listdir("/proc/self/task"))
    yield "children", os.popen("cat /proc/%d/task/*/children" % os.getpid()).read().count(" ") <= 1
    yield "comm", open("/proc/self/comm").read()
    yield "umask", os.umask(os.umask(0o22))
    yield "asked", COUNT[0]


def main():
    for line in iter(sys.stdin.readline, ""):
        line = line.rstrip("\n")
        if line.startswith(":fence "):
            print(line[7:].replace(" ", ""))
        elif line == ":reset":
            print("context cleared")
        elif line == "facts":
            for fact in facts():
                print(*fact)
        elif line == "random":
            import random
            import uuid

            import numpy.random

            print(random.random(), uuid.uuid4(), numpy.random.random())
        elif line == "parent":
            print(os.getppid(), os.getpid())
        elif line == "stray":
            nowhere = subprocess.DEVNULL
            subprocess.Popen(["sleep", "1000"], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
            print("left one")
        elif line == "hang":
            sys.stdout.flush()
            signal.pause()
        elif line.startswith("exit "):
            sys.stdout.flush()
            sys.exit(int(line[5:]))
        else:
            print("?", line)
        sys.stdout.flush()


main()
