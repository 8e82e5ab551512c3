#!/usr/bin/env bash
# run and chat: prompts from options and standard input, stop texts, sampling, cache
# types, conversations from a pipe and on a terminal, Ctrl-C, a context that fills up.
# Usage: test_chat.sh PROGRAM
set -euo pipefail
novaq=$1
fixtures=$(cd "$(dirname "$0")/../fixtures/model" && pwd)

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# exits STATUS PATTERN ARGUMENT...: the exit status and one line of the message.
exits() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$novaq" "$@" >output 2>message </dev/null || got=$?
    [ "$got" -eq "$want" ] || fail "exit $got instead of $want: $* ($(cat message))"
    grep -qe "$pattern" message || fail "'$pattern' is not in: $(cat message)"
}

# The tiny model, with a template that shows what it was given.
cp -r "$fixtures/a-hf" model
cat >template.jinja <<'END'
{%- for m in messages %}
    {%- if m.content == 'refuse' %}{{ raise_exception('not that') }}{% endif %}
    {{- m.role[0] ~ m.content }}
{%- endfor %}
END
python3 - <<'END'
import json
path = "model/tokenizer_config.json"
config = json.load(open(path))
config["chat_template"] = open("template.jinja").read()
json.dump(config, open(path, "w"))
END
common=(--temperature 0 --ignore-eos -n 6)

# ---- run -------------------------------------------------------------------------
"$novaq" run model -p 'ab' "${common[@]}" >from-option
printf 'ab' | "$novaq" run model "${common[@]}" >from-input
printf 'ab' | "$novaq" run model -p - "${common[@]}" >from-dash
cmp from-option from-input
cmp from-option from-dash
# The template makes "uab" of "ab".
"$novaq" run model --chat -p 'ab' "${common[@]}" --json >chat.json
printf 'ab' | "$novaq" run model --chat --chat-template template.jinja "${common[@]}" --json \
    >file.json
"$novaq" run model -p 'uab' "${common[@]}" --json >plain.json
"$novaq" run model --chat --system Q -p 'ab' "${common[@]}" --json >system.json
python3 - <<'END'
import json
chat, file, plain, system = (json.load(open(n + ".json")) for n in ("chat", "file", "plain", "system"))
assert chat["text"] == file["text"] and chat["prompt_tokens"] == file["prompt_tokens"], (chat, file)
# A plain prompt may begin with the token that begins texts; a template writes its own.
assert plain["prompt_tokens"] - chat["prompt_tokens"] in (0, 1), (plain, chat)
assert system["prompt_tokens"] > chat["prompt_tokens"], system
for r in (chat, plain):
    assert r["tokens"] == 6 and r["stop"] == "length" and r["n_ctx"] == r["prompt_tokens"] + 6, r
    assert r["prompt_seconds"] > 0 and r["generate_seconds"] > 0, r
END
# A stop text ends the text in front of it.
python3 - "$novaq" <<'END'
import json, subprocess, sys
def run(*more):
    return json.loads(subprocess.run(
        [sys.argv[1], "run", "model", "-p", "ab", "--temperature", "0", "--ignore-eos", "-n", "40",
         "--json", *more], check=True, capture_output=True).stdout)
whole = run()
text = whole["text"]
cut = next(i for i in range(3, len(text) - 3) if "\0" not in text[i:i + 2])
mark = text[cut:cut + 2]
r = run("--stop", "never there", "--stop", mark)
assert r["text"] == text[:text.index(mark)] and r["stop"] == "stop", (r, text)
assert r["tokens"] < whole["tokens"], r
for kv in ("f32", "f16", "q8"):
    assert run("--kv", kv)["tokens"] == 40, kv
assert run("--ctx", "50")["n_ctx"] == 50
warm = ["--temperature", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0",
        "--repeat-penalty", "1.2"]
assert run(*warm, "--seed", "3")["text"] == run(*warm, "--seed", "3", "--threads", "2")["text"]
END
exits 2 'no prompt' run model
exits 2 'needs --chat' run model -p x --system y
exits 2 'the given context 1' run model -p 'a long prompt' --ctx 1
exits 2 'made for' run model -p x --ctx 100000
exits 2 'f16|f32|q8' run model -p x --kv q4
exits 2 'refuses: not that' run model --chat -p refuse
exits 1 'has no chat template; give one with --chat-template' run "$fixtures/a.gguf" --chat -p x
exits 1 'no-such-file' run model --chat -p x --chat-template no-such-file
printf '{%% if %%}' >broken.jinja
exits 1 'chat template, line 1' run model --chat -p x --chat-template broken.jinja

# ---- chat from a pipe --------------------------------------------------------------
exits 2 'no model' chat
exits 2 'two models' chat a -m b
exits 1 'has no chat template' chat "$fixtures/a.gguf"
exits 1 'no-such-model' chat no-such-model
exits 2 'made for' chat model --ctx 100000
: | "$novaq" chat model >output || fail "an empty conversation: $?"
[ ! -s output ] || fail "an empty conversation says something"

printf 'ab\r\n\ncd\n/save talk.json\n/reset\n//e\n/save again.json\n/nonsense\n/quit\nnever\n' |
    "$novaq" chat model --system Q "${common[@]}" >output 2>message || fail "chat: $? $(cat message)"
grep -q "no command '/nonsense'" message || fail "a command nobody knows: $(cat message)"
printf 'ab\ncd\n' | "$novaq" chat model --system Q "${common[@]}" --json >turns
python3 - <<'END'
import json
talk, again = json.load(open("talk.json")), json.load(open("again.json"))
assert [m["role"] for m in talk] == ["system"] + ["user", "assistant"] * 2, talk
assert [talk[i]["content"] for i in (0, 1, 3)] == ["Q", "ab", "cd"], talk
assert [m["content"] for m in again[:2]] == ["Q", "/e"] and len(again) == 3, again
text = open("turns").read()
decoder, turns, at = json.JSONDecoder(), [], 0
while at < len(text):
    turn, at = decoder.raw_decode(text, at)
    at += 1
    turns.append(turn)
assert [t["text"] for t in turns] == [talk[2]["content"], talk[4]["content"]], (turns, talk)
# The second turn begins with the first one: its tokens are there already.
assert turns[0]["reused_tokens"] == 0 and turns[1]["reused_tokens"] > 0, turns
assert turns[1]["reused_tokens"] < turns[1]["prompt_tokens"], turns
END
# What the cache still has changes nothing: all at once, and turn by turn.
printf 'ab\\\ncd\nef\n' | "$novaq" chat model "${common[@]}" >lines
grep -q . lines || fail "joined lines: $(cat lines)"
printf 'refuse\n' >in
code=0
"$novaq" chat model <in >output 2>message || code=$?
[ "$code" -eq 2 ] && grep -q 'not that' message || fail "a refusal: $code $(cat message)"
printf 'a\xff\n' >in
code=0
"$novaq" chat model <in >output 2>message || code=$?
[ "$code" -eq 1 ] && grep -q 'not UTF-8' message || fail "not UTF-8: $code $(cat message)"

# Old turns are forgotten when the context is full, the system prompt is not.
{
    for i in 1 2 3 4 5 6 7 8; do echo "line $i of many"; done
    echo "/save full.json"
} | "$novaq" chat model --system Q --ctx 48 "${common[@]}" >output 2>message ||
    fail "a full context: $(cat message)"
grep -q 'the context is full; the oldest' message || fail "nothing forgotten: $(cat message)"
python3 - <<'END'
import json
full = json.load(open("full.json"))
assert full[0] == {"role": "system", "content": "Q"}, full
assert full[-2]["content"] == "line 8 of many" and len(full) < 17, full
assert full[1]["role"] == "user", full
END
printf '%0200d\n' 0 | "$novaq" chat model --ctx 32 >output 2>message && fail "too long a line"
grep -q 'shorten it' message || fail "too long a line: $(cat message)"

# The same model, but it may talk for long.
cp -r model endless
sed -i 's/"max_position_embeddings": 64/"max_position_embeddings": 200000/' endless/config.json

# ---- chat on a terminal ---------------------------------------------------------------
exec python3 - "$novaq" <<'END'
import os, pty, select, signal, subprocess, sys, time

def check(condition, *what):
    if not condition:
        print("FAILED:", *what)
        sys.exit(1)

class Terminal:
    def __init__(self, *more, model="model"):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.argv[1], "chat", model, "--temperature", "0", "--ignore-eos", *more],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
        os.close(slave)
        self.seen = b""

    def until(self, mark, times=1):
        deadline = time.monotonic() + 60
        while self.seen.count(mark) < times:
            check(time.monotonic() < deadline, "no", mark, "in", self.seen[-500:])
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    check(False, "ended before", mark, "in", self.seen[-500:])

    def more(self, count):
        """Until so many further bytes are there."""
        deadline, start = time.monotonic() + 60, len(self.seen)
        while len(self.seen) < start + count:
            check(time.monotonic() < deadline, "silent after", self.seen[-500:])
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)

    def send(self, data):
        os.write(self.master, data)

    def end(self):
        try:
            while select.select([self.master], [], [], 10)[0]:
                data = os.read(self.master, 65536)
                if not data:
                    break
                self.seen += data
        except OSError: # the program has left the terminal
            pass
        return self.process.wait(timeout=60)

t = Terminal("-n", "4")
t.until(b"> ")
t.send(b"/help\n")
t.until(b"/system [TEXT]")
t.until(b"> ", 2)
t.send(b"ab\n")
t.until(b"tokens/s)")
t.send(b"refuse\n")
t.until(b"not that") # and the conversation goes on
t.send(b"/nonsense\n")
t.until(b"no command")
t.send(b"\x04")
check(t.end() == 0, "Ctrl-D:", t.seen[-300:])
# No colours, no control characters of the model: the terminal is left alone.
check(b"\x1b" not in t.seen, "an escape sequence:", t.seen)

t = Terminal()
t.until(b"> ")
t.send(b"\x03")
t.until(b"Ctrl-C again")
t.send(b"\x03")
check(t.end() == 130, "two Ctrl-C at the prompt")

# Ctrl-C stops an answer that would take for ever; the conversation goes on.
t = Terminal("-n", "1000000", "--quiet", "--ctx", "200000", model="endless")
t.until(b"> ")
t.send(b"ab\n")
t.until(b"ab\r\n")
t.more(20) # it answers: before that, Ctrl-C would take back what was typed
t.send(b"\x03")
t.until(b"\n> ")
t.send(b"/save stopped.json\n")
t.until(b"stopped.json: 2 messages")
t.send(b"/quit\n")
check(t.end() == 0, "Ctrl-C stopped more than the answer:", t.seen[-300:])
check(b"cut off" not in t.seen, "the answer had an end of its own")
print("chat complete")
END
