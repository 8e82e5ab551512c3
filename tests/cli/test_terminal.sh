#!/usr/bin/env bash
# What appears on a terminal while an operation runs, and what Ctrl-C does: a bar
# that never runs backwards, no escape sequences, plain lines or nothing where
# there is no terminal, exit status 130 and what the same command goes on from.
# Usage: test_terminal.sh PROGRAM
set -euo pipefail
exec python3 - "$1" <<'END'
import json, os, pty, random, re, select, signal, struct, subprocess, sys, time

novaq = sys.argv[1]
random.seed(1)

# Random bfloat16 of moderate size, as bytes: low byte anything, high byte one
# of four exponents and signs.
table = bytes([0x3B, 0x3C, 0xBB, 0xBC][i % 4] for i in range(256))
def floats(n):
    data = bytearray(2 * n)
    data[0::2] = random.randbytes(n)
    data[1::2] = random.randbytes(n).translate(table)
    return bytes(data)

def write_model(path, tensors, rows):
    header, at = {}, 0
    for i in range(tensors):
        header[f"layer.{i}.weight"] = {"dtype": "BF16", "shape": [rows, 1024],
                                       "data_offsets": [at, at + rows * 2048]}
        at += rows * 2048
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _ in range(tensors):
            f.write(floats(rows * 1024))

write_model("large.safetensors", 24, 1024)
write_model("small.safetensors", 2, 64)

def on_terminal(arguments, interrupt=False, **environment):
    """Exit status, what the terminal saw, standard output. interrupt: press
    Ctrl-C once, as soon as a tenth is done."""
    master, slave = pty.openpty()
    env = dict(os.environ)
    env.update({"TERM": "xterm-256color", **environment})
    process = subprocess.Popen([novaq, *arguments], stdout=subprocess.PIPE, stderr=slave, env=env)
    os.close(slave)
    seen, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.05)
        if ready:
            try:
                data = os.read(master, 65536)
            except OSError: # the program has closed the terminal
                break
            if not data:
                break
            seen += data
        if interrupt and re.search(rb"[1-9]\d%", seen):
            process.send_signal(signal.SIGINT)
            interrupt = False
    out = process.stdout.read()
    return process.wait(timeout=60), seen, out

def check(condition, *what):
    if not condition:
        print("FAILED:", *what)
        sys.exit(1)

before = sorted(os.listdir("."))
slow = ["compress", "--input", "large.safetensors", "--scheme", "k16d2l3", "--threads", "1"]
for output in ["dir", "one.novaq"]:
    status, seen, out = on_terminal([*slow, "--output", output], interrupt=True)
    check(status == 130, "exit", status, "after Ctrl-C:", seen[-300:])
    check(b"novaq: " in seen and b"interrupted" in seen, "not said:", seen[-300:])
    check(out == b"", "an interrupted command printed a result:", out)
    check(b"the same command continues" in seen, "no advice:", seen[-300:])
    left = [n for n in os.listdir(".") if n not in before and n != "dir" and "partial" not in n]
    check(not left, "left behind:", left)
    check(not os.path.exists("dir/manifest.json"), "an interrupted run looks whole")
    check(b"\x1b" not in seen, "an escape sequence:", seen)
    shares = [int(x) for x in re.findall(rb"(\d+)%", seen)]
    check(shares and shares == sorted(shares), "the bar ran backwards:", shares)
    lines = re.split(rb"[\r\n]", seen)
    check(max(map(len, lines)) <= 80, "a line wraps:", max(lines, key=len))
for output in ["dir", "one.novaq"]:
    arguments = [*slow, "--output", output, "--quiet", "--json"]
    done = subprocess.run([novaq, *arguments], capture_output=True)
    check(done.returncode == 0, "the next run:", done)
    check(json.loads(done.stdout)["resumed"]["tensors"] >= 2, "begun afresh:", done.stdout)
    done = subprocess.run([novaq, "verify", output, "--quiet"], capture_output=True)
    check(done.returncode == 0, "the artifact of two runs:", done)
left = [n for n in [*os.listdir("."), *os.listdir("dir")] if "partial" in n]
check(not left, "left behind:", left)
print("Ctrl-C: 130 at", shares[-1], "%, continued")
os.remove("one.novaq")

# That work begins anew is said when it does, once, above the bar.
status, seen, out = on_terminal([*slow, "--output", "anew"], interrupt=True)
check(status == 130, "exit", status, "after Ctrl-C:", seen[-300:])
other = [*slow, "--output", "anew", "--seed", "7"]
status, seen, out = on_terminal(other)
check(status == 0, "begun anew:", status, seen[-300:])
check(seen.count(b"started afresh") == 1, "not said once:", seen)
half = re.search(rb" ([5-9]\d|100)%", seen) # a busy machine does not show every share
check(half and seen.index(b"started afresh") < half.start(), "said late:", seen)

small = ["compress", "--input", "small.safetensors", "--scheme", "k16d2l2", "--calibration", "none",
         "--output"]
status, seen, out = on_terminal([*small, "quiet", "--quiet"])
check((status, seen) == (0, b""), "--quiet:", status, seen)
check(b"bits/weight" in out, "no summary:", out)
status, seen, out = on_terminal([*small, "dumb"], TERM="dumb")
check(status == 0 and b"\r" not in seen.replace(b"\r\n", b""), "TERM=dumb:", status, seen)
status, seen, out = on_terminal([*small, "json", "--json"], NO_COLOR="1")
check(status == 0 and b"\x1b" not in seen, "NO_COLOR:", status, seen)
check(json.loads(out)["bits_per_weight"] > 0, "--json:", out)

# Without a terminal standard error stays empty for a short operation.
done = subprocess.run([novaq, *small, "plain"], capture_output=True)
check((done.returncode, done.stderr) == (0, b""), "no terminal:", done)

# A second Ctrl-C is not needed, but it kills: the handler is gone after one.
process = subprocess.Popen([novaq, *slow, "--output", "twice", "--quiet"], stderr=subprocess.PIPE)
time.sleep(0.3)
for _ in range(2):
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
status = process.wait(timeout=60)
check(status in (130, -signal.SIGINT), "two Ctrl-C:", status)
print("terminal complete")
END
