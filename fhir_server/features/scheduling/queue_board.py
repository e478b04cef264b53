"""What a queue board shows, as HTML: numbers and counters, and no name of anybody. Pure.

design/scheduling.md, section 7. It is read from across a room, without a script as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from statistics import mode
from typing import Any

from fhir_server.features.scheduling.queue import Expected
from fhir_server.features.scheduling.queue_words import Words, is_bangla
from fhir_server.store.queues import Entry

CALLED_MAX = 9
NEXT_MAX = 12
_NEW = timedelta(seconds=30)
"""So long a call stands out."""
THEMES = ("dark", "light")
CSS_PATH, SCRIPT_PATH = "/board.css", "/board.js"


@dataclass(frozen=True, slots=True)
class Call:
    """A number that was called to a counter; ``is_new`` of one that was called just now."""

    token: str
    counter: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Line:
    """How many wait for one service, by the letters of its numbers, and how many minutes."""

    letters: str
    waiting: int
    minutes: int | None


@dataclass(frozen=True, slots=True)
class Board:
    """What one board shows. Equal boards look the same."""

    called: tuple[Call, ...] = ()
    next: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    is_stale: bool = False


def board(
    called: Sequence[Entry],
    waiting: Sequence[Entry],
    expected: Mapping[str, Expected],
    now: datetime,
) -> Board:
    """Return what is shown of those who were called, the last first, and of those who wait in
    their order. ``expected`` is by service."""
    calls = (
        Call(one.token, one.counter, one.called is not None and now - one.called < _NEW)
        for one in called[:CALLED_MAX]
    )
    of_service: dict[str, list[Entry]] = {}
    for one in waiting:
        of_service.setdefault(one.service, []).append(one)
    lines = sorted(
        (
            Line(
                # Who was sent here from elsewhere has the letters of that queue.
                mode(one.token.rpartition("-")[0] for one in some),
                len(some),
                _minutes(expected.get(service, Expected()).wait_s(len(some))),
            )
            for service, some in of_service.items()
        ),
        key=lambda line: line.letters,
    )
    return Board(tuple(calls), tuple(one.token for one in waiting[:NEXT_MAX]), tuple(lines))


def _minutes(seconds: float | None) -> int | None:
    return None if seconds is None else -int(-seconds // 60)


def title_of(location: Mapping[str, Any], words: Words) -> str:
    """Return the name of a place: in Bangla the first that is written so."""
    names = [str(one) for one in (location.get("name"), *location.get("alias", ())) if one]
    if words.lang == "bn":
        names = [one for one in names if is_bangla(one)] or names
    return names[0] if names else words.title


def fragment(board: Board, words: Words) -> str:
    """Return what changes of the page, on one line: it is sent as the data of one event."""
    called = "".join(_call(one, words) for one in board.called)
    now = f"<ol>{called}</ol>" if called else f"<p>{escape(words.nobody_called)}</p>"
    next = "".join(f"<li>{_text(one, words)}</li>" for one in board.next)
    lines = "".join(_line(one, words, many=len(board.lines) > 1) for one in board.lines)
    coming = f"<ul>{next}</ul>" if next else f"<p>{escape(words.nobody_waits)}</p>"
    stale = f'<p class="lost">{escape(words.lost)}</p>' if board.is_stale else ""
    return (
        f'{stale}<section class="now" aria-live="polite"><h2>{escape(words.now)}</h2>{now}'
        f'</section><section class="next"><h2>{escape(words.next)}</h2>{coming}'
        f'<div class="lines">{lines}</div></section>'
    )


def _call(call: Call, words: Words) -> str:
    counter = words.counter.replace("{n}", call.counter) if call.counter.isdigit() else call.counter
    new = ' class="new"' if call.is_new else ""
    return f"<li{new}><b>{_text(call.token, words)}</b> <span>{_text(counter, words)}</span></li>"


def _line(line: Line, words: Words, *, many: bool) -> str:
    said = [words.of(words.waiting, line.waiting)]
    if line.minutes is not None:
        said.append(words.of(words.wait, line.minutes))
    letters = f"<b>{escape(line.letters)}</b> " if many else ""
    return f"<p>{letters}{escape(' · '.join(said))}</p>"


def _text(text: str, words: Words) -> str:
    return escape(words.shown(text))


_PAGE = """<!doctype html>
<html lang="{lang}"{theme}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<noscript><meta http-equiv="refresh" content="10"></noscript>
<title>{title}</title>
<link rel="stylesheet" href="{css}">
<script src="{script}" defer></script>
</head>
<body>
<header><h1>{title}</h1></header>
<main id="board" data-events="{events}">{fragment}</main>
<p id="lost" class="lost" role="status" hidden>{lost}</p>
</body>
</html>
"""


def page(title: str, content: Board, words: Words, events: str, theme: str = "") -> str:
    """Return the page of a board; ``events`` is where it hears of changes."""
    return _PAGE.format(
        lang=words.lang,
        theme=f' data-theme="{theme}"' if theme in THEMES else "",
        title=escape(title),
        css=CSS_PATH,
        script=SCRIPT_PATH,
        events=escape(events, quote=True),
        fragment=fragment(content, words),
        lost=escape(words.lost),
    )


def notice(text: str, words: Words) -> str:
    """Return a page that says why there is no board."""
    return (
        f'<!doctype html>\n<html lang="{words.lang}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(words.title)}</title><link rel="stylesheet" href="{CSS_PATH}"></head>'
        f'<body><main><p class="notice">{escape(text)}</p></main></body></html>\n'
    )


def event(content: str) -> bytes:
    """Return ``content``, which is one line, as an event.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    return f"event: board\ndata: {content}\n\n".encode()


SCRIPT = """"use strict";
(() => {
  const board = document.getElementById("board");
  const lost = document.getElementById("lost");
  let events, timer;
  const isLost = (is) => { lost.hidden = !is; document.body.classList.toggle("is-lost", is); };
  const listen = () => {
    events = new EventSource(board.dataset.events);
    events.addEventListener("board", (one) => {
      clearTimeout(timer);
      timer = 0;
      isLost(false);
      board.innerHTML = one.data;
    });
    events.addEventListener("error", () => {
      timer ||= setTimeout(() => isLost(true), 5000);
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
    });
  };
  listen();
})();
"""

STYLE = """:root { color-scheme: light dark; --ground: #f7f9fb; --ink: #10181f; --soft: #51606d;
  --line: #cdd6de; --call: #fff; --new: #0b6b3a; --on-new: #fff; --lost: #a3140f; }
@media (prefers-color-scheme: dark) { :root:not([data-theme="light"]) { --ground: #0c1116;
  --ink: #f2f6f9; --soft: #a3b1bd; --line: #2c3742; --call: #161d25; --new: #1fa35c;
  --on-new: #04150b; --lost: #ff8a80; } }
:root[data-theme="dark"] { color-scheme: dark; --ground: #0c1116; --ink: #f2f6f9; --soft: #a3b1bd;
  --line: #2c3742; --call: #161d25; --new: #1fa35c; --on-new: #04150b; --lost: #ff8a80; }
:root[data-theme="light"] { color-scheme: light; }
* { box-sizing: border-box; }
html, body { margin: 0; min-height: 100%; }
body { background: var(--ground); color: var(--ink); padding: 2vmin 3vmin; display: flex;
  flex-direction: column; min-height: 100vh;
  font-family: system-ui, "Noto Sans Bengali", "Hind Siliguri", Vrinda, Kalpurush, sans-serif; }
h1 { font-size: clamp(1.3rem, 4.2vmin, 4rem); margin: 0 0 2vmin; font-weight: 600; }
h2 { font-size: clamp(1rem, 3vmin, 2.6rem); margin: 0 0 1.5vmin; color: var(--soft);
  font-weight: 600; }
main { flex: 1; display: grid; gap: 4vmin; grid-template-columns: 1fr; align-content: start; }
ol, ul { list-style: none; margin: 0; padding: 0; }
.now ol { display: grid; gap: 1.6vmin; }
.now li { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline;
  gap: 0 3vmin; background: var(--call); border: .3vmin solid var(--line); border-radius: 1.5vmin;
  padding: 1.2vmin 2.4vmin; font-size: clamp(1.6rem, 7vmin, 7rem); line-height: 1.2; }
.now li:first-child { font-size: clamp(2.4rem, 13vmin, 13rem); }
.now b { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 700; }
.now span { font-size: .55em; }
.now li.new { background: var(--new); border-color: var(--new); color: var(--on-new);
  animation: called 1.2s ease-in-out 5; }
@keyframes called { 50% { box-shadow: 0 0 0 1.1vmin var(--new); } }
@media (prefers-reduced-motion: reduce) { .now li.new { animation: none; } }
.next ul { display: flex; flex-wrap: wrap; gap: 1.2vmin 3.4vmin; font-weight: 600;
  font-size: clamp(1.3rem, 5vmin, 5rem); font-variant-numeric: tabular-nums; }
.now p, .next p { margin: 0; font-size: clamp(1.1rem, 3.6vmin, 3.2rem); color: var(--soft); }
.lines { margin-top: 2.5vmin; }
.lines p b { color: var(--ink); }
.lost { margin: 0; padding: 1.2vmin 2.4vmin; border: .4vmin solid var(--lost); color: var(--lost);
  border-radius: 1.5vmin; font-size: clamp(1.1rem, 3.6vmin, 3.2rem); font-weight: 600; }
main > .lost { grid-column: 1 / -1; }
.is-lost main { opacity: .35; }
.notice { font-size: clamp(1.1rem, 3.6vmin, 3rem); }
@media (min-width: 60rem) {
  body { height: 100vh; overflow: hidden; }  /* nobody scrolls a screen on a wall */
  h1 { margin-left: .6vmin; }
  main { grid-template-columns: 3fr 2fr; min-height: 0; overflow: hidden; padding: .6vmin; }
  .now ol { grid-template-columns: 1fr 1fr; }
  .now li { font-size: 4.8vmin; }
  .now li:first-child { grid-column: 1 / -1; font-size: 14vmin; }
  .next p { font-size: 3.2vmin; }
}
"""
