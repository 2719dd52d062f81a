"""The api engine against a real server on loopback that is down, slow, wrong or hostile."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import server
import tiny
from headway import cli
from headway.engines import Connection
from headway.engines.api import APIEngine, load
from headway.engines.hf import HFEngine
from headway.engines.scripted import Characters, ScriptedEngine, ramps
from headway.problems import countdown
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import Completion, HeadwayError, Prompt, SamplingParams

PARAMS = SamplingParams(max_tokens=400, n=2)
PROBLEMS = list(countdown.problems(80, split="heldout"))
PROMPTS = [Prompt.of(tuple(map(ord, f"<user>{p.prompt}<assistant><think>"))) for p in PROBLEMS[:3]]


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine(PROBLEMS, ramps(PROBLEMS))


@pytest.fixture
def there(scripted: ScriptedEngine) -> Iterator[server.Server]:
    with server.serving(scripted) as made:
        yield made


def ask(
    url: str, *, model: str = "m", params: SamplingParams = PARAMS, **connection: object
) -> list[list[Completion]]:
    options = {"retries": 0, "timeout": 5.0, **connection}
    engine = APIEngine(model, Characters(), Connection(url, **options))  # type: ignore[arg-type]
    try:
        return engine.sample(PROMPTS, params, seeds=[1, 2, 3])
    finally:
        engine.close()


def tokens(out: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in samples] for samples in out]


def unused_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# -- what it asks and reads -------------------------------------------------------------------------------------------


def test_the_request_is_the_models_own_distribution_and_carries_the_tokens_as_they_are(there: server.Server) -> None:
    ask(there.url, params=SamplingParams(max_tokens=99, n=3, temperature=0.5, top_p=0.9, stop=("\n",)))
    assert [body["prompt"] for body in sorted(there.asked, key=lambda b: b["seed"])] == [list(p.ids) for p in PROMPTS]
    asked = {"n": 3, "max_tokens": 99, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "model": "m"}
    plain = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "add_special_tokens": False}
    assert all({**asked, **plain}.items() <= body.items() for body in there.asked)


def test_a_server_that_knows_text_only_gives_the_same_with_a_warning(
    scripted: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with server.serving(scripted, ids=False) as there, caplog.at_level(logging.WARNING):
        out = ask(there.url, concurrency=1)
        assert tokens(out) == tokens(scripted.sample(PROMPTS, PARAMS, seeds=[1, 2, 3]))
        assert all(c.logprob is None for samples in out for c in samples)
        # the first of all goes out twice, as ids and as text; the others as text at once
        assert [type(body["prompt"]) for body in there.asked] == [list, str, str, str]
    [record] = [r for r in caplog.records if r.name.startswith("headway")]
    assert "takes no token ids" in record.message


def test_a_logprob_is_told_only_where_the_servers_is_that_of_the_sampling_distribution(there: server.Server) -> None:
    assert all(c.logprob is not None for samples in ask(there.url) for c in samples)
    for params in (SamplingParams(max_tokens=400, temperature=0.7), SamplingParams(max_tokens=400, top_p=0.7)):
        assert all(c.logprob is None for samples in ask(there.url, params=params) for c in samples)


def test_the_end_of_text_is_no_token_and_a_stop_string_is(there: server.Server) -> None:
    def choice(**more: object) -> bytes:
        said = {"text": "ab", "index": 0, "finish_reason": "stop", "token_ids": [97, 98], **more}
        return json.dumps({"choices": [said]}).encode()

    params = SamplingParams(max_tokens=5)
    for more, expected in (
        ({}, (97,)),  # vLLM, end of text
        ({"stop_reason": 98}, (97,)),  # vLLM, a token that stops
        ({"stop_reason": "b"}, (97, 98)),  # vLLM, a stop string
        ({"matched_stop": 98}, (97,)),  # SGLang, end of text
        ({"matched_stop": "b"}, (97, 98)),  # SGLang, a stop string
    ):
        there.faults.extend([server.sends(200, choice(**more))] * 3)
        assert tokens(ask(there.url, params=params)) == [[expected]] * 3
    for room, cut in ((2, False), (5, True)):
        there.faults.extend([server.sends(200, choice(finish_reason="length"))] * 3)
        if cut:  # it ended for its length, and not for the one asked for
            with pytest.raises(HeadwayError, match=r"with room for 5 more at .* in all; lower --budget"):
                ask(there.url, params=SamplingParams(max_tokens=room))
        else:
            assert tokens(ask(there.url, params=SamplingParams(max_tokens=room))) == [[(97, 98)]] * 3


# -- faults -----------------------------------------------------------------------------------------------------------


CHOICE = b'{"text": "a", "index": 0, "finish_reason": "stop", "token_ids": [97, 98]}'


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (server.hangs_up, "cannot reach the server at"),
        (server.waits(1), "did not answer within 0.3 seconds, in one try"),
        (server.drips, "did not answer within 0.3 seconds, in one try"),
        (server.drips_headers, "did not answer within 0.3 seconds, in one try"),
        (server.sends(413, b'{"error": "' + b"x" * 2**22 + b'"}'), 'answers 413 in one try: {"error": "xxx'),
        (server.sends(500, b"[" * 100_000), "answers 500 in one try: [[["),
        (server.sends(200, b'{"choices": ' + b"[" * 100_000), "something other than completions"),
        (server.sends(200, b'{"x": ' + b"[" * 100_000), "something other than completions"),
        (
            server.sends(200, b'{"choices": [' + CHOICE.replace(b"stop", b"x" * 10**6) + b"]}"),
            "other than completions",
        ),
        (server.sends(307, b"", location="http://["), "answers 307, a redirect that is not followed"),
        (server.sends(500, b'{"error": {"message": "out of memory"}}'), "answers 500 in one try: out of memory"),
        (server.sends(503, b"<html>"), "answers 503 in one try: <html>"),
        (server.sends(200, b'{"choices": [' + CHOICE), "something other than completions"),
        (server.sends(200, b"\xff\xfe{}"), "something other than completions"),
        (server.sends(200, b'{"choices": [{"text": "\xff", "finish_reason": "stop"}]}'), "other than completions"),
        (server.sends(200, b"[1, 2]"), "something other than completions"),
        (server.sends(200, b'{"choices": []}'), "gives 0 completions"),
        (server.sends(200, b'{"choices": [' + CHOICE + b"]}"), "gives 1 completions"),
        (server.sends(200, b'{"choices": [' + CHOICE.replace(b"stop", b"abort") + b"]}"), "'abort'"),
        (server.sends(200, b'{"choices": [' + CHOICE.replace(b"97", b"-1") + b"]}"), "something other than"),
        (server.sends(200, b'{"choices": [' + CHOICE.replace(b"97", b"97," * 999 + b"1") + b"]}"), "of at most 1001"),
        (server.sends(200, b"x" * 9, content_length="99", connection="close"), "cannot reach the server at"),
        (server.sends(200, b"x" * 9, content_encoding="gzip"), "cannot reach the server at"),
        (
            server.sends(429, b'{"error": {"message": "slow down"}}', retry_after="3600"),
            "answers 429 in one try: slow down",
        ),
    ],
)
def test_each_fault_is_one_clear_message(there: server.Server, fault: server.Fault, says: str) -> None:
    there.faults.extend([fault] * len(PROMPTS))
    with pytest.raises(HeadwayError) as error:
        ask(there.url, timeout=0.3, retries=int("429" in says))  # an hour's wait is not worth a try
    text = str(error.value)
    assert says in text and there.url in text and "What was measured is kept" in text
    assert text.isprintable() and len(text) < 700


@pytest.mark.parametrize("charset", ["base64", "hex", "zlib", "utf-16", "idna", "undefined", "rot13", "x"])
def test_an_answers_charset_is_not_believed(there: server.Server, charset: str) -> None:
    named = {"content_type": f"application/json; charset={charset}"}
    there.faults.extend([server.sends(500, '{"error": {"message": "zu groß"}}'.encode(), **named)] * 3)
    with pytest.raises(HeadwayError, match="answers 500 in one try: zu groß"):
        ask(there.url)
    there.faults.clear()
    good = json.dumps({"choices": [json.loads(CHOICE)] * 2}).encode()
    there.faults.extend([server.sends(200, good, **named)] * 3)
    assert tokens(ask(there.url)) == [[(97,), (97,)]] * 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_on_the_same_address_only(
    scripted: ScriptedEngine, there: server.Server, status: int
) -> None:
    with server.serving(scripted) as other:
        for to in (other.url, there.url.replace("127.0.0.1", "localhost"), there.url.replace("http", "https")):
            there.faults.extend([server.sends(status, b"", location=f"{to}/completions")] * 3)
            with pytest.raises(HeadwayError, match=f"answers {status}, a redirect that is not followed; give --base"):
                ask(there.url)
            there.faults.clear()
        assert not other.asked
    if status in (307, 308):  # of the others a client makes a GET
        there.faults.extend([server.sends(status, b"", location="/v1/completions/"), None] * 3)
        out = ask(there.url, concurrency=1)
        assert tokens(out) == tokens(scripted.sample(PROMPTS, PARAMS, seeds=[1, 2, 3]))


def test_tokens_outside_the_vocabulary_and_texts_past_the_limit_are_refused(
    there: server.Server, tmp_path: Path
) -> None:
    tokenizer = tiny.tokenizer()
    last, longest = max(tokenizer.get_vocab().values()), max(map(len, tokenizer.get_vocab()))
    engine, params = APIEngine("m", tokenizer, Connection(there.url, retries=0)), SamplingParams(max_tokens=4)
    prompt = [Prompt.of((1, 2))]

    def answer(**more: object) -> None:
        said = {"text": "a", "index": 0, "finish_reason": "stop", **more}
        there.faults.append(server.sends(200, json.dumps({"choices": [said]}).encode()))

    for right in (last, last + 9):  # a model may have more ids than its tokenizer
        answer(token_ids=[right], stop_reason="a")
        assert tokens(engine.sample(prompt, params, seeds=[1])) == [[(right,)]]
    for wrong in (last + 5000, 10**6, 2**31 - 1):
        answer(token_ids=[1, wrong])
        with pytest.raises(
            HeadwayError, match=f"gives token {wrong}, the vocabulary ends at {last}; give --tokenizer"
        ):
            engine.sample(prompt, params, seeds=[1])
    answer(text="a" * 4 * longest)
    assert [len(c.token_ids) for c in engine.sample(prompt, params, seeds=[1])[0]] == [4]
    answer(text="a" * 2**22)
    with pytest.raises(HeadwayError, match="gives a text of 4194304 characters, where 4 tokens have at most"):
        engine.sample(prompt, params, seeds=[1])
    engine.close()


def test_a_server_that_is_down_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{unused_port()}/v1"
    with pytest.raises(HeadwayError, match=r"cannot reach the server at .* in one try.*is it running\?"):
        load("m", Connection(url, retries=8), tokenizer=str(tiny.folder(tmp_path)))


def test_a_refused_prompt_a_wrong_key_and_an_unknown_model_say_what_to_do(there: server.Server) -> None:
    with pytest.raises(HeadwayError, match=r"refuses a prompt of \d+ tokens with room for 4096 more: maximum context"):
        ask(there.url, params=SamplingParams(max_tokens=4096))
    # ids that were taken once are not tried as text: a prompt that is too long stays that
    there.asked.clear()
    there.faults.extend([None, server.sends(400, b'{"error": {"message": "too long"}}')])
    with pytest.raises(HeadwayError, match=r"refuses a prompt .*: too long\. What was measured is kept"):
        ask(there.url, concurrency=1)
    assert [type(body["prompt"]) for body in there.asked[:2]] == [list, list]
    assert not any(isinstance(body["prompt"], str) for body in there.asked)
    with pytest.raises(HeadwayError, match=r"has no model 'unknown'.*give --model the name the server knows"):
        ask(there.url, model="unknown")
    there.key = "secret"
    with pytest.raises(HeadwayError, match=r"refuses the key.*environment variable OPENAI_API_KEY"):
        ask(there.url)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    scripted: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with server.serving(scripted, key="sk-very-secret") as there:
        assert ask(there.url, api_key_env="MY_KEY")
        (tmp_path / "m").mkdir()
        name = str(tiny.folder(tmp_path / "m"))
        settings = Settings.of(
            model="m", problems="countdown", limit=1, traces=1, branches=1, engine="api", base_url=there.url,
            tokenizer=name, api_key_env="MY_KEY",
        )  # fmt: skip
        with Measurement.create(tmp_path / "run", settings):
            assert "sk-very-secret" not in (tmp_path / "run/run.json").read_text()
    hosts = ("\udcff", "a" * 300, "a..b", "a b", "h:99999", "h\x1b[31m")
    for url in (*(f"http://{host}/v1" for host in hosts), "http://h/\udcff"):
        with pytest.raises(HeadwayError, match=r"--base-url .* is no address") as error:
            settings.changed(base_url=url)
        assert str(error.value).isprintable() and len(str(error.value)) < 300
    for url in ("http://münchen.example/v1", "https://my_host:8000/v1", "http://[::1]:9/v1", "http://a.b./v1"):
        assert settings.changed(base_url=url).server.base_url == url
    for url in ("http://user:word@host/v1", "http://host/v1?key=1", "host:8000/v1", "ftp://host/v1", "http://[x/v1"):
        with pytest.raises(HeadwayError, match="--base-url"):
            settings.changed(base_url=url)


@pytest.mark.parametrize("status", [200, 307, 400, 401, 404, 422, 429, 500])
def test_a_key_that_the_server_repeats_is_masked(
    there: server.Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    key = "sk-very-secret-" + "7" * 40
    monkeypatch.setenv("MY_KEY", f" {key}\n")
    chopped = f"{key[:9]}\x1b{key[9:]}"
    bodies = [{"error": {"message": f"{pad}{shown}"}} for pad in ("bad ", "x" * 280) for shown in (key, chopped)]
    bodies += [{"error": key}, {"detail": [{"msg": key}]}, {"choices": [json.loads(CHOICE) | {"finish_reason": key}]}]
    for body in (*map(json.dumps, bodies), key, f"token {key}"):
        there.faults.extend([server.sends(status, body.encode())] * 6)
        with pytest.raises(HeadwayError) as error:
            ask(there.url, api_key_env="MY_KEY")
        there.faults.clear()
        assert "sk-very" not in str(error.value) and "777" not in str(error.value)


def test_a_key_that_no_header_holds_is_one_message(there: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-“quoted”", "sk-two\nlines"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(HeadwayError, match="MY_KEY holds no key") as error:
            ask(there.url, api_key_env="MY_KEY")
        assert "sk-" not in str(error.value)


def test_rate_limits_and_passing_faults_are_waited_out(scripted: ScriptedEngine, there: server.Server) -> None:
    limit = server.sends(429, b"{}", retry_after="1")
    there.faults.extend([limit, None, server.hangs_up, None, server.sends(503, b"{}"), None])
    begun = time.monotonic()
    out = ask(there.url, retries=1, concurrency=1)
    assert tokens(out) == tokens(scripted.sample(PROMPTS, PARAMS, seeds=[1, 2, 3]))
    assert time.monotonic() - begun > 1  # as Retry-After asked
    assert len(there.asked) == 2 * len(PROMPTS)


# -- a server that dies -----------------------------------------------------------------------------------------------


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["headway", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    return int(ended.value.code or 0)


def test_a_server_killed_three_times_loses_no_answer_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    engine, name = HFEngine(tiny.model(), tiny.tokenizer()), str(tiny.folder(tmp_path / "m"))
    measure = ["measure", "--engine", "api", "--model", "m", "--tokenizer", name, "--problems", "countdown"]
    measure += ["--limit", "34", "--traces", "2", "--branches", "1", "--budget", "4", "--answer-tokens", "2"]
    measure += ["--segment", "tokens", "--episode-tokens", "4", "--grader", "exact", "--retries", "0", "--base-url"]
    with server.serving(engine) as there:
        assert run(*measure, there.url, "--out", str(tmp_path / "a"), monkeypatch=monkeypatch) == 0
        whole = len(there.asked)
    lines, asked = [], 0
    # in the first chunk of 32 problems, among the branches, and at the last of all of them
    for dies_after in (20, 33, whole - 20 - 33 - 1, None):
        with server.serving(engine) as there:  # at another port each time: a run goes on with another server
            there.dies_after = dies_after
            arguments = [*measure, there.url, "--out", str(tmp_path / "b"), "--concurrency", "1"]
            assert run(*arguments, monkeypatch=monkeypatch) == (0 if dies_after is None else 2)
            asked += len(there.asked)
        files = [tmp_path / "b" / name for name in ("traces.jsonl", "branches.jsonl")]
        lines.append(sum(len(f.read_bytes().splitlines()) for f in files if f.exists()))
    assert lines == [40, 68 + 19, 68 + whole - 34 - 1, 68 + whole - 34]
    assert asked < whole + 10  # what was answered is not asked again
    a, b = ((tmp_path / x / "report.json").read_text() for x in "ab")
    assert a == b
    a, b = (sorted((tmp_path / x / "traces.jsonl").read_bytes().splitlines()) for x in "ab")  # in order of arrival
    assert a == b


@pytest.mark.slow
def test_a_server_killed_and_restarted_in_mid_answer_changes_nothing(tmp_path: Path) -> None:
    """Real processes: the server is killed as a crash would, twice bridged by retries and once not."""
    port, environment = unused_port(), {**os.environ, "OMP_NUM_THREADS": "1"}

    def serve() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(server.__file__)), str(port)]
        process = subprocess.Popen(command, env=environment)
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.1)
        raise TimeoutError("the server does not come up")

    def measure(out: str, *more: str) -> subprocess.Popen[bytes]:
        command = (
            f"-m headway measure --engine api --base-url http://127.0.0.1:{port}/v1 --model countdown --tokenizer "
            f"builtin:countdown --problems countdown --limit 40 --traces 2 --branches 2 --budget 96 --answer-tokens 16"
        )
        command = [sys.executable, *command.split(), "--out", str(tmp_path / out), *more]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def size(out: str) -> int:
        return sum(f.stat().st_size for f in (tmp_path / out).glob("*s.jsonl"))

    def kill(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    running = serve()
    assert measure("whole").wait() == 0
    whole, measuring = size("whole"), measure("disturbed", "--concurrency", "2")
    for share in (0.0, 0.3):  # early in the traces, and among the branches
        while size("disturbed") < share * whole:
            time.sleep(0.05)
        time.sleep(1)
        kill(running)
        assert measuring.poll() is None
        running = serve()
    time.sleep(1)
    kill(running)
    measuring.terminate()
    measuring.wait()
    assert measure("disturbed", "--retries", "0").wait() == 2  # down: says so, and keeps what there is
    running = serve()
    assert measure("disturbed").wait() == 0
    kill(running)
    for name in ("report.json", "traces.jsonl"):
        assert (tmp_path / "disturbed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
