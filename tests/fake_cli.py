#!/usr/bin/env python3
"""A stand-in for the CLI: a real child process with its protocol, which misbehaves on request.

What it does wrong while starting is said by a `scenario.json` beside it (`install` writes both);
what it does wrong in a turn is said by the user's text, `!` and a word:

    !deltas N [MS [BYTES]]   N text deltas, MS milliseconds apart, of BYTES bytes each
    !paced N MS TIMES TEXT   asks the model, then says TEXT so many times, in N deltas MS milliseconds apart
    !die [CODE]              exits in the middle of the turn
    !kill                    the same by SIGKILL
    !hang                    begins to answer and goes silent; an interrupt ends the turn
    !deaf                    the same, but interrupts are not heeded either
    !garbage, !half          writes a line that is not JSON; writes half a line and exits
    !big [BYTES]             an answer in one line of BYTES bytes (20 MiB)
    !stderr BYTES            floods stderr, then answers
    !orphan                  leaves a daemon behind that is in no group of its, then answers
    !ask                     asks a question (control_request) and answers with what it was told
    !error [STATUS]          ends the turn with an API error
    !env, !argv, !bound      answers with its environment; its arguments; its prompt and model
    !cwd                     answers with its directory
    !write TEXT, !read       writes a file there; answers with what is in it

Any other text is answered with `echo: TEXT`; `/clear`, unless it came verbatim, forgets everything.
A message with `shouldQuery: false` and an assistant's line are only remembered, as is the transcript of
`--resume=PATH`; `--session-mirror` tells of what is added.
The scenario: `version`, `start_delay` (seconds), `exit_at_start` (code), `stderr_at_start`, `mute`
(answers nothing), `ignore_term`, `ignore_eof`, `refuse` (list of control subtypes), `unknown`
(list of flags that it has not), `no_resume` (reads no transcript), `die_when_told` (exits at the
first message that it is only to remember), `untaken` (makes a turn of such a message), `turn_delay`
(seconds before each turn's first output), `ask_model` (make one model request a turn).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import sys
import threading
import time

from fake_parts import MODELS, Speaker, post, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def install(directory: Path, **scenario: object) -> Path:
    """Put a copy with this scenario into `directory`; the path of its binary."""
    from pathlib import Path  # the child does without it, and starts faster

    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / "claude"
    source = Path(__file__).read_text(encoding="utf-8").split("\n", 1)[1]
    # One script: what it imports of ours is put in the import's place.
    part = Path(__file__).with_name("fake_parts.py").read_text(encoding="utf-8")
    part = part.split("from __future__ import annotations\n", 1)[1]
    source = source.replace("from fake_parts import MODELS, Speaker, post, text_of\n", part)
    binary.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
    binary.chmod(0o755)
    (directory / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
    return binary


class FakeCli(Speaker):
    """One fake process."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.scenario = scenario
        super().__init__(sys.argv)
        self.prompt = ""
        self.initialized = False
        self.waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.worker = threading.Thread(target=self.take_turns, daemon=True)
        self.interrupted = threading.Event()
        self.told = threading.Event()
        self.answer: dict[str, Any] = {}
        self.deaf = False
        self.turns = 0
        self.worker.start()

    def hear(self, line: dict[str, Any]) -> None:
        """Act on one line of stdin."""
        kind = line.get("type")
        if kind == "control_request":
            self.control(line["request_id"], line["request"])
        elif kind == "control_response":
            self.answer = line["response"]
            self.told.set()
        elif kind == "user":
            self.waiting.put(line)
        elif kind == "assistant":
            self.transcript.add(line["message"], line.get("uuid"))

    def take_turns(self) -> None:
        """Run one message after another, until there is a None; first the turn that it goes on from."""
        if self.transcript.pending:
            self.go_on(self.transcript.pending)
        while line := self.waiting.get():
            self.interrupted.clear()
            self.run(line)

    def control(self, request_id: str, request: dict[str, Any]) -> None:
        """Answer a control request."""
        subtype = request["subtype"]
        reply: dict[str, Any] = {"subtype": "success", "request_id": request_id}
        known = getattr(self, f"on_{subtype}", None)
        if known is None or subtype in self.scenario.get("refuse", ()):
            reply |= {"subtype": "error", "error": f"Unsupported control request: {subtype}"}
        else:
            reply["response"] = known(request)
        self.emit({"type": "control_response", "response": reply})

    def on_initialize(self, request: dict[str, Any]) -> dict[str, Any]:
        """Only the first, before the first turn, counts."""
        if not self.initialized and not self.turns:
            prompt = request.get("systemPrompt")
            self.prompt = "".join(prompt) if prompt else request.get("appendSystemPrompt", "")
        self.initialized = True
        names = ("value", "resolvedModel", "displayName")
        models = [dict(zip(names, each, strict=True)) for each in MODELS]
        return {"models": models, "pid": os.getpid()}

    def on_set_model(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take any model."""
        self.model = request.get("model") or "default"
        return {}

    def on_interrupt(self, request: dict[str, Any]) -> dict[str, Any]:
        """End the turn, unless deaf."""
        if not self.deaf:
            self.interrupted.set()
        return {}

    def on_get_session_cost(self, request: dict[str, Any]) -> dict[str, Any]:
        """No cost."""
        return {"text": "Total cost: $0.00"}

    def on_set_cwd(self, request: dict[str, Any]) -> dict[str, Any]:
        """Work there."""
        os.chdir(request["path"])
        return {"status": "ok", "cwd": request["path"], "changed": True}

    on_get_binary_version = on_get_session_cost

    def on_apply_flag_settings(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take any setting; nothing here depends on one."""
        return {}

    on_mcp_set_servers = on_set_permission_mode = on_apply_flag_settings
    on_set_max_thinking_tokens = on_apply_flag_settings

    def run(self, line: dict[str, Any]) -> None:
        """One turn, from its first line to its result."""
        text = text_of(line["message"]["content"])
        asked = line.get("uuid")
        self.turns += 1
        time.sleep(self.scenario.get("turn_delay", 0))
        if asked:
            self.emit({"type": "command_lifecycle", "command_uuid": asked, "state": "started"})
        self.emit(self.tagged("system", subtype="init", model=self.resolved(), tools=[]))
        if text == "/clear" and not line.get("client_composed"):
            self.transcript.clear()
            reset = {"new_conversation_id": self.transcript.session}
            self.emit({"type": "conversation_reset", **reset})
            self.end(asked, "")
            return
        self.transcript.add(line["message"], asked)
        self.transcript.tell()
        if line.get("shouldQuery") is False:
            if self.scenario.get("die_when_told"):
                os._exit(5)
            self.end(asked, "", num_turns=int(bool(self.scenario.get("untaken"))))
            return
        word, *rest = text[:200].split() if text.startswith("!") else ("", "")
        act = getattr(self, f"do_{word[1:]}", None) if word else None
        if act is not None:
            act(asked, rest)
            return
        self.answer_with(asked, f"echo: {text}")

    def answer_with(self, asked: str | None, *pieces: str, pause: float = 0) -> None:
        """Ask the model; say these pieces where it answers."""
        if wrong := self.ask_model():
            self.fail(asked, wrong)
        else:
            self.say(asked, *pieces, pause=pause)

    def say(self, asked: str | None, *pieces: str, pause: float = 0) -> None:
        """Answer with these text deltas and end the turn."""
        self.begin()
        start = time.monotonic()
        for index, piece in enumerate(pieces):
            if pause and self.interrupted.wait(max(0, start + index * pause - time.monotonic())):
                self.end_interrupted(asked)
                return
            self.emit(self.delta(piece))
        whole = "".join(pieces)
        message = {"id": "msg_fake", "model": self.resolved(), "role": "assistant"}
        message["content"] = [{"type": "text", "text": whole}]  # type: ignore[assignment]  # JSON
        self.emit(self.tagged("assistant", message=message, parent_tool_use_id=None))
        self.transcript.add(message)
        usage = {"output_tokens": len(pieces)}
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        self.emit(
            self.event("content_block_stop", index=0),
            self.event("message_delta", delta=stop, usage=usage),
            self.event("message_stop"),
        )
        self.end(asked, whole, len(pieces))

    def begin(self) -> None:
        """Begin to answer."""
        usage = {"input_tokens": 10, "output_tokens": 1}
        head = {"id": "msg_fake", "type": "message", "model": self.resolved(), "usage": usage}
        self.emit(
            self.event("message_start", message=head),
            self.event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        )

    def end(self, asked: str | None, text: str, tokens: int = 0, /, **fields: object) -> None:
        """The result of the turn."""
        used = {"inputTokens": 10, "outputTokens": tokens, "costUSD": 0.001}
        result = {
            "subtype": "success",
            "is_error": False,
            "result": text,
            "stop_reason": "end_turn",
            "terminal_reason": "completed",
            "num_turns": 1,
            "time_to_request_ms": 1,
            "total_cost_usd": 0.001 * self.turns,
            "usage": {"input_tokens": 10, "output_tokens": tokens},
            "model_usage_since_last_result": {self.resolved(): used},
            "user_message_uuid": asked,
        }
        self.transcript.tell()
        self.emit(self.tagged("result", **(result | fields)))
        if asked:
            done = "cancelled" if self.interrupted.is_set() else "completed"
            self.emit({"type": "command_lifecycle", "command_uuid": asked, "state": done})

    def fail(self, asked: str | None, wrong: str) -> None:
        """The result of a turn whose model request failed: a status, or words for want of one."""
        status = int(wrong) if wrong.isdecimal() else None
        how = {"is_error": True, "terminal_reason": "api_error", "api_error_status": status}
        self.end(asked, f"API Error: {wrong}", 0, **how)

    def end_interrupted(self, asked: str | None) -> None:
        """The result of a turn that was interrupted."""
        reason = {"terminal_reason": "aborted_streaming", "stop_reason": None}
        wrong = {"subtype": "error_during_execution", "is_error": True, "errors": ["interrupted"]}
        self.end(asked, "", 0, **reason, **wrong)

    def do_deltas(self, asked: str | None, args: list[str]) -> None:
        """N, MS, BYTES."""
        count, pause, size = [*map(float, args), *(10.0, 0.0, 8.0)[len(args) :]]
        self.say(asked, *["x" * int(size)] * int(count), pause=pause / 1000)

    def do_paced(self, asked: str | None, args: list[str]) -> None:
        """N, MS, TIMES, TEXT."""
        count, pause, times = int(args[0]), float(args[1]), int(args[2])
        text = " ".join(args[3:] * times)
        cuts = [len(text) * each // count for each in range(count + 1)]
        pieces = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
        self.answer_with(asked, *pieces, pause=pause / 1000)

    def do_die(self, asked: str | None, args: list[str]) -> None:
        """CODE."""
        self.begin()
        self.emit(self.delta("last words"))
        os.write(2, b"fake: dying as asked\n")
        os._exit(int(args[0]) if args else 3)

    def do_kill(self, asked: str | None, args: list[str]) -> None:
        """No arguments. The first process of a PID namespace cannot kill itself, so exit as if."""
        os.kill(os.getpid(), signal.SIGKILL)
        os._exit(137)

    def do_hang(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.begin()
        self.emit(self.delta("thinking about it"))
        self.interrupted.wait()
        self.end_interrupted(asked)

    def do_deaf(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.deaf = True
        self.do_hang(asked, args)

    def do_garbage(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.begin()
        self.write(b"\x00\xff not json at all\n")
        self.interrupted.wait()

    def do_half(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.write(json.dumps(self.delta("cut")).encode()[:40])
        os._exit(0)

    def do_big(self, asked: str | None, args: list[str]) -> None:
        """BYTES."""
        self.say(asked, "y" * (int(args[0]) if args else 20 * 1024 * 1024))

    def do_stderr(self, asked: str | None, args: list[str]) -> None:
        """BYTES."""
        os.write(2, b"z" * int(args[0]) + b"\nend of the flood\n")
        self.say(asked, "flooded")

    def do_orphan(self, asked: str | None, args: list[str]) -> None:
        """Two forks and a session of its own: neither a group nor a parent leads to it."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                while True:
                    time.sleep(60)
            os._exit(0)
        os.wait()
        self.say(asked, "left one behind")

    def do_ask(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        request = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
        self.emit({"type": "control_request", "request_id": "q1", "request": request})
        self.told.wait()
        self.say(asked, json.dumps(self.answer))

    def go_on(self, call: dict[str, Any]) -> None:
        """Ask about the call that the transcript ends with, and end its turn."""
        asked = {"tool_name": call["toolName"], "input": call["toolInput"]}
        asked |= {"subtype": "can_use_tool", "tool_use_id": call["toolUseID"]}
        self.emit({"type": "control_request", "request_id": "q0", "request": asked})
        self.told.wait()
        self.told.clear()
        self.say(None, json.dumps(self.answer))

    def do_error(self, asked: str | None, args: list[str]) -> None:
        """STATUS."""
        self.fail(asked, args[0] if args else "529")

    def do_env(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.say(asked, json.dumps(dict(os.environ)))

    def do_argv(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.say(asked, json.dumps(sys.argv))

    def do_cwd(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        self.say(asked, json.dumps(os.getcwd()))  # noqa: PTH109  # the child does without pathlib

    def do_write(self, asked: str | None, args: list[str]) -> None:
        """TEXT."""
        with open("file", "w", encoding="utf-8") as file:  # noqa: PTH123  # as in main
            file.write(args[0])
        self.say(asked, "written")

    def do_read(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        try:
            with open("file", encoding="utf-8") as file:  # noqa: PTH123  # as in main
                self.say(asked, file.read())
        except FileNotFoundError:
            self.say(asked, "nothing")

    def do_bound(self, asked: str | None, args: list[str]) -> None:
        """No arguments."""
        history = self.transcript.history
        self.say(
            asked, json.dumps({"prompt": self.prompt, "model": self.model, "history": history})
        )

    def ask_model(self) -> str:
        """Make the turn's model request; its answer is read and not used. Gives why there is none."""
        path = os.environ.get("ANTHROPIC_UNIX_SOCKET")
        if not path or not self.scenario.get("ask_model", True):
            return ""
        system = [{"type": "text", "text": self.prompt}]
        asked = {"model": self.resolved(), "system": system, "messages": self.transcript.messages}
        return post(path, {**asked, "max_tokens": 99, "stream": True})


def main() -> None:
    """Run until stdin ends."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scenario.json")  # noqa: PTH100, PTH118, PTH120  # os.path is loaded already
    scenario: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError), open(beside, encoding="utf-8") as file:  # noqa: PTH123  # as above
        scenario = json.load(file)
    if "--version" in sys.argv:
        os.write(1, f"{scenario.get('version', '2.1.329')} (Claude Code)\n".encode())
        return
    serve(scenario)


def serve(scenario: dict[str, Any]) -> None:
    """Speak the protocol; at SIGTERM end as the CLI does, or not."""
    at_term = signal.SIG_IGN if scenario.get("ignore_term") else lambda *_: os._exit(143)
    signal.signal(signal.SIGTERM, at_term)
    time.sleep(scenario.get("start_delay", 0))
    os.write(2, str(scenario.get("stderr_at_start", "")).encode())
    for flag in scenario.get("unknown", ()):
        if flag in sys.argv:
            os.write(2, f"error: unknown option '{flag}'\n".encode())
            os._exit(1)
    if scenario.get("no_resume") and any(arg.startswith("--resume=") for arg in sys.argv):
        os.write(2, b"No conversation found with session ID\n")
        os._exit(1)
    if "exit_at_start" in scenario:
        os._exit(scenario["exit_at_start"])
    cli = FakeCli(scenario)
    for line in sys.stdin.buffer:
        if scenario.get("mute") or not line.strip():
            continue
        try:
            cli.hear(json.loads(line))
        except ValueError:
            os.write(2, b"Error parsing streaming input line\n")
            os._exit(1)
    cli.waiting.put(None)
    cli.worker.join()
    while scenario.get("ignore_eof"):
        time.sleep(60)


if __name__ == "__main__":
    main()
