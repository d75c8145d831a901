"""One warmed interpreter that forks: each fork becomes a tool as if it had been started by itself.

Run by a guardian, with its end of a socket as stdin: `python -c TEXT PROGRAM WARM MODULE...`. It imports the modules
and executes the text WARM, then takes frames (length in 4 bytes, little endian; number of descriptors in 1; JSON), each of which asks for one process,
and answers each with a frame: the process's id, or why there is none.
"""

import sys

# The current directory, which is the project's: nothing may be imported from there.
FROM_TEXT = sys.path[:1] == [""]
if FROM_TEXT:
    del sys.path[0]

import gc

# What is imported stays: looking for garbage in it takes a fifth of the time that the imports take.
COLLECTS = gc.isenabled()
gc.disable()

import importlib
import json
import os
import socket
import struct
import time


def text(value):
    return os.fsdecode(bytes(value)) if isinstance(value, list) else value


def started_with():
    """The environment that this process was started with, before the interpreter's own start changed any of it."""
    with open("/proc/self/environ", "rb") as file:
        entries = [entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry]
    return {os.fsdecode(name): os.fsdecode(value) for name, value in entries}


def show(*words):
    """Has `ps` show these words instead of this text, and a name for `top`."""
    import ctypes

    ctypes.CDLL(None).prctl(15, os.fsencode(os.path.basename(words[0]))[:15], 0, 0, 0)
    with open("/proc/self/stat", "rb") as file:
        facts = file.read().rpartition(b") ")[2].split()
    start, end = int(facts[45]), int(facts[46])
    line = b"\0".join(map(os.fsencode, words))[: end - start - 1]
    if start:
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


def receive(connection, count, descriptors):
    data = b""
    while len(data) < count:
        piece, received, _, _ = socket.recv_fds(connection, count - len(data), 8)
        descriptors.extend(received)
        if not piece:
            raise SystemExit(0)
        data += piece
    return data


def send(connection, message):
    body = json.dumps(message).encode()
    connection.sendall(struct.pack("<IB", len(body), 0) + body)


def become(order, descriptors, program, changes):
    """In the fork: everything that a new process would have."""
    if COLLECTS:
        gc.enable()
    import ctypes
    import resource
    import signal

    # The parent is a helper that ends at once; from then on it is the guardian, or the guardian is dead.
    while os.getppid() != order["guardian"]:
        if os.getppid() == 1:
            os._exit(1)
        time.sleep(0.0002)
    os.setsid()
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["guardian"]:
        os._exit(1)
    for limit, soft in order["limits"]:
        hard = resource.getrlimit(limit)[1]
        try:
            resource.setrlimit(limit, (soft, hard))
        except (OSError, ValueError):
            pass
    if order["confined"]:
        # Fewer descriptors than were sent, or a refusal: nothing runs unconfined. 446 restricts to Landlock's rules.
        if len(descriptors) != 4 or system.prctl(38, 1, 0, 0, 0) or system.syscall(446, descriptors[3], 0):
            os._exit(1)
        os.close(descriptors.pop())
    if len(descriptors) != 3:
        os._exit(1)
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    if order["terminal"]:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if not os.environ.get("PYTHONUNBUFFERED"):
            sys.stdin.reconfigure(line_buffering=True)
            sys.stdout.reconfigure(line_buffering=True)
    environment = {text(name): text(value) for name, value in order["env"]}
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(text(order["cwd"]))
    # Python's own state of random numbers is made anew in each fork; NumPy's is not.
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()
    sys.argv = [program, *map(text, order["args"])]
    show(*sys.argv)


def fork(connection, order, descriptors):
    """Forks twice, so that the fork becomes the guardian's own child. Returns true in the fork."""
    read, write = os.pipe()
    helper = os.fork()
    if helper == 0:
        child = os.fork()
        if child == 0:
            os.close(read)
            os.close(write)
            connection.close()
            return True
        os.write(write, struct.pack("<I", child))
        os._exit(0)
    os.close(write)
    child = struct.unpack("<I", os.read(read, 4))[0]
    os.close(read)
    os.waitpid(helper, 0)
    for descriptor in descriptors:
        os.close(descriptor)
    send(connection, {"pid": child})
    return False


def serve(program, warm, modules):
    show("readyroom-zygote", program)
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    step = "warming up"
    try:
        for module in modules:
            step = f"importing {module}"
            importlib.import_module(module)
        step = "warming up"
        exec(warm, {})
    except BaseException as error:
        send(connection, {"error": f"{step}: {error!r}"})
        raise SystemExit(1) from None
    # What a start would have set by now, it sets here too.
    before = started_with()
    changes = {name: os.environ.get(name) for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    # A fork that looks for its garbage leaves alone what it shares with the others.
    gc.freeze()
    while True:
        descriptors = []
        length, _ = struct.unpack("<IB", receive(connection, 5, descriptors))
        order = json.loads(receive(connection, length, descriptors))
        # A fork has only the thread that forks: what others hold would be held for ever.
        if len(os.listdir("/proc/self/task")) > 1:
            send(connection, {"error": "a module that it imported has started threads"})
            raise SystemExit(1)
        if fork(connection, order, descriptors):
            become(order, descriptors, program, changes)
            return


def main():
    program, warm, modules = sys.argv[1], sys.argv[2], sys.argv[3:]
    # As for a script that is started by its path.
    if FROM_TEXT:
        sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
    serve(program, warm, modules)
    import runpy

    runpy.run_path(program, run_name="__main__")


main()
